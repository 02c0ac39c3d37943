package timeline

import (
	"testing"

	"millrace/internal/media"
)

// The pictures of a burst at the start are spread back from its end.
func TestSpreadBurst(t *testing.T) {
	for _, c := range []struct {
		name   string
		times  []media.Ticks // in milliseconds
		spread []media.Ticks
	}{
		{"none", []media.Ticks{0, 33, 66, 100}, []media.Ticks{0, 33, 66, 100}},
		{"jitter", []media.Ticks{0, 25, 70, 95}, []media.Ticks{0, 25, 70, 95}},
		{"3 ms apart", []media.Ticks{100, 103, 106, 109, 140, 173}, []media.Ticks{10, 43, 76, 109, 140, 173}},
		{"too long", append(make([]media.Ticks, 70), 1, 2, 3), append(make([]media.Ticks, 70), 1, 2, 3)},
	} {
		var held []heldUnit
		for _, ms := range c.times {
			at := ms * media.TicksPerMillisecond
			held = append(held, heldUnit{unit: media.Unit{Track: media.Video, DTS: at, PTS: at + 900}}, heldUnit{unit: media.Unit{Track: media.Audio, DTS: at}})
		}
		spreadBurst(held, 33*media.TicksPerMillisecond)
		for i := range c.times {
			u := held[2*i].unit
			if want := c.spread[i] * media.TicksPerMillisecond; u.DTS != want || u.PTS != want+900 || held[2*i+1].unit.DTS != c.times[i]*media.TicksPerMillisecond {
				t.Errorf("%s: picture %d is at %d ms", c.name, i, u.DTS/media.TicksPerMillisecond)
			}
		}
	}
}
