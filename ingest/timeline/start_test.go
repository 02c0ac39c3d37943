package timeline

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"millrace/internal/media"
)

// hevc is libx265's.
var hevc = codec(media.HEVC, []byte{
	0x01, 0x01, 0x60, 0x00, 0x00, 0x00, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3c, 0xf0, 0x00, 0xfc,
	0xfd, 0xf8, 0xf8, 0x00, 0x00, 0x0f, 0x03, 0xa0, 0x00, 0x01, 0x00, 0x18, 0x40, 0x01, 0x0c, 0x01,
	0xff, 0xff, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00,
	0x3c, 0x95, 0x98, 0x09, 0xa1, 0x00, 0x01, 0x00, 0x2b, 0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00,
	0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3c, 0xa0, 0x0a, 0x08, 0x0b, 0x9f,
	0x79, 0x65, 0x66, 0x92, 0x4c, 0xaf, 0x01, 0x68, 0x08, 0x00, 0x00, 0x03, 0x00, 0x08, 0x00, 0x00,
	0x03, 0x00, 0xf0, 0x40, 0xa2, 0x00, 0x01, 0x00, 0x07, 0x44, 0x01, 0xc1, 0x72, 0xb4, 0x62, 0x40,
})

// goplike is what an encoder sends without sound: GOPs of a length in frames, of
// which all but the first begin with a start of a kind, at 30 frames a second.
type goplike struct {
	seconds, gop int
	leading      int // pictures that follow a start, shown before it
	bFrames      int // in a row
	start        media.Access
	first        media.Access // of the first picture
	skip         int          // pictures that were sent before this publisher came
}

func (g goplike) units() (all []media.Unit) {
	at := func(frames int) media.Ticks { return media.Ticks(math.Round(float64(frames)/30*1000)) * ms }
	delay := 0
	if g.bFrames > 0 || g.leading > 0 {
		delay = 1
	}
	for first := 0; first < g.seconds*30; first += g.gop {
		shown := decodeOrder(g.gop, g.bFrames)
		if first > 0 && g.leading > 0 { // the start is shown after them
			lead := g.leading
			shown = append([]int{lead}, decodeOrder(g.gop, 0)[:lead]...)
			for _, n := range decodeOrder(g.gop-lead, g.bFrames)[1:] {
				shown = append(shown, lead+n)
			}
		}
		for i, n := range shown {
			u := media.Unit{Track: media.Video, DTS: at(first + i), PTS: at(first + n + delay), Payload: []byte{2}}
			u.Access.Disposable = n < i
			if i == 0 {
				if u.Access = g.start; first == 0 {
					u.Access = g.first
				}
				u.RandomAccess = u.Access.IDR
			}
			all = append(all, u)
		}
	}
	return all[g.skip:]
}

