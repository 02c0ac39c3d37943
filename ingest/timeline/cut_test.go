package timeline

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/internal/media"
	"millrace/internal/relay"
)

var (
	hd     = &media.Codec{Format: media.H264, Record: []byte("720p"), Width: 1280, Height: 720, Universal: true}
	sd     = &media.Codec{Format: media.H264, Record: []byte("360p"), Width: 640, Height: 360, Universal: true}
	stereo = media.StereoAAC()
	opus   = &media.Codec{Format: media.Opus, Record: []byte("OpusHead"), Rate: 48000, Channels: 2, FrameSamples: 960}
	mono   = &media.Codec{Format: media.AAC, Record: []byte{0x12, 0x08}, Rate: 44100, Channels: 1, FrameSamples: 1024, Universal: true}
)

// source is what an encoder sends.
type source struct {
	from    float64 // seconds; the publisher's clock at the start
	seconds float64
	rate    float64           // frames a second; 0: no pictures
	gops    []int             // their lengths in frames; the last one repeats
	bFrames int               // in a row
	sound   *media.Codec      // nil: none
	mute    [2]float64        // no sound between these times
	jitter  func(int) float64 // seconds by which frame i's timestamp is off
}

// packet is a message of an encoder.
type packet struct {
	at          float64 // seconds
	composition media.Ticks
	idr, sound  bool
}

// pictures gives the frames in decode order. Timestamps are rounded to
// milliseconds as encoders do it: DTS and PTS each.
func (s source) pictures() (all []packet) {
	total := int(math.Round(s.seconds * s.rate))
	for first, gop := 0, 0; first < total; gop++ {
		length := min(s.gops[min(gop, len(s.gops)-1)], total-first)
		for i, shown := range decodeOrder(length, s.bFrames) {
			p := packet{at: s.from + float64(first+i)/s.rate, idr: i == 0}
			if s.bFrames > 0 {
				shown++ // PTS must not lie before DTS
			}
			pts := s.from + float64(first+shown)/s.rate
			if s.jitter != nil {
				p.at += s.jitter(first + i)
			} else {
				p.composition = media.Ticks(math.Round(pts*1000)-math.Round(p.at*1000)) * ms
			}
			all = append(all, p)
		}
		first += length
	}
	return all
}

// decodeOrder gives the place in the order of showing for each frame of a closed GOP.
func decodeOrder(length, bFrames int) (shown []int) {
	shown = append(shown, 0)
	for len(shown) < length {
		from := len(shown)
		reference := min(from+bFrames, length-1)
		shown = append(shown, reference)
		for b := from; b < reference; b++ {
			shown = append(shown, b)
		}
	}
	return shown
}

func (s source) packets() (all []packet) {
	if s.rate > 0 {
		all = s.pictures()
	}
	if s.sound == nil {
		return all
	}
	var merged []packet
	for i := 0; ; i++ {
		at := s.from + float64(i)*float64(s.sound.FrameSamples)/float64(s.sound.Rate)
		for len(all) > 0 && (all[0].at <= at || at >= s.from+s.seconds) {
			merged, all = append(merged, all[0]), all[1:]
		}
		if at >= s.from+s.seconds {
			return merged
		}
		if s.mute[0] == s.mute[1] || at < s.mute[0] || at >= s.mute[1] {
			merged = append(merged, packet{at: at, sound: true})
		}
	}
}

// studio publishes to a Sequencer and keeps what it writes into the log.
type studio struct {
	seq     *Sequencer
	entries []Entry
	now     time.Time
	jumps   int
}

