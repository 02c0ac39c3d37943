package ingest

import "time"

// phase is how far a broadcast is, as this ingest sees it.
type phase uint8

// The phases. A broadcast is over here in all of them from ended on: its log
// stays until workers have stored what is in it.
const (
	// waiting: nobody has published yet.
	waiting phase = iota
	// live: a publisher is connected.
	live
	// reconnecting: the publisher is gone, and may come back.
	reconnecting
	// ended: nobody may go on with it.
	ended
	// moved: another ingest has it.
	moved
	// stopping: this ingest stops; another one, or this one started again, may
	// go on with it.
	stopping
	// endedStopping and movedStopping: this ingest stops while workers store
	// the rest.
	endedStopping
	movedStopping

	phases // how many there are
)

func (p phase) String() string {
	return [phases]string{
		"waiting", "live", "reconnecting", "ended", "moved", "stopping", "ended, stopping", "moved, stopping",
	}[p]
}

// over reports whether nothing follows in the log.
func (p phase) over() bool { return p >= ended }

// hasEnded reports whether nobody may go on with the broadcast.
func (p phase) hasEnded() bool { return p == ended || p == endedStopping }

// hasMoved reports whether another ingest goes on with it.
func (p phase) hasMoved() bool { return p == moved || p == movedStopping }

// stops reports whether this ingest stops: no worker is looked for any more.
func (p phase) stops() bool { return p >= stopping }

// event is what moves a broadcast from phase to phase.
type event uint8

// The events.
const (
	attached event = iota // a publisher has been taken
	detached              // it is gone
	ends                  // nobody came back in time, or the channel has another broadcast
	moves                 // another ingest has the channel
	stops                 // this ingest stops

	events // how many there are
)

// next is the phase that follows p on an event. ok is false where the event
// changes nothing: what is over doesn't begin again, and a publisher is
// dismissed before its broadcast ends, moves or stops.
func next(p phase, e event) (to phase, ok bool) {
	switch {
	case e == attached && (p == waiting || p == reconnecting):
		return live, true
	case e == detached && p == live:
		return reconnecting, true
	case e == ends && (p == waiting || p == reconnecting):
		return ended, true
	case e == moves && (p == waiting || p == reconnecting):
		return moved, true
	case e == stops && (p == waiting || p == reconnecting):
		return stopping, true
	case e == ends && p == stopping, e == stops && p == ended:
		return endedStopping, true
	case e == moves && p == stopping, e == stops && p == moved:
		return movedStopping, true
	}
	return p, false
}

// life is the phase of a broadcast and what it has of times. Only enter changes
// it.
type life struct {
	phase phase
	// lost is when the publisher went; before the first one, when the broadcast began.
	lost time.Time
	// until is when the log is given up at the latest; zero while the broadcast
	// isn't over.
	until time.Time
}

// enter moves the broadcast on an event that came at now. In a phase that is
// over, workers have the time keep from it on, or what is left of what they had
// if that is less.
func (l *life) enter(e event, now time.Time, keep time.Duration) bool {
	to, ok := next(l.phase, e)
	if !ok {
		return false
	}
	l.phase = to
	if e == detached {
		l.lost = now
	}
	if until := now.Add(keep); to.over() && (l.until.IsZero() || until.Before(l.until)) {
		l.until = until
	}
	return true
}

// givenUp reports whether the time of the log is over.
func (l *life) givenUp(now time.Time) bool {
	return !l.until.IsZero() && !now.Before(l.until)
}
