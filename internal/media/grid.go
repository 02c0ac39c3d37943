package media

// Grid is where the frames of sound lie: Frame samples apart, through Origin.
// Its times are exact, whatever the rate and the frames' length.
type Grid struct {
	// Rate is in samples a second.
	Rate int
	// Frame is how many samples a frame has.
	Frame Samples
	// Origin is one of the places.
	Origin Samples
}

// AtOrAfter returns the first place whose time isn't before t.
func (g Grid) AtOrAfter(t Ticks) Samples {
	return g.Origin + Samples(g.index(firstSample(t, g.Rate)))*g.Frame
}

// Nearest returns the place whose time is nearest to t.
func (g Grid) Nearest(t Ticks) Samples {
	// Both in parts of 1/(rate x 90,000) s, doubled: nothing is rounded twice.
	off := 2 * (int64(t)*int64(g.Rate) - int64(g.Origin)*VideoTimescale)
	frame := int64(g.Frame) * VideoTimescale
	return g.Origin + Samples(floorDiv(off+frame, 2*frame))*g.Frame
}

// Count returns how many places from Origin on have times before t; 0 where
// Origin itself isn't.
func (g Grid) Count(t Ticks) int {
	return int(max(0, g.index(firstSample(t, g.Rate))))
}

// index counts the frames from Origin to the first place that isn't before s.
func (g Grid) index(s Samples) int64 {
	return -floorDiv(int64(g.Origin-s), int64(g.Frame))
}

// firstSample returns the first sample that isn't before t.
func firstSample(t Ticks, rate int) Samples {
	s := SamplesOf(t, rate)
	if s.Ticks(rate) < t { // it was rounded down
		s++
	}
	return s
}