func newStudio() *studio {
	s := &studio{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s.seq = NewSequencer(7, func(e Entry) { s.entries = append(s.entries, e) })
	return s
}

// connect begins a publisher; a configuration may be nil.
func (s *studio) connect(video *media.Codec, audio *media.Codec) {
	s.seq.Attach(len(s.entries) > 0)
	s.configure(video, audio)
}

func (s *studio) configure(video *media.Codec, audio *media.Codec) {
	for _, c := range []*media.Codec{video, audio} {
		if c != nil {
			same := *c
			s.seq.SetCodec(&same)
		}
	}
}

func (s *studio) play(src source) {
	began := s.now
	for _, p := range src.packets() {
		s.now = began.Add(time.Duration((p.at - src.from) * float64(time.Second)))
		u := media.Unit{Track: media.Video, DTS: media.Ticks(math.Round(p.at*1000)) * ms, RandomAccess: p.idr, Payload: []byte{2}}
		if p.sound {
			u.Track, u.Payload = media.Audio, []byte{1}
		}
		u.PTS = u.DTS + p.composition
		if _, jumped := s.seq.Push(u, s.now); jumped {
			s.jumps++
		}
	}
	s.now = began.Add(time.Duration(src.seconds * float64(time.Second)))
}

// marks gives the marks in short: sequence@seconds since the first, P or E
// before those of a pause or the end, +1 for a discontinuity, <n for decode_from.
func (s *studio) marks() string {
	var words []string
	var first, last *relay.Mark
	for _, e := range s.entries {
		m := e.Mark
		if m == nil {
			continue
		}
		if first == nil {
			first, last = m, m
		}
		word := map[relay.MarkKind]string{relay.Pause: "P", relay.End: "E"}[m.Kind]
		word += fmt.Sprintf("%d@%.4g", m.Sequence, math.Round((m.Start-first.Start).Seconds()*100)/100)
		if m.Discontinuity > last.Discontinuity {
			word += fmt.Sprintf("+%d", m.Discontinuity-last.Discontinuity)
		}
		if !m.Independent() {
			word += fmt.Sprintf("<%d", m.DecodeFrom)
		}
		words = append(words, word)
		last = m
	}
	return strings.Join(words, " ")
}

func TestCut(t *testing.T) {
	frames := func(n ...int) []int { return n }
	for _, c := range []struct {
		name   string
		source source
		marks  string
		target int
	}{
		{"30 fps", source{rate: 30, gops: frames(60), seconds: 8, sound: stereo}, "0@0 1@2 2@4 3@6 E4@8", 4},
		{"60 fps", source{rate: 60, gops: frames(120), seconds: 8, sound: stereo}, "0@0 1@2 2@4 3@6 E4@8", 4},
		{"29.97 fps", source{rate: 30000. / 1001, gops: frames(60), seconds: 8, sound: stereo}, "0@0 1@2 2@4 3@6.01 E4@8.01", 4},
		{"25 fps", source{rate: 25, gops: frames(50), seconds: 8, sound: mono}, "0@0 1@2 2@4 3@6 E4@8", 4},
		{"24 fps", source{rate: 24, gops: frames(48), seconds: 8, sound: stereo}, "0@0 1@2 2@4 3@6 E4@8", 4},
		{"B-frames", source{rate: 30, gops: frames(60), bFrames: 2, seconds: 8, sound: stereo}, "0@0 1@2 2@4 3@6 E4@8", 4},
		{"after 30 hours", source{from: 30 * 3600, rate: 30, gops: frames(60), seconds: 6, sound: stereo}, "0@0 1@2 2@4 E3@6", 4},
		{"across the wrap", source{from: 4294965, rate: 30, gops: frames(60), seconds: 6, sound: stereo}, "0@0 1@2 2@4 E3@6", 4},
		{"1 s GOPs", source{rate: 30, gops: frames(30), seconds: 6, sound: stereo}, "0@0 1@2 2@4 E3@6", 4},
		{"OBS's automatic GOP", source{rate: 30, gops: frames(250), seconds: 26, sound: stereo}, "0@0 1@8.33 2@16.67 3@25 E4@26", 10},
		{"OBS's automatic GOP with B-frames", source{rate: 30, gops: frames(250), bFrames: 2, seconds: 20, sound: stereo}, "0@0 1@8.33 2@16.67 E3@20", 10},
		{"12 s GOPs", source{rate: 30, gops: frames(360), seconds: 25, sound: stereo}, "0@0 1@9.53<0 2@12 3@21.53<2 4@24 E5@25", 10},
		{"30 s without a keyframe", source{rate: 30, gops: frames(900), seconds: 30, sound: stereo}, "0@0 1@9.53<0 2@19.07<0 3@28.6<0 E4@30", 10},
		{"irregular", source{rate: 30, gops: frames(20, 50, 10, 10, 70, 61), seconds: 12, sound: stereo}, "0@0 1@2.33 2@5.33 3@7.37 4@9.4 5@11.43 E6@12", 4},
		{"a short GOP, then long ones", source{rate: 30, gops: frames(30, 240), seconds: 18, sound: stereo}, "0@0 1@3.53<0 2@7.07<0 3@9 4@12.53<3 5@16.07<3 E6@18", 4},
		{"a short GOP, then long ones with B-frames", source{rate: 30, gops: frames(30, 240), bFrames: 2, seconds: 9, sound: stereo}, "0@0 1@3.53<0 2@7.13<0 E3@9", 4},
		{"Opus", source{rate: 30, gops: frames(60), seconds: 8, sound: opus}, "0@0 1@2 2@4 3@6 E4@8", 4},
		{"Opus by 2.5 ms", source{rate: 30, gops: frames(60), seconds: 8, sound: opus.WithFrame(120)}, "0@0 1@2 2@4 3@6 E4@8", 4},
		{"Opus by 60 ms, with a gap", source{rate: 30, gops: frames(60), seconds: 8, sound: opus.WithFrame(2880), mute: [2]float64{3, 6}}, "0@0 1@2 2@4 3@6 E4@8", 4},
		{"AAC of 960 samples", source{rate: 30, gops: frames(60), seconds: 8, sound: stereo.WithFrame(960)}, "0@0 1@2 2@4 3@6 E4@8", 4},
		{"no pictures, Opus", source{seconds: 6, sound: opus}, "0@0 1@1.96 2@3.92 3@5.88 E4@6", 4},
		{"no sound", source{rate: 30, gops: frames(60), seconds: 6}, "0@0 1@2 2@4 E3@6", 4},
		{"no pictures", source{seconds: 6, sound: stereo}, "0@0 1@1.96 2@3.93 3@5.89 E4@6.02", 4},
		{"sound from 0.6 s on", source{rate: 30, gops: frames(60), seconds: 6, sound: stereo, mute: [2]float64{0, 0.6}}, "0@0 1@2 2@4 E3@6", 4},
		{"sound from 3 s on", source{rate: 30, gops: frames(60), seconds: 6, sound: stereo, mute: [2]float64{0, 3}}, "0@0 1@2 2@4 E3@6", 4},
		{"sound stops and returns", source{rate: 30, gops: frames(60), seconds: 8, sound: stereo, mute: [2]float64{3, 6}}, "0@0 1@2 2@4 3@6 E4@8", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStudio()
			var video *media.Codec
			if c.source.rate > 0 {
				video = hd
			}
			s.connect(video, c.source.sound)
			s.play(c.source)
			s.seq.Finish()
			if got := s.marks(); got != c.marks {
				t.Errorf("marks are\n%s, want\n%s", got, c.marks)
			}
			st := s.seq.settings
			if st.TargetDuration != c.target || st.Video != (video != nil) || st.Audio != (c.source.sound != nil) {
				t.Errorf("settings are %+v, want a target duration of %d", st, c.target)
			}
			if math.Abs(st.FrameRate-c.source.rate) > 0.07 {
				t.Errorf("frame rate is %v, want %v", st.FrameRate, c.source.rate)
			}
			if s.jumps != 0 {
				t.Errorf("%d jumps were seen", s.jumps)
			}
			checkLog(t, s.entries)
			checkPictures(t, s.entries)
		})
	}
}

