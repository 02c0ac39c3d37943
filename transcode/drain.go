package transcode

import (
	"context"
	"errors"
	"slices"
	"time"
)

// finishTime is how long segments that are cut have to be made when the service
// stops without a drain: they are stored after that.
const finishTime = 600 * time.Millisecond

// drainLook is how often it is looked for claims that were granted meanwhile.
const drainLook = 20 * time.Millisecond

var errStopped = errors.New("this worker stops")

// drain has other workers take over the broadcasts, one after the other, within
// the configured time. What is left then ends as in a crash: the spool holds
// what isn't stored. Without such a time, what is cut is finished.
func (s *Service) drain() {
	if s.cfg.Drain == 0 {
		s.finish()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Drain)
	defer cancel()
	end := time.Now().Add(s.cfg.Drain)
	for s.working.Load() > 0 && ctx.Err() == nil {
		staying := slices.DeleteFunc(s.current(), func(a *assignment) bool { return a.leaving.Load() })
		for i, a := range staying {
			a.leaving.Store(true)
			// One that nobody takes mustn't use up the time of the others.
			turn := time.NewTimer(time.Until(end) / time.Duration(len(staying)-i+1))
			select {
			case <-a.gone:
			case <-turn.C:
			}
			turn.Stop()
		}
		if len(staying) == 0 {
			pause(ctx, drainLook) // a claim may be under way
		}
	}
	for _, a := range s.current() {
		a.log.Warn("no worker took over the broadcast in time")
	}
}

// finish waits until the segments that are cut are made.
func (s *Service) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), finishTime)
	defer cancel()
	for _, a := range s.current() {
		for !a.over() && a.live.Unmade() > 0 && ctx.Err() == nil {
			pause(ctx, 10*time.Millisecond)
		}
	}
}
