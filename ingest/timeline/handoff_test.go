package timeline

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// handOn makes the studio's broadcast go on with another Sequencer, as another
// ingest's: what is carried goes through JSON as it does between them.
func (s *studio) handOn(t fataler, c relay.Handoff, epoch uint64) {
	t.Helper()
	doc, err := json.Marshal(c)
	if err != nil {
		t.Fatalf("%v", err)
	}
	var carried relay.Handoff
	if err := json.Unmarshal(doc, &carried); err != nil {
		t.Fatalf("%v", err)
	}
	s.seq = NewSequencer(epoch, func(e relay.Entry) { s.entries = append(s.entries, e) })
	s.seq.Resume(carried)
}

// A publisher that comes back to another ingest without its sound has silence there.
func TestHandoffWithoutSound(t *testing.T) {
	s := newStudio()
	s.connect(hd, mono)
	s.play(source{rate: 30, gops: []int{60}, seconds: 5, sound: mono})
	s.seq.Pause()
	n := len(s.entries)
	s.handOn(t, s.seq.Handoff(), 8)
	s.connect(hd, nil)
	s.play(source{rate: 30, gops: []int{60}, seconds: 6})
	frames, configured, marks := 0, false, 0
	for _, e := range s.entries[n:] {
		switch {
		case e.Codec != nil && e.Codec.Kind() == media.Audio:
			configured = true
		case e.Mark != nil && e.Mark.Kind == relay.Open:
			if marks++; !configured {
				t.Error("a segment begins before the sound's configuration")
			}
		case e.Unit != nil && e.Unit.Track == media.Audio:
			frames++
		}
	}
	if want := 5 * 48000 / 1024; marks < 3 || frames < want {
		t.Errorf("%d segments with %d frames of silence, want %d at least", marks, frames, want)
	}
}

// A publisher that comes back to another ingest, with whatever settings, has
// the same broadcast: numbers go on, there is one discontinuity, the wall clock
// rises, and what players were told stays.
func TestHandoff(t *testing.T) {
	usual := source{rate: 30, gops: []int{60}, seconds: 5, sound: stereo}
	for _, c := range []struct {
		name  string
		video *media.Codec
		sound *media.Codec
		again source
		away  time.Duration
		marks string
		cut   bool // in the middle of a segment, without a pause
	}{
		{name: "the same", video: hd, sound: stereo, again: usual, away: 10 * time.Second, marks: "0@0 1@2 2@4 P3@5 P3@5.01 3@5.01+1 4@7.01 5@9.01 E6@10.01"},
		{name: "a clock that goes back", video: hd, sound: stereo, again: usual, away: -time.Hour, marks: "0@0 1@2 2@4 P3@5 P3@5.01 3@5.01+1 4@7.01 5@9.01 E6@10.01"},
		{name: "cut", video: hd, sound: stereo, again: usual, marks: "0@0 1@2 2@4 P3@5.01 3@5.01+1 4@7.01 5@9.01 E6@10.01", cut: true},
		{name: "another resolution", video: sd, sound: stereo, again: usual, marks: "0@0 1@2 2@4 P3@5 P3@5.01 3@5.01+1 4@7.01 5@9.01 E6@10.01"},
		{name: "60 fps", video: hd, sound: stereo, again: source{rate: 60, gops: []int{120}, seconds: 5, sound: stereo}, marks: "0@0 1@2 2@4 P3@5 P3@5.01 3@5.01+1 4@7.01 5@9.01 E6@10.03"},
		{name: "B-frames", video: sd, sound: stereo, again: source{rate: 25, gops: []int{50}, bFrames: 2, seconds: 5, sound: stereo}, marks: "0@0 1@2 2@4 P3@5 P3@5.01 3@5.05+1 4@7.05 5@9.05 E6@10.05"},
		{name: "another sample rate", video: hd, sound: mono, again: source{rate: 30, gops: []int{60}, seconds: 5, sound: mono}, marks: "0@0 1@2 2@4 P3@5 P3@5.01 3@5.01+1 4@7.01 5@9.01 E6@10.01"},
		{name: "8 s GOPs", video: hd, sound: stereo, again: source{rate: 30, gops: []int{240}, seconds: 9, sound: stereo}, marks: "0@0 1@2 2@4 P3@5 P3@5.01 3@5.01+1 4@8.55<3 5@12.08<3 E6@14.01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStudio()
			s.connect(hd, stereo)
			s.play(usual)
			if !c.cut {
				s.seq.Pause()
			}
			before := s.seq.settings
			s.handOn(t, s.seq.Handoff(), 8)
			s.now = s.now.Add(c.away)
			s.connect(c.video, c.sound)
			s.seq.claimed = c.again.rate
			s.play(c.again)
			s.seq.Finish()
			if got := s.marks(); got != c.marks {
				t.Errorf("marks are\n%s, want\n%s", got, c.marks)
			}
			if s.seq.settings != before {
				t.Errorf("settings are %+v, were %+v", s.seq.settings, before)
			}
			checkCarried(t, s.entries, 1)
		})
	}
}