// fataler is what checks need of a test or a property.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkLog checks what everybody who reads a log relies on.
func checkLog(t fataler, entries []Entry) {
	t.Helper()
	var (
		mark     *relay.Mark // the newest
		open     bool        // its segment is
		target   media.Ticks
		video    media.Ticks // the newest DTS
		audio    *media.Codec
		sample   media.Samples // the newest frame of sound
		frame    media.Samples // how long it is
		configs  int           // since the newest mark
		sounded  bool          // some sound has come since the newest discontinuity
		settings int
	)
	for i, e := range entries {
		switch {
		case e.Settings != nil:
			settings++
			target = media.Ticks(e.Settings.TargetDuration) * media.VideoTimescale
		case e.Codec != nil && e.Codec.Kind() == media.Video:
			configs++
		case e.Codec != nil:
			configs++
			if audio != nil && (audio.Rate != e.Codec.Rate || audio.FrameSamples != e.Codec.FrameSamples) {
				sample = 0
			}
			audio = e.Codec
		case e.Mark != nil:
			m := e.Mark
			fresh := mark == nil || m.Discontinuity != mark.Discontinuity
			if mark != nil {
				checkNextMark(t, i, *mark, *m, open, target)
			}
			if (fresh && m.Kind == relay.Open) != (configs > 0) {
				t.Fatalf("entry %d: %+v comes after %d configurations", i, m, configs)
			}
			if audio != nil {
				if m.AudioStart.Ticks(audio.Rate) < m.Start {
					t.Fatalf("entry %d: %+v starts with sound before its pictures", i, m)
				}
				if sounded && !fresh && (m.AudioStart-sample)%audio.FrameSamples != 0 {
					t.Fatalf("entry %d: %+v isn't on the grid of sample %d", i, m, sample)
				}
			}
			sounded = sounded && !fresh
			mark, open, configs = m, m.Kind == relay.Open, 0
		case e.Unit.Track == media.Video:
			if e.Unit.DTS < video+ms {
				t.Fatalf("entry %d: decode time %d follows %d", i, e.Unit.DTS, video)
			}
			video = e.Unit.DTS
		default:
			at := media.Grid{Rate: audio.Rate, Frame: 1}.AtOrAfter(e.Unit.DTS)
			if sounded && at != sample+frame || at < sample+frame && sample != 0 {
				t.Fatalf("entry %d: sample %d follows %d", i, at, sample)
			}
			sample, sounded, frame = at, true, audio.FrameSamples
		}
		if e.Unit != nil && !open {
			t.Fatalf("entry %d: media outside of a segment", i)
		}
	}
	if settings < 1 || settings > 2 {
		t.Fatalf("%d settings", settings)
	}
}

