package timeline

import "millrace/internal/media"

// The clock's limits. A publisher's network may stall for longer: its
// timestamps go on evenly all the same.
const (
	// jumpAhead and jumpBack are how far a timestamp may be from the newest one
	// of any track before it counts as a jump.
	jumpAhead = 3 * media.VideoTimescale / 2
	jumpBack  = 3 * media.VideoTimescale
	// jumpBackSame is the same against the newest one of its own track.
	jumpBackSame = media.VideoTimescale / 2
	// timelineStart is where a broadcast's timeline begins: decode times lie
	// before presentation times and must not be negative.
	timelineStart media.Ticks = 10 * media.VideoTimescale
)

// clock maps one publisher's RTMP timestamps onto the broadcast's timeline:
// unwrapped, without jumps, and rising on each track. Its results are whole
// milliseconds, as FLV has them: marks are exact, and must agree with the tags.
type clock struct {
	origin media.Ticks // where the first timestamp goes
	base   media.Ticks // the newest offset from the publisher's time to ours
	based  bool
	newest media.Ticks // of any track
	tracks [3]trackClock
}

type trackClock struct {
	started bool
	raw     uint32      // the last RTMP timestamp
	ms      int64       // the same, unwrapped
	base    media.Ticks // the offset in force on this track
	last    media.Ticks // the last result
}

func newClock(origin media.Ticks) *clock {
	origin = wholeMilliseconds(origin)
	return &clock{origin: origin, newest: origin}
}

// wholeMilliseconds rounds up.
func wholeMilliseconds(t media.Ticks) media.Ticks {
	return (t + media.TicksPerMillisecond - 1) / media.TicksPerMillisecond * media.TicksPerMillisecond
}

// at maps a timestamp in milliseconds. step is the usual distance to the
// track's next one: what a jump is closed up to. jumped reports that the
// timeline was closed up (the first track that jumps says so, the other follows it).
func (c *clock) at(kind media.Kind, raw uint32, step media.Ticks) (t media.Ticks, jumped bool) {
	tr := &c.tracks[kind]
	if !tr.started {
		tr.started = true
		tr.ms = c.unwrapFirst(kind, raw)
		if !c.based {
			c.based = true
			c.base = c.origin - media.Ticks(tr.ms)*media.TicksPerMillisecond
		}
		tr.base = c.base
		tr.last = media.Ticks(tr.ms)*media.TicksPerMillisecond + tr.base - media.TicksPerMillisecond
		if !c.plausible(tr.last, tr.last) {
			tr.base = c.newest - media.Ticks(tr.ms)*media.TicksPerMillisecond
			tr.last = c.newest - media.TicksPerMillisecond
		}
	} else {
		// RTMP timestamps wrap at 2^32 ms; the shorter way round is the right one.
		tr.ms += int64(int32(raw - tr.raw))
	}
	tr.raw = raw
	own := media.Ticks(tr.ms) * media.TicksPerMillisecond
	t = own + tr.base
	if !c.plausible(t, tr.last) {
		if next := own + c.base; tr.base != c.base && c.plausible(next, tr.last) {
			tr.base = c.base // the other track jumped first: follow it
		} else {
			c.base = wholeMilliseconds(max(c.newest, tr.last+step)) - own
			tr.base = c.base
			jumped = true
		}
		t = own + tr.base
	}
	// Decode times must rise; a late frame keeps its place in the order.
	t = max(t, tr.last+media.TicksPerMillisecond)
	tr.last = t
	c.newest = max(c.newest, t)
	return t, jumped
}

func (c *clock) plausible(t, last media.Ticks) bool {
	return t <= c.newest+jumpAhead && t >= c.newest-jumpBack && t >= last-jumpBackSame
}

// unwrapFirst places a track's first timestamp near the other track's.
func (c *clock) unwrapFirst(kind media.Kind, raw uint32) int64 {
	for k := range c.tracks {
		if other := &c.tracks[k]; media.Kind(k) != kind && other.started {
			return other.ms + int64(int32(raw-other.raw))
		}
	}
	return int64(raw)
}

// audioGrid places AAC frames on one grid of 1,024 samples, so that their times
// are exact, and tells where silence must be filled in or a frame left out.
type audioGrid struct {
	rate  int
	next  media.Samples // where the next frame goes
	begun bool          // a frame was placed
	off   int           // frames in a row that were off by more than driftLimit, signed
}

// newAudioGrid begins a grid at the first sample that isn't before t.
func newAudioGrid(t media.Ticks, rate int) *audioGrid {
	return &audioGrid{rate: rate, next: sampleFrom(t, rate)}
}

// sampleFrom returns the first sample that isn't before t.
func sampleFrom(t media.Ticks, rate int) media.Samples {
	s := media.SamplesOf(t, rate)
	if s.Ticks(rate) < t { // it was rounded down
		s++
	}
	return s
}

const (
	// gapLimit is how far a frame may be off before the grid follows it at
	// once, in frames; below it, only when driftCount frames in a row are off
	// by more than driftLimit: jitter is no drift.
	gapLimit   = 5
	driftLimit = media.AACFrameSamples * 3 / 2
	driftCount = 50
	// maxFill bounds the silence for one gap; the clock closes larger ones.
	maxFill = 400
)

// place takes a frame's time and returns how many silent frames must stand
// before it (then the frame follows), or drop if it came too late to be used.
func (g *audioGrid) place(t media.Ticks) (fill int, drop bool) {
	const frame = media.AACFrameSamples
	diff := media.SamplesOf(t, g.rate) - g.next
	switch {
	case diff > driftLimit && g.off >= 0:
		g.off++
	case diff < -driftLimit && g.off <= 0:
		g.off--
	default:
		g.off = 0
	}
	sudden := diff > gapLimit*frame || diff < -gapLimit*frame
	drifted := g.off >= driftCount || g.off <= -driftCount
	// The first frame goes to the nearest place: all that follow keep its error.
	if g.begun && !sudden && !drifted {
		return 0, false
	}
	g.off = 0
	if diff < -frame/2 {
		return 0, true
	}
	g.begun = true
	return min(int((diff+frame/2)/frame), maxFill), false
}

// advance notes that a frame was put on the grid and returns its place.
func (g *audioGrid) advance() media.Samples {
	at := g.next
	g.next += media.AACFrameSamples
	return at
}

// atOrAfter returns the first place on the grid that isn't before t.
func (g *audioGrid) atOrAfter(t media.Ticks) media.Samples {
	const frame = media.AACFrameSamples
	at := sampleFrom(t, g.rate)
	k := (at - g.next) / frame
	if rest := (at - g.next) % frame; rest > 0 {
		k++
	}
	return g.next + k*frame
}
