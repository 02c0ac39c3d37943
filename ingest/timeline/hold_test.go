package timeline

import (
	"testing"

	"millrace/internal/media"
)

// Where pictures stop and sound goes on, marks come by the sound's clock, and the
// first picture that is back ends the hold.
func TestHold(t *testing.T) {
	for _, c := range []struct {
		name   string
		source source
		marks  string
	}{
		{"a short hole", source{rate: 30, gops: []int{60}, seconds: 6, sound: stereo, blind: [2]float64{2.5, 3}}, "0@0 1@2 2@4 E3@6"},
		{"a hole", source{rate: 30, gops: []int{60}, seconds: 10, sound: stereo, blind: [2]float64{2.5, 7}}, "0@0 1@2 H2@2.5 H3@4.56<2 4@7<2 5@8 E6@10"},
		{"back with a keyframe", source{rate: 30, gops: []int{60}, seconds: 10, sound: stereo, blind: [2]float64{2.5, 6}}, "0@0 1@2 H2@2.5 H3@4.56<2 4@6 5@8 E6@10"},
		{"B-frames", source{rate: 30, gops: []int{60}, bFrames: 2, seconds: 10, sound: stereo, blind: [2]float64{2.5, 7}}, "0@0 1@2 H2@2.5 H3@4.56<2 4@7.03<2 5@8 E6@10"},
		{"60 fps", source{rate: 60, gops: []int{120}, seconds: 10, sound: stereo, blind: [2]float64{2.5, 7}}, "0@0 1@2 H2@2.5 H3@4.53<2 H4@6.57<2 5@7<2 6@8 E7@10"},
		{"Opus", source{rate: 30, gops: []int{60}, seconds: 10, sound: opus, blind: [2]float64{2.5, 7}}, "0@0 1@2 H2@2.5 H3@4.56<2 4@7<2 5@8 E6@10"},
		{"half a minute", source{rate: 30, gops: []int{60}, seconds: 36, sound: stereo, blind: [2]float64{3, 34}}, "0@0 1@2 H2@3 H3@5.06<2 H4@7.12<2 H5@9.17<2 H6@11.23<2 H7@13.29<2 H8@15.35<2 H9@17.41<2 H10@19.46<2 H11@21.52<2 H12@23.58<2 H13@25.64<2 H14@27.7 H15@29.75<14 H16@31.81<14 17@34 E18@36"},
		{"to the end", source{rate: 30, gops: []int{60}, seconds: 6, sound: stereo, blind: [2]float64{2.5, 6}}, "0@0 1@2 H2@2.5 H3@4.56<2 E4@5.96"},
		{"before the second keyframe", source{rate: 30, gops: []int{60}, seconds: 8, sound: stereo, blind: [2]float64{1, 5}}, "0@0 H1@1 H2@3.06<1 3@5<1 4@6 E5@8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStudio()
			s.connect(hd, c.source.sound)
			s.play(c.source)
			s.seq.Finish()
			if got := s.marks(); got != c.marks {
				t.Errorf("marks are\n%s, want\n%s", got, c.marks)
			}
			if s.jumps != 0 {
				t.Errorf("%d jumps were seen", s.jumps)
			}
			checkLog(t, s.entries)
			checkPictures(t, s.entries)
		})
	}
}

// An encoder with B-frames gives the first pictures after a hole the decode times of
// those before it. One that publishes a file sends them early, a live one late.
func TestPictureAfterHole(t *testing.T) {
	for _, early := range []bool{true, false} {
		s := newStudio()
		s.connect(hd, stereo)
		s.play(source{rate: 30, gops: []int{60}, seconds: 4, sound: stereo})
		after := func() {
			for i, later := range []media.Ticks{5 * media.VideoTimescale, 0, 5 * media.VideoTimescale} { // the second one belongs before it
				dts := 4*media.VideoTimescale + media.Ticks(i)*3000
				u := media.Unit{Track: media.Video, DTS: dts, PTS: dts + later, Payload: []byte{2}}
				if _, jumped := s.seq.Push(u, s.now); jumped {
					t.Error("a jump was seen")
				}
			}
		}
		if early {
			after()
		}
		s.play(source{from: 4, seconds: 5, sound: stereo})
		if !early {
			after()
		}
		s.play(source{from: 9.1, seconds: 3, rate: 30, gops: []int{60}, sound: stereo})
		s.seq.Finish()
		if got, want := s.marks(), "0@0 1@2 H2@4 H3@6.06<2 H4@8.12<2 5@9<2 6@9.1 7@11.1 E8@12.1"; got != want {
			t.Errorf("early %v: marks are\n%s, want\n%s", early, got, want)
		}
		checkLog(t, s.entries)
		checkPictures(t, s.entries)
	}
}

// A publisher without sound may send pictures far apart: the one before is held.
func TestRarePictures(t *testing.T) {
	s := newStudio()
	s.connect(hd, nil)
	s.play(source{rate: 30, gops: []int{60}, seconds: 3})
	for i := range 4 {
		s.play(source{from: 3 + 2.5*float64(i), rate: 0.4, gops: []int{1}, seconds: 2.5})
	}
	s.seq.Finish()
	if got, want := s.marks(), "0@0 1@2 H2@3.03 H3@5.09<2 4@5.5 H5@5.53 H6@7.59<5 7@8 H8@8.03 H9@10.09<8 10@10.5 E11@10.53"; got != want || s.jumps > 0 {
		t.Errorf("%d jumps; marks are\n%s, want\n%s", s.jumps, got, want)
	}
	checkLog(t, s.entries)
	checkPictures(t, s.entries)
}

// Without random access points the held picture is decoded from a whole refresh.
func TestHoldAfterGradualRefresh(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	refresh := media.Access{Recovery: true, RecoveryFrames: 59}
	send := func(from, to int) {
		for i := from; i < to; i++ {
			u := media.Unit{Track: media.Video, DTS: media.Ticks(i) * 3000, PTS: media.Ticks(i) * 3000, Payload: []byte{2}}
			if i%60 == 0 {
				u.Access = refresh
			}
			if i == 0 {
				u.RandomAccess, u.Access.IDR = true, true
			}
			s.seq.Push(u, s.now)
			s.play(source{from: float64(i) / 30, seconds: 1. / 30, sound: stereo})
		}
	}
	send(0, 30*7)
	s.play(source{from: 7, seconds: 5, sound: stereo})
	send(30*12, 30*18)
	s.seq.Finish()
	if got, want := s.marks(), "0@0 1@2<0 2@4<1 3@6<2 H4@7 H5@9.06<4 H6@11.12<4 7@12<4 8@14<7 9@16<8 E10@18"; got != want {
		t.Errorf("marks are\n%s, want\n%s", got, want)
	}
	lead := 0
	for _, e := range s.entries {
		if e.Unit != nil && e.Unit.Preroll {
			lead++
		}
	}
	if lead != 90 { // from 4 s on: the refresh that began at 6 s isn't over
		t.Errorf("%d pictures lead to the held one", lead)
	}
}