// Segments begin at every kind of start. They are decoded from an earlier one
// where pictures that are shown in them need it.
func TestCutWithoutIDR(t *testing.T) {
	idr := media.Access{IDR: true}
	open := media.Access{Recovery: true, Intra: true}
	gradual := func(frames int) media.Access { return media.Access{Recovery: true, RecoveryFrames: frames} }
	for _, c := range []struct {
		name   string
		source goplike
		marks  string
		recode string // a letter for each mark of an open segment
		target int
	}{
		{"closed GOP", goplike{seconds: 8, gop: 60, bFrames: 2, first: idr, start: idr}, "0@0 1@2 2@4 3@6 E4@8", "----", 4},
		{"open GOP", goplike{seconds: 8, gop: 60, bFrames: 2, leading: 2, first: idr, start: open}, "0@0 1@2<0 2@4<1 3@6<2 E4@8", "-rrr", 4},
		{"open GOP of 1 s", goplike{seconds: 8, gop: 30, bFrames: 2, leading: 1, first: idr, start: open}, "0@0 1@2<0 2@4<1 3@6<2 E4@8", "-rrr", 4},
		{"recovery points without leading pictures", goplike{seconds: 6, gop: 60, first: idr, start: open}, "0@0 1@2 2@4 E3@6", "-rr", 4},
		{"recovery points alone", goplike{seconds: 6, gop: 60, first: open, start: open}, "0@0 1@2 2@4 E3@6", "rrr", 4},
		{"keyframes of I slices", goplike{seconds: 6, gop: 60, first: idr, start: media.Access{Intra: true, Claimed: true}}, "0@0 1@2 2@4 E3@6", "-rr", 4},
		{"from the middle of an open GOP on", goplike{seconds: 8, gop: 60, bFrames: 2, leading: 2, first: idr, start: open, skip: 20}, "0@0 1@1.93<0 2@3.93<1 E3@5.93", "rrr", 4},
		{"intra refresh", goplike{seconds: 8, gop: 60, first: idr, start: gradual(18)}, "0@0 1@2<0 2@4<1 3@6<2 E4@8", "-rrr", 4},
		{"intra refresh that takes longer than a segment", goplike{seconds: 12, gop: 60, first: idr, start: gradual(90)}, "0@0 1@2<0 2@4<0 3@6<1 4@8<2 5@10<3 E6@12", "-rrrrr", 4},
		{"intra refresh, from its middle on", goplike{seconds: 8, gop: 60, first: idr, start: gradual(18), skip: 20}, "0@0 1@2<0 2@4<1 E3@6", "rrr", 4},
		{"intra refresh with B-frames", goplike{seconds: 12, gop: 60, bFrames: 2, first: idr, start: gradual(30)}, "0@0 1@2<0 2@4<0 3@6<1 4@8<2 5@10<3 E6@12", "-rrrrr", 4},
		{"I slices that nobody calls keyframes", goplike{seconds: 20, gop: 60, first: idr, start: media.Access{Intra: true}}, "0@0 1@9.53<0 2@12 3@14 4@16 5@18 E6@20", "--rrrr", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStudio()
			s.connect(hd, nil)
			began := s.now
			for _, u := range c.source.units() {
				s.now = began.Add(u.DTS.Duration())
				s.seq.Push(u, s.now)
			}
			s.now = s.now.Add(time.Second / 30)
			s.seq.Finish()
			if got := s.marks(); got != c.marks {
				t.Errorf("marks are\n%s, want\n%s", got, c.marks)
			}
			var recode strings.Builder
			for _, e := range s.entries {
				if e.Mark != nil && e.Mark.Kind == "open" {
					fmt.Fprintf(&recode, "%s", map[bool]string{true: "r", false: "-"}[e.Mark.Recode])
				}
			}
			if recode.String() != c.recode {
				t.Errorf("source made anew: %s, want %s", recode.String(), c.recode)
			}
			if td := s.seq.settings.TargetDuration; td != c.target {
				t.Errorf("target duration %d, want %d", td, c.target)
			}
			checkLog(t, s.entries)
			checkPictures(t, s.entries)
		})
	}
}

// Of HEVC, browsers start with every random access point.
func TestCutOpenGOPOfHEVC(t *testing.T) {
	s := newStudio()
	s.connect(hevc, nil)
	cra := media.Access{Intra: true}
	for _, u := range (goplike{seconds: 6, gop: 60, bFrames: 2, leading: 2, first: media.Access{IDR: true}, start: cra}).units() {
		u.RandomAccess = u.Access.Intra || u.Access.IDR
		s.now = s.now.Add(time.Second / 30)
		s.seq.Push(u, s.now)
	}
	s.seq.Finish()
	if got, want := s.marks(), "0@0 1@2<0 2@4<1 E3@6"; got != want {
		t.Errorf("marks are %s, want %s", got, want)
	}
	for _, e := range s.entries {
		if e.Mark != nil && e.Mark.Recode {
			t.Errorf("%+v", e.Mark)
		}
	}
	checkPictures(t, s.entries)
}
