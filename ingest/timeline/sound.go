package timeline

import "millrace/internal/media"

const (
	// A frame may be off its place by so many frames before the grid follows it
	// at once; below that, only when driftCount frames in a row are off by more
	// than driftNumerator/2 frames: jitter is no drift. Frames shorter than
	// shortestJitter count as that long.
	gapFrames      = 5
	driftNumerator = 3
	driftCount     = 50
	shortestJitter = 100 // parts of a second
	// maxFill bounds the silence for one gap in frames, or maxFillTime if those
	// last longer; the clock closes larger ones.
	maxFill     = 400
	maxFillTime = 4 * media.VideoTimescale
)

// soundGrid places the frames of sound on one grid, so that their times are
// exact, and tells where silence must be filled in or a frame left out.
type soundGrid struct {
	rate  int
	frame media.Samples // how long a frame is
	next  media.Samples // where the next frame goes
	begun bool          // a frame was placed
	off   int           // frames in a row that were off by more than drift, signed
}

// newSoundGrid begins a grid for a codec's frames at the first sample that isn't
// before t.
func newSoundGrid(t media.Ticks, c *media.Codec) *soundGrid {
	one := media.Grid{Rate: c.Rate, Frame: 1}
	return &soundGrid{rate: c.Rate, frame: c.FrameSamples, next: one.AtOrAfter(t)}
}

// fits reports whether a codec's frames lie on the grid.
func (g *soundGrid) fits(c *media.Codec) bool { return g.rate == c.Rate && g.frame == c.FrameSamples }

// end is the time of the place where the next frame goes.
func (g *soundGrid) end() media.Ticks { return g.next.Ticks(g.rate) }

// place takes a frame's time and returns how many silent frames must stand
// before it (then the frame follows), or drop if it came too late to be used.
func (g *soundGrid) place(t media.Ticks) (fill int, drop bool) {
	jitter := max(g.frame, media.Samples(g.rate/shortestJitter))
	drift, gap := jitter*driftNumerator/2, jitter*gapFrames
	diff := media.SamplesOf(t, g.rate) - g.next
	switch {
	case diff > drift && g.off >= 0:
		g.off++
	case diff < -drift && g.off <= 0:
		g.off--
	default:
		g.off = 0
	}
	sudden := diff > gap || diff < -gap
	drifted := g.off >= driftCount || g.off <= -driftCount
	// The first frame goes to the nearest place: all that follow keep its error.
	if g.begun && !sudden && !drifted {
		return 0, false
	}
	g.off = 0
	if diff < -g.frame/2 {
		return 0, true
	}
	g.begun = true
	return min(int((diff+g.frame/2)/g.frame), g.mostFill()), false
}

func (g *soundGrid) mostFill() int {
	return max(maxFill, int(media.SamplesOf(maxFillTime, g.rate)/g.frame))
}

// advance notes that a frame was put on the grid and returns its place.
func (g *soundGrid) advance() media.Samples {
	at := g.next
	g.next += g.frame
	return at
}

// atOrAfter returns the first place on the grid that isn't before t.
func (g *soundGrid) atOrAfter(t media.Ticks) media.Samples {
	return media.Grid{Rate: g.rate, Frame: g.frame, Origin: g.next}.AtOrAfter(t)
}
