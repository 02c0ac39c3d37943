package encode

import (
	"slices"
	"time"
)

// Where what a publisher sends has every process die, a broadcast's rungs end: others have
// use for the machine.

const (
	// maxLost is how many segments in a row are given up, each after maxAttempts processes.
	maxLost = 3
	// lostPause is after how long it is tried again: it may have been the machine's fault.
	// Another configuration is tried at once.
	lostPause = time.Minute
)

// failures is what is known of segments that couldn't be encoded. It belongs to the worker's
// goroutine.
type failures struct {
	lost  int       // segments in a row that were given up
	since time.Time // when the rungs ended, or were last tried; zero: they are made
}

// ended reports whether rungs aren't made by now.
func (f *failures) ended(now time.Time) bool {
	return !f.since.IsZero() && now.Sub(f.since) < lostPause
}

// empty reports whether a process made nothing of some rung.
func (run *encodingRun) empty() bool {
	return slices.ContainsFunc(run.works, func(r *rungWork) bool { return r.out.parts == 0 && len(r.out.frames) == 0 })
}

// judge looks at a segment that is done, of which there is no more than that to know. Where
// too many in a row were given up, no rungs are made for a while.
func (e *encoding) judge(s *segment, now time.Time) {
	made := false
	for _, run := range s.runs {
		made = made || len(run.works) > 0
		if !slices.ContainsFunc(run.works, func(r *rungWork) bool { return r.failed }) {
			continue
		}
		if e.dying.lost++; e.dying.lost >= maxLost && !e.dying.ended(now) {
			e.dying.since = now
			e.failing.Store(true)
			e.Metrics.ended.Inc()
			e.Log.Error("what is sent can't be encoded again and again: no rungs are made for a while", "sequence", s.tl.mark.Sequence, "for", lostPause)
		}
		return
	}
	if made {
		e.dying = failures{}
		e.failing.Store(false)
	}
}