func checkNextMark(t fataler, i int, last, m relay.Mark, open bool, target media.Ticks) {
	t.Helper()
	want := last.Sequence
	if open {
		want++
	}
	switch {
	case m.Sequence != want:
		t.Fatalf("entry %d: sequence %d follows %d, want %d", i, m.Sequence, last.Sequence, want)
	case m.Start < last.Start || open && m.Start == last.Start:
		t.Fatalf("entry %d: start %d follows %d", i, m.Start, last.Start)
	case m.Time.Before(last.Time):
		t.Fatalf("entry %d: %v follows %v", i, m.Time, last.Time)
	case open && target > 0 && m.Start-last.Start > target:
		t.Fatalf("entry %d: segment %d is %.3f s long", i, last.Sequence, (m.Start - last.Start).Seconds())
	case m.Discontinuity != last.Discontinuity && (m.Discontinuity != last.Discontinuity+1 || !m.Independent()):
		t.Fatalf("entry %d: discontinuity of %+v follows %+v", i, m, last)
	case m.DecodeFrom > m.Sequence || m.DecodeFrom < m.Sequence && m.DecodeFrom != last.DecodeFrom:
		t.Fatalf("entry %d: decode_from of %+v follows %+v", i, m, last)
	case m.Epoch < last.Epoch:
		t.Fatalf("entry %d: epoch of %+v follows %+v", i, m, last)
	}
}

// checkPictures checks that each picture is shown within its segment, as it is
// when frames come evenly.
func checkPictures(t fataler, entries []Entry) {
	t.Helper()
	var mark relay.Mark
	var newest media.Ticks
	first := false
	for i, e := range entries {
		switch {
		case e.Mark != nil:
			if newest >= e.Mark.Start {
				t.Fatalf("entry %d: a picture at %d comes before the mark at %d", i, newest, e.Mark.Start)
			}
			mark, first = *e.Mark, true
		case e.Unit != nil && e.Unit.Track == media.Video:
			if e.Unit.PTS < mark.Start || first && mark.Independent() && (e.Unit.PTS != mark.Start || !e.Unit.RandomAccess) {
				t.Fatalf("entry %d: a picture at %d follows the mark at %d", i, e.Unit.PTS, mark.Start)
			}
			newest, first = max(newest, e.Unit.PTS), false
		}
	}
}

