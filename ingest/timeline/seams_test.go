package timeline

import (
	"testing"

	"millrace/internal/media"
)

// picture pushes the n-th picture at 30 frames a second.
func (s *studio) picture(n int, idr bool) {
	at := media.Ticks(n) * 3000
	s.seq.Push(media.Unit{Track: media.Video, DTS: at, PTS: at, RandomAccess: idr, Payload: []byte{2}}, s.now)
}

// Pictures that come behind the sound, always or only after a hole, are shown in the end.
func TestHoldEndsThoughPicturesAreLate(t *testing.T) {
	const hole, back, end = 5., 8., 40.
	for _, lags := range [][2]float64{{0.7, 0.7}, {0.9, 0.9}, {0, 0.8}, {0, 1.2}, {2, 2}} {
		s := newStudio()
		s.connect(hd, stereo)
		n := 0
		for step := range int(end * 30) {
			at := float64(step) / 30
			s.play(source{from: at, seconds: 1. / 30, sound: stereo})
			for {
				p, lag := float64(n)/30, lags[0]
				if p >= back {
					lag = lags[1]
				}
				if p+lag > at {
					break
				}
				if p < hole || p >= back {
					s.picture(n, n%60 == 0)
				}
				n++
			}
		}
		shown := 0
		for _, e := range s.entries {
			if u := e.Unit; u != nil && u.Track == media.Video && !u.Preroll && !u.Repeats() && (u.PTS-timelineStart).Seconds() > back {
				shown++
			}
		}
		if least := 20 * 30; shown < least {
			t.Errorf("%v s behind the sound: %d pictures are shown after the hole, want at least %d", lags, shown, least)
		}
	}
}

// Sound in another codec that comes while no picture does isn't lost, and neither is
// the first sound.
func TestSoundChangesAndPicturesStop(t *testing.T) {
	for _, before := range []*media.Codec{stereo, nil} {
		s := newStudio()
		s.connect(hd, before)
		s.play(source{rate: 30, gops: []int{60}, seconds: 3, sound: before})
		s.configure(nil, mono)
		s.play(source{from: 3, seconds: 6, sound: mono})
		s.play(source{from: 9, rate: 30, gops: []int{60}, seconds: 3, sound: mono})
		s.seq.Finish()
		if got, want := s.marks(), "0@0 1@2 H2@3+1 H3@5.06<2 H4@7.12<2 5@9 6@11 E7@12"; got != want {
			t.Errorf("marks are\n%s, want\n%s", got, want)
		}
		checkLog(t, s.entries)
		checkPictures(t, s.entries)
	}
}

// What is held is coded as it was, also when another codec is announced meanwhile.
func TestCodecAnnouncedWhileHeld(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	s.play(source{rate: 30, gops: []int{60}, seconds: 3, sound: stereo})
	s.configure(sd, nil)
	s.play(source{from: 3, seconds: 2, sound: stereo})
	s.play(source{from: 5, rate: 30, gops: []int{60}, seconds: 3, sound: stereo})
	s.seq.Finish()
	if got, want := s.marks(), "0@0 1@2 H2@3 3@5+1 4@7 E5@8"; got != want {
		t.Errorf("marks are\n%s, want\n%s", got, want)
	}
	var codec *media.Codec
	for i, e := range s.entries {
		if e.Codec != nil && e.Codec.Kind() == media.Video {
			codec = e.Codec
		}
		if e.Unit != nil && e.Unit.Preroll && !codec.Equal(hd) {
			t.Fatalf("entry %d: a held picture stands behind the codec of those that follow", i)
		}
	}
	checkLog(t, s.entries)
}

// An open GOP after a hole or a jump loses its leading pictures there, not for good.
func TestOpenGOPAfterABreak(t *testing.T) {
	for _, c := range []struct {
		name           string
		from, to, jump int // pictures that don't come, and the one at which times jump
	}{{"a hole", 200, 311, 0}, {"a hole to a keyframe", 200, 300, 0}, {"a jump", 0, 0, 180}} {
		s := newStudio()
		s.connect(hd, stereo)
		pictures := goplike{seconds: 24, gop: 60, leading: 3, bFrames: 3, start: media.Access{Intra: true, Recovery: true}, first: media.Access{IDR: true}}.units()
		off := 0
		for i, u := range pictures {
			if c.jump > 0 && i == c.jump {
				off = 100
			}
			u.DTS, u.PTS = u.DTS+media.Ticks(off)*media.VideoTimescale, u.PTS+media.Ticks(off)*media.VideoTimescale
			if i < c.from || i >= c.to {
				s.seq.Push(u, s.now)
			}
			s.play(source{from: float64(i)/30 + float64(off), seconds: 1. / 30, sound: stereo})
		}
		s.seq.Finish()
		var mark media.Ticks
		for i, e := range s.entries {
			if e.Mark != nil {
				mark = e.Mark.Start
			}
			if u := e.Unit; u != nil && u.Track == media.Video && !u.Preroll && u.PTS < mark {
				t.Fatalf("%s, entry %d: a picture at %d stands behind the mark at %d", c.name, i, u.PTS, mark)
			}
		}
	}
}
