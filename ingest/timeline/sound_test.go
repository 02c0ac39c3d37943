package timeline

import (
	"slices"
	"testing"

	"millrace/internal/media"
)

// played is what came of frames of sound that were put on a grid.
type played struct {
	silent, dropped int
	skew            media.Ticks // of the newest frame: its place minus its time
}

// play puts frames on the grid as the Sequencer does.
func play(g *soundGrid, times []media.Ticks) (p played) {
	for _, at := range times {
		fill, drop := g.place(at)
		if drop {
			p.dropped++
			continue
		}
		for range fill {
			g.advance()
		}
		p.silent += fill
		p.skew = g.advance().Ticks(g.rate) - at
	}
	return p
}

// sounds gives the times of n frames from a time on, rounded to milliseconds as
// RTMP does, by a clock that is off by so many parts in a million.
func sounds(from media.Ticks, n, ppm int) (times []media.Ticks) {
	for i := range n {
		exact := float64(i) * 1024 / 48000 * (1 + float64(ppm)/1e6) * media.VideoTimescale
		times = append(times, (from+media.Ticks(exact))/ms*ms)
	}
	return times
}

func TestSoundGrid(t *testing.T) {
	const start = timelineStart
	frames := func(n int) media.Ticks { return media.Samples(n * 1024).Ticks(48000) }
	jitter := sounds(start, 500, 0)
	for i := 7; i < len(jitter); i++ {
		jitter[i] += media.Ticks(i%7-3) * 25 * ms
	}
	for _, c := range []struct {
		name            string
		times           []media.Ticks
		silent, dropped int
	}{
		{"even", sounds(start, 5000, 0), 0, 0},
		{"jitter", jitter, 0, 0},
		{"ten frames are missing", slices.Concat(sounds(start, 100, 0), sounds(start+frames(110), 100, 0)), 10, 0},
		{"two frames are missing", slices.Concat(sounds(start, 100, 0), sounds(start+frames(102), 100, 0)), 2, 0},
		{"ten frames come twice", slices.Concat(sounds(start, 100, 0), sounds(start+frames(90), 500, 0)), 0, 9},
		{"the first frames come before the start", sounds(start-frames(4), 100, 0), 0, 4},
		{"the first frame comes late", sounds(start+frames(3), 100, 0), 3, 0},
		{"an hour with a clock 100 ppm slow", sounds(start, 168_750, 100), 16, 0},
		{"an hour with a clock 100 ppm fast", sounds(start, 168_750, -100), 0, 16},
		{"more than can be filled", slices.Concat(sounds(start, 1, 0), sounds(start+1000*media.VideoTimescale, 1, 0)), maxFill, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newSoundGrid(start, stereo)
			p := play(g, c.times)
			if p.silent != c.silent || p.dropped != c.dropped {
				t.Errorf("%d silent, %d dropped, want %d, %d", p.silent, p.dropped, c.silent, c.dropped)
			}
			if c.silent != maxFill && (p.skew > 80*ms || p.skew < -80*ms) {
				t.Errorf("the newest frame is %d ms off", p.skew.Milliseconds())
			}
			if (g.next-media.Grid{Rate: 48000, Frame: 1}.AtOrAfter(start))%1024 != 0 {
				t.Error("the grid moved")
			}
		})
	}
}

// A place is found at any rate, and at any length of frames.
func TestSoundGridAtOrAfter(t *testing.T) {
	for _, c := range []media.Codec{
		{Rate: 8000, FrameSamples: 1024}, {Rate: 22050, FrameSamples: 1024}, {Rate: 44100, FrameSamples: 1024}, {Rate: 44100, FrameSamples: 960},
		{Rate: 48000, FrameSamples: 1024}, {Rate: 96000, FrameSamples: 1024}, {Rate: 48000, FrameSamples: 120}, {Rate: 48000, FrameSamples: 2880},
	} {
		g := newSoundGrid(timelineStart, &c)
		for at := timelineStart - 10_000; at < timelineStart+10_000; at += 7 {
			s := g.atOrAfter(at)
			before := s - c.FrameSamples
			if s.Ticks(c.Rate) < at || before.Ticks(c.Rate) >= at || (s-g.next)%c.FrameSamples != 0 {
				t.Fatalf("at %d Hz by %d, %d gave sample %d at %d", c.Rate, c.FrameSamples, at, s, s.Ticks(c.Rate))
			}
		}
	}
}

// Short frames whose times are rounded to milliseconds are jitter, and so is a
// network's; a gap of any length that the clock leaves is filled.
func TestSoundGridOfShortFrames(t *testing.T) {
	const start = timelineStart
	c := &media.Codec{Rate: 48000, FrameSamples: 120} // 2.5 ms
	g := newSoundGrid(start, c)
	var times []media.Ticks
	for i := range media.Ticks(2000) {
		times = append(times, (start+i*225+(i%7-3)*ms*3)/ms*ms)
	}
	if p := play(g, times[3:]); p.dropped != 0 || p.silent > 4 {
		t.Errorf("%d silent, %d dropped", p.silent, p.dropped)
	}
	if p := play(g, []media.Ticks{g.end() + jumpAhead}); p.silent != 600 || p.dropped != 0 || p.skew != 0 {
		t.Errorf("a gap gave %+v", p)
	}
}