// A publisher that comes back goes on where the one before it ended, as does
// one whose pictures, sound or timestamps change.
func TestCutDiscontinuities(t *testing.T) {
	even := source{rate: 30, gops: []int{60}, seconds: 5, sound: stereo}
	bFrames := even
	bFrames.bFrames = 3
	later := even
	later.from = 5
	sound := source{seconds: 5, sound: stereo}
	for _, c := range []struct {
		name  string
		film  func(*studio)
		marks string
		gap   time.Duration // between segment 2's wall-clock end and segment 3's start
	}{
		{"reconnect", func(s *studio) {
			s.connect(hd, stereo)
			s.play(even)
			s.seq.Pause()
			s.now = s.now.Add(20 * time.Second)
			s.connect(hd, stereo)
			s.play(even)
		}, "0@0 1@2 2@4 P3@5 3@5+1 4@7 5@9 E6@10", 20 * time.Second},
		{"reconnect by a clock that goes back", func(s *studio) {
			s.connect(hd, stereo)
			s.play(even)
			s.seq.Pause()
			s.now = s.now.Add(-time.Hour)
			s.connect(hd, stereo)
			s.play(even)
		}, "0@0 1@2 2@4 P3@5 3@5+1 4@7 5@9 E6@10", 0},
		{"reconnect after 30 hours of timestamps, with B-frames", func(s *studio) {
			s.connect(hd, stereo)
			s.play(even)
			s.seq.Pause()
			s.connect(sd, stereo)
			src := bFrames
			src.from = 30 * 3600
			s.play(src)
		}, "0@0 1@2 2@4 P3@5 3@5.03+1 4@7.03 5@9.03 E6@10.03", 0},
		{"reconnect without sound", func(s *studio) {
			s.connect(hd, stereo)
			s.play(even)
			s.seq.Pause()
			s.connect(hd, nil)
			src := even
			src.sound = nil
			s.play(src)
		}, "0@0 1@2 2@4 P3@5 3@5+1 4@7 5@9 E6@10", 0},
		{"reconnect without pictures, then with them", func(s *studio) {
			s.connect(hd, stereo)
			s.play(even)
			s.seq.Pause()
			s.connect(nil, stereo)
			s.play(sound)
			s.seq.Pause()
			s.connect(hd, stereo)
			s.play(even)
		}, "0@0 1@2 2@4 P3@5 P3@5 3@5+1 4@7 5@9 E6@10", 5 * time.Second},
		{"reconnect of sound with pictures", func(s *studio) {
			s.connect(nil, stereo)
			s.play(sound)
			s.seq.Pause()
			s.connect(hd, stereo)
			s.play(sound)
		}, "0@0 1@1.96 2@3.93 P3@5.01 3@5.01+1 4@6.98 5@8.94 E6@10.03", 0},
		{"the picture's size changes", func(s *studio) {
			s.connect(hd, stereo)
			s.play(even)
			s.configure(sd, nil)
			s.play(later)
		}, "0@0 1@2 2@4 3@5+1 4@7 5@9 E6@10", 0},
		{"B-frames are turned off", func(s *studio) {
			s.connect(hd, stereo)
			s.play(bFrames)
			s.configure(sd, nil)
			s.play(later)
		}, "0@0 1@2 2@4 3@5+1 4@7 5@9 E6@10", 0},
		{"the sound's rate changes", func(s *studio) {
			s.connect(hd, stereo)
			s.play(even)
			s.configure(nil, mono)
			src := later
			src.sound = mono
			s.play(src)
		}, "0@0 1@2 2@4 3@5+1 4@7 5@9 E6@10", 0},
		{"the sound's frames get longer", func(s *studio) {
			s.connect(hd, opus)
			src := even
			src.sound = opus
			s.play(src)
			s.configure(nil, opus.WithFrame(2880))
			src = later
			src.sound = opus.WithFrame(2880)
			s.play(src)
		}, "0@0 1@2 2@4 3@5+1 4@7 5@9 E6@10", 0},
		{"the sound becomes Opus", func(s *studio) {
			s.connect(hd, stereo)
			s.play(even)
			s.configure(nil, opus)
			src := later
			src.sound = opus
			s.play(src)
		}, "0@0 1@2 2@4 3@5+1 4@7 5@9 E6@10", 0},
		{"the timestamps jump ahead", func(s *studio) {
			s.connect(hd, stereo)
			s.play(even)
			src := even
			src.from = 3600
			s.play(src)
		}, "0@0 1@2 2@4 3@5+1 4@7 5@9 E6@10", 0},
		{"the timestamps of sound jump back", func(s *studio) {
			s.connect(nil, stereo)
			src := sound
			src.from = 3600
			s.play(src)
			s.play(sound)
		}, "0@0 1@1.96 2@3.93 3@5.01+1 4@6.98 5@8.94 E6@10.03", 0},
		{"a break in a long GOP waits for its end", func(s *studio) {
			s.connect(hd, stereo)
			s.play(source{rate: 30, gops: []int{30, 120}, seconds: 2, sound: stereo})
			s.play(source{from: 3600, rate: 30, gops: []int{200}, seconds: 4, sound: stereo, jitter: func(int) float64 { return 0 }})
		}, "0@0 1@2+1 2@5.53<1 E3@6", 0},
		{"pictures are announced in a broadcast without", func(s *studio) {
			s.connect(nil, stereo)
			s.play(sound)
			s.configure(hd, nil)
			src := sound
			src.from = 5.013
			s.play(src)
		}, "0@0 1@1.96 2@3.93 3@5.89 4@7.85 5@9.81 E6@10.03", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStudio()
			c.film(s)
			s.seq.Finish()
			if got := s.marks(); got != c.marks {
				t.Errorf("marks are\n%s, want\n%s", got, c.marks)
			}
			checkLog(t, s.entries)
			checkPictures(t, s.entries)
			if gap := wallGap(s.entries); gap < c.gap-50*time.Millisecond || gap > c.gap+50*time.Millisecond {
				t.Errorf("the wall clock's gap is %v, want %v", gap, c.gap)
			}
		})
	}
}

