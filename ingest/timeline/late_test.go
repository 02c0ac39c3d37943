package timeline

import (
	"testing"

	"millrace/internal/media"
)

// Sound that begins after the pictures: silence until then, without a hole. What is coded
// like the silence joins at once, other sound at the next keyframe, with a discontinuity.
// The target duration is that of pictures that come evenly.
func TestLateSound(t *testing.T) {
	for _, c := range []struct {
		name  string
		sound *media.Codec
		late  float64 // seconds
		marks string
		from  float64 // seconds, when it is heard
	}{
		{"like the silence", stereo, 3.2, "0@0 1@2 2@4 3@6 E4@8", 3.2},
		{"mono", mono, 3.2, "0@0 1@2 2@4+1 3@6 E4@8", 4},
		{"mono, before the target duration is settled", mono, 1.5, "0@0 1@2+1 2@4 3@6 E4@8", 2},
		{"Opus", opus, 3.2, "0@0 1@2 2@4+1 3@6 E4@8", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStudio()
			s.connect(hd, nil)
			all := source{rate: 30, gops: []int{60}, seconds: 8, sound: c.sound, mute: [2]float64{0, c.late}}
			began := s.now
			s.playWhile(all, func(p packet) bool { return p.at < c.late })
			s.now = began
			if !s.seq.Mute() {
				t.Error("it isn't mute before the sound")
			}
			s.configure(nil, c.sound)
			s.playWhile(all, func(p packet) bool { return p.at >= c.late })
			s.seq.Finish()
			if s.seq.Mute() {
				t.Error("it is mute with sound")
			}
			if got := s.marks(); got != c.marks {
				t.Errorf("marks are\n%s, want\n%s", got, c.marks)
			}
			if st := s.seq.settings; st.TargetDuration != shortTarget {
				t.Errorf("the target duration is %d s", st.TargetDuration)
			}
			checkLog(t, s.entries)
			checkLateSound(t, s, c.from)
		})
	}
}

// checkLateSound checks that sound is heard from a time on, in seconds, and that it
// has no holes.
func checkLateSound(t *testing.T, s *studio, from float64) {
	t.Helper()
	var first, heard, end media.Ticks
	var codec *media.Codec
	for _, e := range s.entries {
		switch {
		case e.Codec != nil && e.Codec.Kind() == media.Audio:
			codec = e.Codec
		case e.Mark != nil && first == 0:
			first, end = e.Mark.Start, e.Mark.Start
		case e.Unit != nil && e.Unit.Track == media.Audio:
			if e.Unit.DTS-end > 45*ms {
				t.Errorf("a hole of %d ms at %.2f s", (e.Unit.DTS - end).Milliseconds(), (end - first).Seconds())
			}
			if end = e.Unit.DTS + codec.Step(); len(e.Unit.Payload) == 1 && heard == 0 { // not silence
				heard = e.Unit.DTS
			}
		}
	}
	if got := (heard - first).Seconds(); got < from-0.03 || got > from+0.05 {
		t.Errorf("it is heard from %.2f s on, want %.2f", got, from)
	}
}
