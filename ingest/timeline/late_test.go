package timeline

import (
	"testing"

	"millrace/internal/media"
)

// Sound that begins after the pictures: silence until then. What is coded like the
// silence joins at once, other sound at the next keyframe, with a discontinuity.
func TestLateSound(t *testing.T) {
	pictures := source{rate: 30, gops: []int{60}, seconds: 3}
	for _, c := range []struct {
		name  string
		sound *media.Codec
		marks string
		from  float64 // seconds from the first mark on, when it is heard
	}{
		{"like the silence", stereo, "0@0 1@2 2@4 3@6 4@8 E5@9", 3},
		{"mono", mono, "0@0 1@2 2@3+1 3@6 4@8 E5@9", 3},
		{"Opus", opus, "0@0 1@2 2@3+1 3@6 4@8 E5@9", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStudio()
			s.connect(hd, nil)
			s.play(pictures)
			if !s.seq.Mute() {
				t.Error("it isn't mute before the sound")
			}
			s.configure(nil, c.sound)
			s.play(source{from: 3, rate: 30, gops: []int{30, 60}, seconds: 6, sound: c.sound})
			s.seq.Finish()
			if s.seq.Mute() {
				t.Error("it is mute with sound")
			}
			if got := s.marks(); got != c.marks {
				t.Errorf("marks are\n%s, want\n%s", got, c.marks)
			}
			checkLog(t, s.entries)
			var first, newest, heard media.Ticks
			for _, e := range s.entries {
				switch {
				case e.Unit != nil && e.Unit.Track == media.Video:
					newest = e.Unit.PTS
				case e.Mark != nil && first == 0:
					first = e.Mark.Start
				case e.Unit != nil && e.Unit.Payload[0] == 1 && heard == 0: // not silence
					heard = e.Unit.DTS
				}
				if e.Unit != nil && heard == 0 && newest-s.seq.grid.end() > 50*ms {
					t.Fatalf("silence is %d ms behind the pictures", (newest - s.seq.grid.end()).Milliseconds())
				}
			}
			if got := (heard - first).Seconds(); got < c.from-0.03 || got > c.from+0.03 {
				t.Errorf("it is heard from %.2f s on, want %.2f", got, c.from)
			}
		})
	}
}