// checkCarried checks a log whose ingest changed: it is in order, and has as
// many discontinuities as the publisher was away.
func checkCarried(t fataler, entries []relay.Entry, breaks uint64) {
	t.Helper()
	var settings *relay.Settings
	var rest []relay.Entry
	var last relay.Mark
	open := false
	for i, e := range entries {
		if e.Mark != nil {
			if e.Mark.Epoch != last.Epoch {
				if last.Epoch != 0 && (e.Mark.Kind != relay.Pause || e.Mark.Time.Before(last.Time) || e.Mark.Start < last.Start) {
					t.Fatalf("entry %d: another ingest begins with %+v after %+v", i, e.Mark, last)
				}
				// What is cut without a pause ends where the other one begins.
				if open && e.Mark.Sequence != last.Sequence+1 || !open && e.Mark.Sequence != last.Sequence {
					t.Fatalf("entry %d: %+v follows %+v", i, e.Mark, last)
				}
			}
			last, open = *e.Mark, e.Mark.Kind == relay.Open
		}
		if e.Settings != nil {
			if settings != nil {
				if *e.Settings == *settings {
					continue // told again by the next ingest
				}
				was := *settings
				was.TargetDuration = e.Settings.TargetDuration
				if settings.TargetDuration != 0 || *e.Settings != was {
					t.Fatalf("entry %d: settings changed from %+v to %+v", i, *settings, *e.Settings)
				}
			}
			settings = e.Settings
		}
		rest = append(rest, e)
	}
	checkLog(t, rest)
	if last.Discontinuity != breaks {
		t.Fatalf("%d discontinuities, want %d", last.Discontinuity, breaks)
	}
}

// The same wherever the ingest is cut off.
func TestHandoffProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStudio()
		video, audio := hd, stereo
		breaks := uint64(0)
		for i := range rapid.IntRange(2, 4).Draw(t, "ingests") {
			if i > 0 {
				if rapid.Bool().Draw(t, "pause") {
					s.seq.Pause()
				}
				s.handOn(t, s.seq.Handoff(), uint64(7+i))
				s.now = s.now.Add(time.Duration(rapid.IntRange(-10, 60).Draw(t, "away")) * time.Second)
				video = rapid.SampledFrom([]*media.Codec{hd, sd}).Draw(t, "video")
				audio = rapid.SampledFrom([]*media.Codec{stereo, mono}).Draw(t, "audio")
				breaks++
			}
			s.connect(video, audio)
			s.play(source{
				from:    rapid.Float64Range(0, 1e6).Draw(t, "from"),
				seconds: rapid.Float64Range(1.5, 12).Draw(t, "seconds"),
				rate:    rapid.SampledFrom([]float64{10, 24, 25, 30000. / 1001, 30, 50, 60}).Draw(t, "rate"),
				gops:    rapid.SliceOfN(rapid.IntRange(1, 400), 1, 6).Draw(t, "gops"),
				bFrames: rapid.IntRange(0, 3).Draw(t, "bFrames"),
				sound:   audio,
			})
		}
		s.seq.Finish()
		checkCarried(t, s.entries, breaks)
	})
}

// A broadcast of which nothing was published is carried as well.
func TestHandoffNothing(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	s.handOn(t, s.seq.Handoff(), 8)
	if len(s.entries) != 0 {
		t.Errorf("the log begins with %+v", s.entries[0])
	}
	s.connect(hd, stereo)
	s.play(source{rate: 30, gops: []int{60}, seconds: 5, sound: stereo})
	s.seq.Finish()
	if got := s.marks(); got != "0@0 1@2 2@4 E3@5" {
		t.Errorf("marks are %s", got)
	}
	checkCarried(t, s.entries, 0)
}

// Who reads the log of the ingest that goes on gets what is settled, and begins
// at the segment that comes next.
func TestHandoffLog(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	s.play(source{rate: 30, gops: []int{60}, seconds: 5, sound: stereo})
	s.seq.Pause()
	handoff := s.seq.Handoff()
	settings := s.seq.settings
	s.entries = nil
	s.handOn(t, handoff, 8)
	r := readLog(t, record(t, s, 0), 3, false)
	if r.settings != settings || len(r.marks) != 1 || r.marks[0].Kind != relay.Pause || r.marks[0].Sequence != 3 || r.marks[0].Epoch != 8 {
		t.Errorf("before a publisher comes it is %+v", r)
	}
	s.connect(hd, stereo)
	s.play(source{rate: 30, gops: []int{60}, seconds: 60, sound: stereo})
	r = readLog(t, record(t, s, 0), 25, false)
	if r.settings != settings || len(r.preamble) != 3 {
		t.Errorf("later it is %+v", r)
	}
	if _, _, oldest, ok := record(t, s, 0).From(2, false); ok || oldest < 3 {
		t.Errorf("a segment before has %d, %v", oldest, ok)
	}
}
