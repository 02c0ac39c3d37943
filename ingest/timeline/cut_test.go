package timeline

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/internal/media"
)

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
		{"announced sound from 3 s on", source{rate: 30, gops: frames(60), seconds: 6, sound: stereo, mute: [2]float64{0, 3}}, "0@0 1@2 2@4 E3@6", 4},
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
			if st.TargetDuration != c.target || st.Video != (video != nil) || !st.Audio {
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
			if blind := rapid.Float64Range(1, 30).Draw(t, "blind"); blind < 10 {
				src.blind = [2]float64{from + blind, from + blind + rapid.Float64Range(0.1, 12).Draw(t, "for")}
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
		rate  float64
		step  int
		sound int    // of the sound, 1,024 samples a frame
		want  string // of seconds
	}{
		{30, 1, 48000, "0.343"}, {60, 2, 48000, "0.340"}, {29.97, 1, 48000, "0.344"}, {25, 1, 48000, "0.330"}, {24, 1, 48000, "0.343"}, {1, 1, 48000, "1.010"},
		{30, 1, 44100, "0.343"}, {30, 1, 22050, "0.343"}, {30, 1, 16000, "0.443"}, {25, 1, 8000, "0.810"}, {30, 1, 0, "0.343"},
	} {
		var sound media.Ticks
		if c.sound > 0 {
			sound = media.Samples(1024).Ticks(c.sound) + media.TicksPerMillisecond
		}
		part := partDuration(c.rate, c.step, sound)
		if got := fmt.Sprintf("%.3f", part.Seconds()); got != c.want {
			t.Errorf("%v fps, sound of %d Hz: %s s, want %s", c.rate, c.sound, got, c.want)
		}
	}
}
