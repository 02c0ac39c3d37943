package timeline

import (
	"fmt"
	"math"
	"strings"
	"time"

	"millrace/internal/media"
	"millrace/internal/relay"
)

var (
	hd = codec(media.H264, []byte{
		0x01, 0x64, 0x00, 0x0d, 0xff, 0xe1, 0x00, 0x18, 0x67, 0x64, 0x00, 0x0d, 0xac, 0xb4, 0x0a,
		0x0c, 0xfc, 0xf8, 0x08, 0x80, 0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x1e, 0x07, 0x8a,
		0x15, 0x50, 0x01, 0x00, 0x04, 0x68, 0xef, 0x0f, 0xcb, 0xfd, 0xf8, 0xf8, 0x00,
	})
	sd     = codec(media.H264, smallRecord)
	stereo = media.StereoAAC()
	mono   = codec(media.AAC, []byte{0x12, 0x08})
	opus   = codec(media.Opus, append([]byte("OpusHead"), 1, 2, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0))
)

// codec is that of a record, which is a constant.
func codec(f media.Format, record []byte) *media.Codec {
	c, err := media.ParseCodec(f, record)
	if err != nil {
		panic(err)
	}
	return c
}

// source is what an encoder sends.
type source struct {
	from    float64 // seconds; the publisher's clock at the start
	seconds float64
	rate    float64           // frames a second; 0: no pictures
	gops    []int             // their lengths in frames; the last one repeats
	bFrames int               // in a row
	sound   *media.Codec      // nil: none
	mute    [2]float64        // no sound between these times
	blind   [2]float64        // no pictures between these times
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
			if s.blind[0] == s.blind[1] || p.at < s.blind[0] || p.at >= s.blind[1] {
				all = append(all, p)
			}
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
	entries []relay.Entry
	now     time.Time
	jumps   int
}

func newStudio() *studio {
	s := &studio{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s.seq = NewSequencer(7, func(e relay.Entry) { s.entries = append(s.entries, e) })
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
	s.playWhile(src, func(packet) bool { return true })
}

// playWhile plays those packets of a source that are wanted.
func (s *studio) playWhile(src source, wanted func(packet) bool) {
	began := s.now
	for _, p := range src.packets() {
		if !wanted(p) {
			continue
		}
		s.now = began.Add(time.Duration((p.at - src.from) * float64(time.Second)))
		s.push(p)
	}
	s.now = began.Add(time.Duration(src.seconds * float64(time.Second)))
}

func (s *studio) push(p packet) {
	u := media.Unit{Track: media.Video, DTS: media.Ticks(math.Round(p.at*1000)) * ms, RandomAccess: p.idr, Payload: []byte{2}}
	if p.sound {
		u.Track, u.Payload = media.Audio, []byte{1}
	}
	u.PTS = u.DTS + p.composition
	if _, jumped := s.seq.Push(u, s.now); jumped {
		s.jumps++
	}
}

// marks gives the marks in short: sequence@seconds since the first, P or E
// before those of a pause or the end, H before those of held pictures, +1 for a discontinuity, <n for decode_from.
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
		if m.Held {
			word = "H"
		}
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

// fataler is what checks need of a test or a property.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkLog checks what everybody who reads a log relies on.
func checkLog(t fataler, entries []relay.Entry) {
	t.Helper()
	var (
		mark     *relay.Mark // the newest
		open     bool        // its segment is
		begun    bool        // a segment was opened
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
			fresh := !begun || m.Discontinuity != mark.Discontinuity
			begun = begun || m.Kind == relay.Open
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
		case e.Unit.Preroll:
			// decoded again, in the past
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
	if begun && settings < 1 || settings > 2 {
		t.Fatalf("%d settings", settings)
	}
}

// checkNextMark checks what may follow a mark. A segment's duration counts when it is
// rounded to seconds (RFC 8216bis, 4.4.3.1).
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
	case open && target > 0 && m.Start-last.Start >= target+media.VideoTimescale/2:
		t.Fatalf("entry %d: segment %d is %.3f s long", i, last.Sequence, (m.Start - last.Start).Seconds())
	case m.Discontinuity != last.Discontinuity && (m.Discontinuity != last.Discontinuity+1 || !m.Independent()):
		t.Fatalf("entry %d: discontinuity of %+v follows %+v", i, m, last)
	case m.DecodeFrom > m.Sequence || m.DecodeFrom < last.DecodeFrom:
		t.Fatalf("entry %d: decode_from of %+v follows %+v", i, m, last)
	case m.Epoch < last.Epoch:
		t.Fatalf("entry %d: epoch of %+v follows %+v", i, m, last)
	}
}

// checkPictures checks that each picture is shown within its segment, as it is
// when frames come evenly.
func checkPictures(t fataler, entries []relay.Entry) {
	t.Helper()
	var mark relay.Mark
	var newest media.Ticks
	first := false
	var held media.Ticks // the longest part
	for i, e := range entries {
		switch {
		case e.Settings != nil:
			held = e.Settings.PartDuration
		case e.Mark != nil:
			if mark.Held && e.Mark.Start-newest > held+ms {
				t.Fatalf("entry %d: the last held picture, at %d, lasts until %d", i, newest, e.Mark.Start)
			}
			if newest >= e.Mark.Start {
				t.Fatalf("entry %d: a picture at %d comes before the mark at %d", i, newest, e.Mark.Start)
			}
			mark, first = *e.Mark, true
		case e.Unit != nil && e.Unit.Preroll:
		case mark.Held && e.Unit != nil && e.Unit.Track == media.Video:
			if !e.Unit.Repeats() || e.Unit.PTS < mark.Start || first && e.Unit.PTS != mark.Start {
				t.Fatalf("entry %d: a picture at %d follows the mark at %d of held ones", i, e.Unit.PTS, mark.Start)
			}
			if !first && e.Unit.PTS-newest > held+ms {
				t.Fatalf("entry %d: a held picture at %d follows one at %d", i, e.Unit.PTS, newest)
			}
			newest, first = e.Unit.PTS, false
		case e.Unit != nil && e.Unit.Track == media.Video:
			if e.Unit.PTS < mark.Start || first && mark.Independent() && (e.Unit.PTS != mark.Start || !e.Unit.RandomAccess && !mark.Recode) {
				t.Fatalf("entry %d: a picture at %d follows the mark at %d", i, e.Unit.PTS, mark.Start)
			}
			newest, first = max(newest, e.Unit.PTS), false
		}
	}
}

// wallGap is how far wall-clock time moved more than media time at discontinuities.
func wallGap(entries []relay.Entry) (gap time.Duration) {
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
