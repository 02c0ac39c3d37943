package transcode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/relay"
	"millrace/transcode/encode"
	"millrace/transcode/logread"
	"millrace/transcode/storage"
)

const (
	// lastWord is how long the last report before a claim is closed may take.
	lastWord = 500 * time.Millisecond
	// tickInterval is how often an assignment looks whether it is time for something.
	tickInterval = 100 * time.Millisecond
	// eventQueue is how many events wait for an assignment; more have their
	// senders wait.
	eventQueue = 16
)

// assignment is a slot of a broadcast as this worker has it: from the grant until
// all that the worker makes of it is published.
type assignment struct {
	service *Service
	job     jobs.Job
	grant   jobs.Grant
	started time.Time
	claim   *claim
	out     *storage.Writer
	live    *encode.Worker
	log     *slog.Logger
	cancel  context.CancelCauseFunc
	events  chan event
	gone    chan struct{} // closed when it is over
	leaving atomic.Bool
	earlier *earlier // nil when there was no earlier worker

	closing sync.Mutex     // guards what follows
	handoff *relay.Handoff // what was answered to /close
	closed  time.Time
	final   bool // the end was published
}

// work claims a broadcast's slot and works on it. It returns nil when the
// broadcast was done, or handed over.
func (s *Service) work(ctx context.Context, job jobs.Job, log *slog.Logger) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := s.claim(ctx, job)
	if err != nil {
		return err
	}
	defer c.close()
	a := &assignment{
		service: s, job: job, grant: c.grant, started: time.Now(), claim: c, cancel: cancel,
		log:    log.With("slot", job.Slot, "grant", c.grant.Epoch.Grant),
		events: make(chan event, eventQueue), gone: make(chan struct{}),
	}
	a.out = s.storage.Open(job.Broadcast, job.Channel, c.grant)
	defer a.out.Close()
	s.metrics.broadcasts.Inc()
	defer s.metrics.broadcasts.Dec()
	a.log.Info("working on the broadcast", "live", c.grant.Live, "backfill", c.grant.Backfill)
	err = a.run(ctx)
	s.leave(a)
	return err
}

// run works until all is made, or until somebody else has the slot.
func (a *assignment) run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer func() { a.service.budget.Release(a.live) }() // once it reserves no more
	defer beside.Wait()
	defer a.claim.close()
	defer a.cancel(nil)

	caughtUp, restored := make(chan struct{}), make(chan struct{})
	if a.grant.Index {
		a.earlier = newEarlier()
	}
	a.live = a.newWorker(encode.Config{
		From: a.grant.Live, Publish: liveOutput{a.out}, Pool: a.service.warm,
		// The worker doesn't wait until that is taken: what takes it may wait for the worker.
		Lost:     func(err error) { beside.Go(func() { a.tell(ctx, event{kind: eventLogLost, err: err}) }) },
		CaughtUp: func() { close(caughtUp) },
	})
	beside.Go(func() {
		err := a.live.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
			return a.service.readLog(ctx, a.job, a.grant.Live, out)
		})
		a.tell(ctx, event{kind: eventWorkerDone, err: err, ended: a.live.Ended()})
	})
	a.service.enter(a)
	beside.Go(func() {
		defer close(restored)
		if a.grant.Index {
			a.service.restore(ctx, a.job.Broadcast, a.out, a.earlier, a.log)
		}
	})
	if a.grant.Backfill < a.grant.Live {
		beside.Go(func() { a.backfill(ctx, caughtUp, restored) })
	}
	answered := make(chan struct{})
	beside.Go(func() {
		defer close(answered)
		a.followClaim(ctx)
	})
	reporting, stopReporting := context.WithCancel(ctx)
	defer stopReporting()
	reported := make(chan struct{})
	beside.Go(func() {
		defer close(reported)
		a.claim.report(reporting, a.progress)
	})
	err := a.watch(ctx, &beside)
	if err == nil {
		stopReporting()
		a.sayLastWord(ctx, reported, answered)
	}
	return err
}

// sayLastWord sees to it that ingest knows what was reached before the claim ends.
func (a *assignment) sayLastWord(ctx context.Context, reported, answered <-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, lastWord)
	defer cancel()
	select {
	case <-reported:
		a.claim.letGo()
	case <-ctx.Done():
		return // what is stuck isn't heard
	}
	select {
	case <-answered:
	case <-ctx.Done():
	}
}