// wallGap is how far wall-clock time moved more than media time at discontinuities.
func wallGap(entries []Entry) (gap time.Duration) {
	var last *relay.Mark
	for _, e := range entries {
		if e.Mark == nil {
			continue
		}
		if last != nil && e.Mark.Discontinuity != last.Discontinuity {
			gap += e.Mark.Time.Sub(last.Time) - (e.Mark.Start - last.Start).Duration()
		}
		last = e.Mark
	}
	return gap
}

// Whatever is filmed, its log is in order.
func TestCutProperties(t *testing.T) {
	rates := []float64{10, 15, 24, 25, 30000. / 1001, 30, 50, 60}
	rapid.Check(t, func(t *rapid.T) {
		s := newStudio()
		video, audio := hd, stereo
		s.connect(video, audio)
		// An encoder's composition times change only with its configuration.
		var rate float64
		var bFrames int
		tune := func() {
			rate = rapid.SampledFrom(rates).Draw(t, "rate")
			bFrames = rapid.IntRange(0, 3).Draw(t, "bFrames")
		}
		tune()
		from := rapid.Float64Range(0, 2*4294967).Draw(t, "from")
		for range rapid.IntRange(1, 4).Draw(t, "scenes") {
			src := source{
				from:    from,
				seconds: rapid.Float64Range(1.5, 15).Draw(t, "seconds"),
				rate:    rate,
				gops:    rapid.SliceOfN(rapid.IntRange(1, 400), 1, 6).Draw(t, "gops"),
				bFrames: bFrames,
				sound:   audio,
			}
			if mute := rapid.Float64Range(0, 15).Draw(t, "mute"); mute > 5 {
				src.mute = [2]float64{from + mute - 5, from + mute}
			}
			if rapid.Bool().Draw(t, "jitter") {
				off := rapid.SliceOfN(rapid.Float64Range(-0.004, 0.004), 7, 7).Draw(t, "off")
				src.jitter = func(i int) float64 { return off[i%7] }
			}
			s.play(src)
			from += src.seconds
			switch rapid.IntRange(0, 4).Draw(t, "break") {
			case 0: // none
			case 1:
				video = map[*media.Codec]*media.Codec{hd: sd, sd: hd}[video]
				s.configure(video, nil)
				tune()
			case 2:
				audio = map[*media.Codec]*media.Codec{stereo: mono, mono: stereo}[audio]
				s.configure(nil, audio)
			case 3:
				from += rapid.Float64Range(-3600, 3600).Draw(t, "jump")
				from = max(0, from)
			case 4:
				s.seq.Pause()
				s.now = s.now.Add(time.Duration(rapid.IntRange(-10, 60).Draw(t, "away")) * time.Second)
				s.connect(video, audio)
				tune()
			}
		}
		s.seq.Finish()
		checkLog(t, s.entries)
	})
}

