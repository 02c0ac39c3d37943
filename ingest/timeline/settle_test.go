package timeline

import (
	"math"
	"math/rand"
	"testing"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// gathered are pictures shown at these times, in milliseconds.
func gathered(shown ...int) (held []heldUnit) {
	for i, at := range shown {
		held = append(held, heldUnit{unit: media.Unit{
			Track: media.Video, DTS: media.Ticks(i) * media.TicksPerMillisecond, PTS: media.Ticks(at) * media.TicksPerMillisecond,
		}})
	}
	return held
}

// every gives the times of n pictures at rate from a time on, in milliseconds,
// each off by at most jitter.
func every(from, n int, rate float64, jitter int) (times []int) {
	random := rand.New(rand.NewSource(1))
	for i := range n {
		times = append(times, from+int(math.Round(float64(i)*1000/rate))+random.Intn(2*jitter+1)-jitter)
	}
	return times
}

func join(times ...[]int) (all []int) {
	for _, t := range times {
		all = append(all, t...)
	}
	return all
}

// A plausible claim counts for more than what one second shows; what encoders
// do at their start doesn't make a rate where there is none.
func TestSettledRate(t *testing.T) {
	pairs := every(0, 15, 15, 0)
	for _, at := range every(0, 15, 15, 0) {
		pairs = append(pairs, at+1)
	}
	for _, c := range []struct {
		name    string
		shown   []int
		claimed float64
		want    float64
	}{
		{"no pictures", nil, 30, 0},
		{"one picture", []int{0}, 0, 30},
		{"one picture and a claim", []int{0}, 24, 24},
		{"30", every(0, 30, 30, 0), 0, 30},
		{"29.97, claimed", every(0, 30, 30, 0), 30000.0 / 1001, 30000.0 / 1001},
		{"24", every(0, 24, 24, 0), 0, 24},
		{"60", every(0, 60, 60, 0), 0, 60},
		{"59.94", every(0, 120, 60000.0/1001, 0), 0, 60000.0 / 1001},
		{"144", every(0, 144, 144, 0), 0, 144},
		{"1", every(0, 2, 1, 0), 0, 1},
		{"in the order of decoding", []int{0, 100, 33, 67, 200, 133, 167, 300, 233, 267, 400, 333}, 0, 30},
		{"jitter of 10 ms", every(50, 30, 30, 10), 0, 30},
		{"a burst of 3 ms, then 30", join(every(0, 20, 333, 0), every(93, 27, 30, 0)), 0, 30},
		{"a burst of 10 ms, then 30", join(every(0, 20, 100, 0), every(233, 23, 30, 0)), 0, 30},
		{"nothing but a burst", every(0, 20, 333, 0), 0, 30},
		{"a burst, and a claim", every(0, 20, 333, 0), 25, 25},
		{"a burst of 10 ms, and a claim", every(0, 20, 100, 0), 30, 30},
		{"pairs of one timestamp", pairs, 0, 15},
		{"pairs, and a claim", pairs, 30, 30},
		{"a hole of half a second", join(every(0, 8, 30, 0), every(733, 8, 30, 0)), 0, 30},
		{"5, and a claim of what follows", every(0, 5, 5, 0), 30, 30},
		{"60 where 30 is claimed", every(0, 60, 60, 0), 30, 30},
		{"30 where 0 is claimed", every(0, 30, 30, 0), 0, 30},
		{"30 where 1 is claimed", every(0, 30, 30, 0), 1, 30},
		{"30 where 240 is claimed", every(0, 30, 30, 0), 240, 30},
		{"30 where 1000 is claimed", every(0, 30, 30, 0), 1000, 30},
		{"30 where 90000 is claimed", every(0, 30, 30, 0), 90000, 30},
		{"1 where 1 is claimed", every(0, 2, 1, 0), 1, 1},
		{"240 where 240 is claimed", every(0, 240, 240, 0), 240, 240},
	} {
		if got := settledRate(gathered(c.shown...), c.claimed); math.Abs(got-c.want) > c.want*0.02 {
			t.Errorf("%s: settled on %v, want %v", c.name, got, c.want)
		}
	}
}

// A picture that is known to be whole only when the next one comes is behind the sound
// that goes with it: nothing of that is lost at the start.
func TestPicturesThatComeAfterTheirSound(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	var late *packet
	for _, p := range (source{rate: 30, gops: []int{60}, seconds: 4, sound: stereo}).packets() {
		switch {
		case p.sound:
			s.push(p)
			continue
		case late != nil:
			s.push(*late)
		}
		late = &p
	}
	s.seq.Finish()
	checkLog(t, s.entries)
	var mark *relay.Mark
	for _, e := range s.entries {
		if e.Mark != nil && mark == nil {
			mark = e.Mark
		}
		if u := e.Unit; u != nil && u.Track == media.Audio {
			if late := u.DTS - mark.Start; late > media.TicksPerMillisecond || len(u.Payload) != 1 {
				t.Errorf("sound begins %s after the pictures, with %d bytes", late.Duration(), len(u.Payload))
			}
			return
		}
	}
	t.Error("there is no sound")
}