func (a *assignment) newWorker(c encode.Config) *encode.Worker {
	s := a.service
	c.Grant, c.Slot, c.Started, c.FFmpeg, c.Preset, c.Ladder = a.grant, a.job.Slot, a.started, s.ffmpeg, s.cfg.Preset, s.ladder
	c.Tolerance = s.cfg.Tolerance
	c.Budget, c.Metrics, c.Log = s.budget, s.encoding, a.log
	if a.earlier != nil {
		c.Earlier = a.earlier.get
	}
	return encode.New(c)
}

func (a *assignment) progress() jobs.Progress {
	return jobs.Progress{
		Consumed: a.live.Consumed(), Finished: a.live.Finished(), Safe: a.out.Safe(),
		Leaving: a.leaving.Load(), Shed: a.live.Shed(), Failing: a.live.Failing(), Window: int(a.out.Window().Seconds()),
	}
}

// tell sends the assignment an event. It waits while too many wait already.
func (a *assignment) tell(ctx context.Context, e event) {
	select {
	case a.events <- e:
	case <-a.gone:
	case <-ctx.Done():
	}
}

// followClaim tells what ingest says, and the claim's end.
func (a *assignment) followClaim(ctx context.Context) {
	for {
		order, ok := a.claim.next()
		switch {
		case !ok:
			a.tell(ctx, event{kind: eventClaimBroke})
			return
		case order.End != "":
			a.tell(ctx, event{kind: eventClaimEnded, why: order.End})
		case order.Until > 0:
			a.tell(ctx, event{kind: eventTakenOver, until: order.Until})
		}
	}
}

// watch takes events, and does what follows from them, until the assignment is over.
func (a *assignment) watch(ctx context.Context, beside *sync.WaitGroup) error {
	s := state{reading: true, own: a.grant.Epoch, broadcast: a.job.Broadcast}
	defer func() {
		if !s.since.IsZero() {
			a.service.metrics.detached.Dec()
		}
	}()
	ticks := time.NewTicker(tickInterval)
	defer ticks.Stop()
	for {
		var e event // a tick
		select {
		case e = <-a.events:
		case <-ticks.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for again := true; again; {
			e.at, e.stored = time.Now(), a.out.Safe() >= a.live.Finished()
			var do []action
			if s, do = next(s, e); s.phase == phaseOver {
				return s.result
			}
			again = false
			for _, what := range do {
				if a.perform(ctx, what, s, beside) {
					e, again = event{kind: eventLogMoved}, true
				}
			}
		}
	}
}

// perform does one thing. It reports whether it turned out that the log has moved.
func (a *assignment) perform(ctx context.Context, do action, s state, beside *sync.WaitGroup) (moved bool) {
	switch do.kind {
	case actStopAt:
		a.log.Info("another worker takes over", "until", do.until)
		a.live.StopAt(ctx, do.until)
	case actEndAtPause:
		return a.live.Moved(ctx)
	case actDrop:
		switch {
		case do.err != nil:
			a.log.Warn(do.why, "err", do.err)
		case do.why != "":
			a.log.Warn(do.why)
		}
		a.live.Drop(ctx)
	case actTellDetached:
		a.service.metrics.detached.Inc()
		a.log.Warn("the connection to the ingest broke; the open segment is kept for whoever goes on", "relay", s.reading)
	case actAnnouncePause:
		a.live.Pause(ctx)
	case actLook:
		// A Redis that is away must not hold up what else happens.
		beside.Go(func() { a.tell(ctx, event{kind: eventLooked, found: a.look(ctx)}) })
	case actEndBroadcast:
		a.log.Info("nobody went on with the broadcast: it ends")
		if _, ok := a.closeShort(ctx, true); !ok {
			a.live.Drop(ctx) // nothing was read
		}
	}
	return false
}

func (s *Service) readLog(ctx context.Context, job jobs.Job, from uint64, out chan<- relay.Entry) error {
	ingest, err := s.ingestOf(job)
	if err != nil {
		return fmt.Errorf("read relay: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ingest+relay.Path(job.Broadcast, from), nil)
	if err != nil {
		return fmt.Errorf("read relay: %w", err)
	}
	l, err := logread.Open(s.client, req)
	if err != nil {
		return err
	}
	return l.Run(ctx, out)
}

// over reports whether the assignment is over.
func (a *assignment) over() bool {
	select {
	case <-a.gone:
		return true
	default:
		return false
	}
}

var errSuperseded = errors.New("this worker was granted the broadcast again")