// Pictures that freeze while the sound goes on end no segment too late: the
// first ones that come again are shown earlier.
func TestCutFrozenPictures(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	s.play(source{rate: 30, gops: []int{60}, seconds: 5, sound: stereo})
	s.play(source{from: 5, seconds: 20, sound: stereo})
	s.play(source{from: 25, rate: 30, gops: []int{60}, seconds: 5, sound: stereo})
	s.seq.Finish()
	want := "0@0 1@2 2@4 3@8 4@12<3 5@16<3 6@20<3 7@24<3 8@27 9@29 E10@30"
	if got := s.marks(); got != want {
		t.Errorf("marks are\n%s, want\n%s", got, want)
	}
	checkLog(t, s.entries)
}

// What is held back while pictures are waited for is bounded.
func TestCutHoldsNewestSound(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	for i := range uint32(10_000) { // timestamps that hardly rise
		s.seq.Push(media.Unit{Track: media.Audio, DTS: media.Ticks(i/1000) * ms, Payload: make([]byte, 10)}, s.now)
	}
	if len(s.seq.held) > maxGather/2+1 || s.seq.heldBytes != 10*len(s.seq.held) {
		t.Errorf("%d units and %d bytes are held", len(s.seq.held), s.seq.heldBytes)
	}
	// The frame rate is measured all the same when pictures come.
	s.play(source{from: 100, rate: 60, gops: []int{120}, seconds: 3, sound: stereo})
	if rate := s.seq.settings.FrameRate; rate != 60 {
		t.Errorf("frame rate is %v, want 60", rate)
	}
}

// Without anything new the wait for tracks ends by the clock.
func TestCutTick(t *testing.T) {
	s := newStudio()
	s.connect(nil, stereo)
	s.seq.Push(media.Unit{Track: media.Audio, Payload: []byte{1}}, s.now)
	s.seq.Tick(s.now.Add(tracksWait - 1))
	if len(s.entries) != 0 {
		t.Fatal("it is settled before the time")
	}
	s.seq.Tick(s.now.Add(tracksWait))
	if s.marks() != "0@0" {
		t.Errorf("marks are %s", s.marks())
	}
}

// What silence there is, is the codec's own.
func TestCutSilence(t *testing.T) {
	for _, c := range []*media.Codec{stereo, mono, opus, opus.WithFrame(2880)} {
		s := newStudio()
		s.connect(hd, c)
		s.play(source{rate: 30, gops: []int{60}, seconds: 5, sound: c, mute: [2]float64{2, 4}})
		s.seq.Finish()
		silent := 0
		for _, e := range s.entries {
			if e.Unit != nil && e.Unit.Track == media.Audio && bytes.Equal(e.Unit.Payload, c.Silence()) {
				silent++
			}
		}
		want := int(media.SamplesOf(2*media.VideoTimescale, c.Rate) / c.FrameSamples)
		if silent < want-1 || silent > want+1 {
			t.Errorf("%s by %d: %d frames of silence, want %d", c.Format, c.FrameSamples, silent, want)
		}
	}
}

func TestPartDuration(t *testing.T) {
	for _, c := range []struct {
		rate float64
		step int
		want string // of seconds
	}{
		{30, 1, "0.343"}, {60, 2, "0.340"}, {29.97, 1, "0.344"}, {25, 1, "0.330"}, {24, 1, "0.343"}, {1, 1, "1.010"},
	} {
		if got := fmt.Sprintf("%.3f", partDuration(c.rate, c.step).Seconds()); got != c.want {
			t.Errorf("%v fps: %s s, want %s", c.rate, got, c.want)
		}
	}
}

// Decode times are uneven at first where an encoder with B-frames has none yet;
// the times at which pictures are shown tell the rate.
func TestMeasureRateByWhenPicturesAreShown(t *testing.T) {
	shown := []int64{0, 100, 33, 67, 200, 133, 167, 300, 233, 267, 400, 333} // milliseconds, in decode order
	decoded := []int64{0, 1, 2, 3, 67, 100, 133, 167, 200, 233, 267, 300}
	var held []heldUnit
	for i := range shown {
		held = append(held, heldUnit{unit: media.Unit{
			Track: media.Video, DTS: media.Ticks(decoded[i]) * media.TicksPerMillisecond, PTS: media.Ticks(shown[i]) * media.TicksPerMillisecond,
		}})
	}
	if rate := measureRate(held, 0); rate != 30 {
		t.Errorf("measured %v, want 30", rate)
	}
	if rate := measureRate(held, 30000.0/1001); rate != 30000.0/1001 {
		t.Errorf("measured %v, want what the publisher claims", rate)
	}
}
