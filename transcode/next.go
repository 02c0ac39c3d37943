package transcode

import (
	"errors"
	"fmt"
	"time"

	"millrace/internal/lease"
	"millrace/transcode/logread"
)

const (
	// relayDoubt is how long after the relay broke the assignment waits for what
	// becomes of the claim: with an ingest that died both end.
	relayDoubt = 500 * time.Millisecond
	// lastMarks is how long the log may go on after ingest has ended a claim: it
	// comes by another connection, and may be late with its end mark.
	lastMarks = time.Second
	// lookInterval is how often a detached assignment looks at Redis.
	lookInterval = time.Second
	// detachedPatience is how long another ingest, once it has the lease, may
	// take to ask for the open segment's end.
	detachedPatience = 2 * time.Second
	// detachedGrace is how much longer than the grace period a detached assignment waits.
	detachedGrace = 15 * time.Second
	// detachedLimit is how long it waits without Redis, or with one that lost the lease.
	detachedLimit = 5 * time.Minute
)

var (
	errTaken     = errors.New("another worker has the slot")
	errLostLease = errors.New("redis knows an earlier lease only: it lost some of what it had")
)

// Why an open segment is dropped, for operators.
const (
	nobodyAsked  = "nobody asked for the open segment; it is dropped"
	goneWithout  = "another ingest went on without this worker's open segment; it is dropped"
	segmentsLeft = "ingest is gone before the segment at which another worker takes over; the open segment is dropped"
)

// next returns the state after an event, and what to do now, in order. It is pure.
func next(s state, e event) (state, []action) {
	var do []action
	switch e.kind {
	case eventTick:
		s, do = s.tick(e)
	case eventWorkerDone:
		s = s.workerDone(e)
	case eventTakenOver:
		s, do = s.takenOver(e)
	case eventClaimEnded:
		s, do = s.claimEnded(e)
	case eventClaimBroke:
		s, do = s.claimBroke(e)
	case eventLogLost:
		s, do = s.logLost(e)
	case eventLogMoved, eventClosedShort:
		s = s.relieve()
	case eventLooked:
		s, do = s.looked(e)
	}
	if s.phase == phaseStoring && e.stored {
		s.phase = phaseOver
	}
	return s, do
}

// end ends the assignment.
func (s state) end(result error) state {
	s.phase, s.result = phaseOver, result
	return s
}

// finish has what is whole made, and then ends the assignment.
func (s state) finish(result error) state {
	s.phase, s.result = phaseFinishing, result
	return s
}

func (s state) tick(e event) (state, []action) {
	switch s.phase {
	case phaseDoubting:
		if e.at.After(s.due) {
			return s.end(s.result), nil
		}
	case phaseEnding:
		if e.at.After(s.due) {
			return s.finish(s.result), []action{{kind: actDrop}}
		}
	case phaseDetached:
		if e.at.Before(s.due) {
			break
		}
		s.due = e.at.Add(lookInterval)
		if s.reading {
			return s, []action{{kind: actLook}}
		}
		// A part that still comes ends the pause, so it is announced again.
		return s, []action{{kind: actAnnouncePause}, {kind: actLook}}
	}
	return s, nil
}

func (s state) workerDone(e event) state {
	if e.err != nil && s.phase != phaseOver {
		return s.end(e.err)
	}
	switch s.phase {
	case phaseWorking, phaseDoubting:
		s.phase, s.result = phaseMade, nil
	case phaseRelieved:
		s.phase = phaseStoring
	case phaseDetached:
		return s.end(nil)
	case phaseEnding, phaseFinishing:
		if e.ended {
			s.result = nil
		}
		return s.end(s.result)
	}
	return s
}

func (s state) takenOver(e event) (state, []action) {
	switch s.phase {
	case phaseDoubting:
		// The segments up to there don't come any more: ingest learns it when the claim ends.
		return s.finish(s.result), []action{{kind: actStopAt, until: e.until}, {kind: actDrop}}
	case phaseWorking, phaseRelieved:
		s.phase, s.result = phaseRelieved, nil
		return s, []action{{kind: actStopAt, until: e.until}}
	case phaseMade:
		s.phase = phaseStoring
	}
	return s, nil
}

func (s state) claimEnded(e event) (state, []action) {
	why := fmt.Errorf("ingest ended the claim: %s", e.why)
	switch s.phase {
	case phaseWorking, phaseRelieved:
		if s.reading {
			s.phase, s.result, s.due = phaseEnding, why, e.at.Add(lastMarks)
			break
		}
		return s.finish(why), []action{{kind: actDrop}}
	case phaseDoubting:
		return s.finish(why), []action{{kind: actDrop}}
	case phaseMade, phaseStoring:
		return s.end(nil), nil
	}
	return s, nil
}

func (s state) claimBroke(e event) (state, []action) {
	switch s.phase {
	case phaseWorking, phaseDoubting:
		s.phase, s.result = phaseDetached, nil
		s.since, s.due = e.at, e.at.Add(lookInterval) // ingest has only just seen it, too
		return s, []action{{kind: actTellDetached}}
	case phaseRelieved:
		if s.reading {
			return s.finish(nil), nil
		}
		return s.finish(nil), []action{{kind: actDrop, why: segmentsLeft}}
	case phaseMade, phaseStoring:
		return s.end(nil), nil
	}
	return s, nil
}

func (s state) logLost(e event) (state, []action) {
	s.reading = false
	var do []action
	if errors.Is(e.err, logread.ErrEnded) {
		do = []action{{kind: actEndAtPause}}
	}
	switch s.phase {
	case phaseWorking:
		s.phase, s.result, s.due = phaseDoubting, e.err, e.at.Add(relayDoubt)
	case phaseRelieved:
		if do == nil {
			return s.finish(e.err), []action{{kind: actDrop}}
		}
	case phaseEnding, phaseFinishing:
		// What would complete the open segment doesn't come any more.
		return s.finish(s.result), append(do, action{kind: actDrop})
	case phaseMade, phaseStoring, phaseOver:
		return s, nil
	}
	return s, do
}

// relieve notes that somebody else goes on.
func (s state) relieve() state {
	switch s.phase {
	case phaseWorking, phaseDoubting:
		s.phase, s.result = phaseRelieved, nil
	case phaseMade:
		s.phase = phaseStoring
	case phaseDetached:
		return s.finish(nil)
	}
	return s
}

func (s state) looked(e event) (state, []action) {
	if s.phase != phaseDetached {
		return s, nil
	}
	r, err := e.found.record, e.found.err
	if err == nil && r.Broadcast == s.broadcast && r.Epoch < s.own.Lease {
		err = errLostLease
	}
	switch {
	case err != nil:
		if e.at.Sub(s.since) > detachedLimit {
			return s.finish(nil), []action{{kind: actDrop, why: nobodyAsked, err: err}}
		}
	case r.Broadcast != s.broadcast, r.Epoch == s.own.Lease && r.State == lease.Ended,
		r.Epoch == s.own.Lease && r.Age > r.Grace+detachedGrace:
		return s.finish(nil), []action{{kind: actEndBroadcast}}
	case r.Epoch > s.own.Lease:
		if s.taken.IsZero() {
			s.taken = e.at
		}
		if e.at.Sub(s.taken) >= detachedPatience {
			// Its numbers begin where it believes this segment to begin or end.
			return s.finish(nil), []action{{kind: actDrop, why: goneWithout}}
		}
	case s.own.Less(e.found.slot):
		return s.end(errTaken), nil
	}
	return s, nil
}
