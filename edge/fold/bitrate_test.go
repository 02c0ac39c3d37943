package fold

import (
	"fmt"
	"math"
	"testing"

	"millrace/edge/playlist"
	"millrace/internal/media"
)

// What the multivariant playlist says follows what is listed, in runs of segments
// as RFC 8216bis measures them.
func TestMeasure(t *testing.T) {
	type seg struct {
		seconds float64
		size    int // in thousands of bytes
		frames  int
	}
	repeat := func(n int, s ...seg) (all []seg) {
		for range n {
			all = append(all, s...)
		}
		return all
	}
	for _, c := range []struct {
		name     string
		segments []seg // without a size: a gap
		want     string
	}{
		{"too few", repeat(2, seg{2, 250, 60}), "1200000 0 30"},
		{"30 fps as settled", repeat(5, seg{2, 250, 60}), "1000001 1000000 30"},
		{"29.97 fps is near enough", repeat(5, seg{2.002, 250, 60}), "999001 999000 30"},
		{"60 fps", repeat(5, seg{2, 250, 120}), "1000001 1000000 60"},
		{"5 fps, then 30", append(repeat(3, seg{2, 50, 10}), repeat(3, seg{2, 250, 60})...), "1000001 600000 30"},
		{"30 fps, then 5", append(repeat(3, seg{2, 250, 60}), repeat(90, seg{2, 50, 10})...), "1000001 225806 30"},
		{"5 fps", repeat(4, seg{2, 50, 10}), "200001 200000 5"},
		{"a burst", append(repeat(1, seg{2, 250, 500}), repeat(3, seg{2, 250, 60})...), "1000001 1000000 30"},
		{"segments that are a little short", repeat(4, seg{1.967, 250, 59}), "1016777 1016776 30"},
		{"short segments", repeat(12, seg{0.5, 62, 15}), "992001 992000 30"},
		{"a short one that is big", append(repeat(4, seg{2, 250, 60}), seg{0.1, 100, 3}), "1333334 1086419 30"},
		{"a gap", append(repeat(3, seg{2, 250, 60}), append(repeat(1, seg{2, 0, 0}), repeat(3, seg{2, 500, 60})...)...), "2000001 1500000 30"},
		{"no counts", repeat(4, seg{2, 250, 0}), "1000001 1000000 30"},
	} {
		var list []*playlist.Segment
		for _, s := range c.segments {
			list = append(list, &playlist.Segment{
				Duration: media.Ticks(math.Round(s.seconds * media.VideoTimescale)), Size: s.size * 1000, Frames: s.frames, Gap: s.size == 0,
			})
		}
		m := measure(list, 4*media.VideoTimescale)
		peak, average := m.bitrate(1_000_000)
		if got := fmt.Sprintf("%d %d %.4g", peak, average, m.frameRate(30)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if rate := (rates{frames: 15}).frameRate(0); rate != 0 {
		t.Errorf("sound has a frame rate of %v", rate)
	}
}
