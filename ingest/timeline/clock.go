package timeline

import "millrace/internal/media"

// The clock's limits. A publisher's network may stall for longer: its times go
// on evenly all the same.
const (
	// jumpAhead and jumpBack are how far a time may be from the newest one
	// of any track before it counts as a jump.
	jumpAhead = 3 * media.VideoTimescale / 2
	jumpBack  = 3 * media.VideoTimescale
	// jumpBackSame is the same against the newest one of its own track.
	jumpBackSame = media.VideoTimescale / 2
	// maxStray is how many units of one track may go on far behind the other one.
	maxStray = 16
	// timelineStart is where a broadcast's timeline begins: decode times lie
	// before presentation times and must not be negative.
	timelineStart media.Ticks = 10 * media.VideoTimescale
)

// clock maps the times of one publisher's units onto the broadcast's timeline:
// without jumps, and rising on each track.
type clock struct {
	origin media.Ticks // where the first unit goes
	base   media.Ticks // the newest offset from the publisher's time to ours
	based  bool
	newest media.Ticks // of any track
	tracks [3]trackClock
}

type trackClock struct {
	started bool
	base    media.Ticks // the offset in force on this track
	last    media.Ticks // the last result
	stray   int         // units in a row that only this track goes on with
}

// strays reports whether a unit goes on where the track stopped, though all else is
// far ahead: with B-frames, a few that come after a hole belong before it.
func (tr *trackClock) strays(t, last media.Ticks) bool {
	if t <= last || t > last+jumpAhead || tr.stray >= maxStray {
		return false
	}
	tr.stray++
	return true
}

func newClock(origin media.Ticks) *clock {
	origin = origin.CeilMillisecond() // breaks lie on whole milliseconds, as most encoders' times do
	return &clock{origin: origin, newest: origin}
}

// at maps a decode time on the publisher's own time line. step is the usual
// distance to the track's next one: what a jump is closed up to. jumped reports
// that the timeline was closed up (the first track that jumps says so, the other
// follows it). Of a picture, later is how much later it is shown; rest is for how
// long nothing may have come that the publisher lacks.
func (c *clock) at(track media.Kind, own, later, step, rest media.Ticks) (t media.Ticks, jumped bool) {
	tr := &c.tracks[track]
	plausible := func(t, last media.Ticks) bool {
		return c.plausible(t, t+max(0, later), last, rest) || tr.strays(t, last)
	}
	if !tr.started {
		tr.started = true
		if !c.based {
			c.based, c.base = true, c.origin-own
		}
		tr.base = c.base
		tr.last = own + tr.base - media.TicksPerMillisecond
		if !plausible(tr.last, tr.last) {
			tr.base = c.newest - own
			tr.last = c.newest - media.TicksPerMillisecond
		}
	}
	t = own + tr.base
	if !plausible(t, tr.last) {
		if next := own + c.base; tr.base != c.base && plausible(next, tr.last) {
			tr.base = c.base // the other track jumped first: follow it
		} else {
			c.base = max(c.newest, tr.last+step).CeilMillisecond() - own
			tr.base = c.base
			jumped = true
		}
		t = own + tr.base
	}
	// Decode times must rise; a late frame keeps its place in the order.
	t = max(t, tr.last+media.TicksPerMillisecond)
	if tr.last = t; t >= c.newest-jumpBack {
		tr.stray = 0
	}
	c.newest = max(c.newest, t)
	return t, jumped
}

func (c *clock) plausible(t, shown, last, rest media.Ticks) bool {
	return t <= c.newest+jumpAhead+rest && shown >= c.newest-jumpBack && t >= last-jumpBackSame
}
