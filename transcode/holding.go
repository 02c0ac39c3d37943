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
	// relayDoubt is how long after the relay broke it is waited for what
	// becomes of the claim: with an ingest that died both end.
	relayDoubt = 500 * time.Millisecond
	// lastWord is how long the last report before a claim is closed may take.
	lastWord = 500 * time.Millisecond
	// lastMarks is how long the log may go on after ingest has ended a claim: it
	// comes by another connection, and may be late with its end mark.
	lastMarks = time.Second
)

// holding is a slot of a broadcast as this worker has it: from the grant until
// all that the worker makes of it is published.
type holding struct {
	service *Service
	job     jobs.Job
	grant   jobs.Grant
	started time.Time
	claim   *claim
	pub     *storage.Writer
	live    *encode.Worker
	log     *slog.Logger
	cancel  context.CancelCauseFunc
	gone    chan struct{} // closed when it is over
	leaving atomic.Bool
	earlier *earlier // nil when there was no earlier worker

	closing sync.Mutex
	carry   *relay.Handoff // what was answered to /close
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
	h := &holding{
		service: s, job: job, grant: c.grant, started: time.Now(), claim: c, cancel: cancel,
		log: log.With("slot", job.Slot, "grant", c.grant.Epoch.Grant), gone: make(chan struct{}),
	}
	h.pub = s.storage.Open(job.Broadcast, c.grant)
	defer h.pub.Close()
	s.metrics.broadcasts.Inc()
	defer s.metrics.broadcasts.Dec()
	h.log.Info("working on the broadcast", "live", c.grant.Live, "backfill", c.grant.Backfill)
	err = h.run(ctx)
	s.leave(h)
	return err
}

// run works until all is made, or until somebody else has the slot.
func (h *holding) run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer func() { h.service.budget.Release(h.live) }() // once it reserves no more
	defer beside.Wait()
	defer h.claim.close()
	defer h.cancel(nil)

	lost, made, caughtUp := make(chan error, 1), make(chan error, 1), make(chan struct{})
	restored := make(chan struct{})
	if h.grant.Index {
		h.earlier = newEarlier()
	}
	h.live = h.newWorker(encode.Config{
		From: h.grant.Live, Publish: liveOutput{h.pub}, Warm: h.service.warm,
		Lost: func(err error) { lost <- err }, CaughtUp: func() { close(caughtUp) },
	})
	beside.Go(func() {
		made <- h.live.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
			return h.service.readLog(ctx, h.job, h.grant.Live, out)
		})
	})
	h.service.enter(h)
	beside.Go(func() {
		defer close(restored)
		if h.grant.Index {
			h.service.restore(ctx, h.job.Broadcast, h.pub, h.earlier, h.log)
		}
	})
	if h.grant.Backfill < h.grant.Live {
		beside.Go(func() { h.backfill(ctx, caughtUp, restored) })
	}
	orders, answered := make(chan jobs.Order, 1), make(chan struct{})
	beside.Go(func() {
		defer close(answered)
		h.claim.await(ctx, orders)
	})
	reporting, stopReporting := context.WithCancel(ctx)
	defer stopReporting()
	reported := make(chan struct{})
	beside.Go(func() {
		defer close(reported)
		h.claim.report(reporting, h.progress)
	})
	err := h.watch(ctx, made, lost, orders)
	if err == nil {
		// Ingest should know what was reached before the claim ends.
		stopReporting()
		patience := time.NewTimer(lastWord)
		defer patience.Stop()
		select {
		case <-reported:
			h.claim.letGo()
		case <-patience.C:
		}
		select {
		case <-answered:
		case <-patience.C:
		}
	}
	return err
}

func (h *holding) newWorker(c encode.Config) *encode.Worker {
	s := h.service
	c.Grant, c.Slot, c.Started, c.FFmpeg, c.Preset, c.Ladder = h.grant, h.job.Slot, h.started, s.ffmpeg, s.cfg.Preset, s.ladder
	c.Budget, c.Metrics, c.Log = s.budget, s.encoding, h.log
	if h.earlier != nil {
		c.Earlier = h.earlier.get
	}
	return encode.New(c)
}

func (h *holding) progress() jobs.Progress {
	return jobs.Progress{
		Consumed: h.live.Consumed(), Finished: h.live.Finished(), Safe: h.pub.Safe(),
		Leaving: h.leaving.Load(), Shed: h.live.Shed(),
	}
}

// watch waits until the work is done, and follows what ingest says until then.
func (h *holding) watch(ctx context.Context, made, lost <-chan error, orders <-chan jobs.Order) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var result, broken error
	var brokenAt, endedAt time.Time
	var alone orphan
	claimed, reading, complete, handed, dropped := true, true, false, false, false
	defer func() { alone.end(h) }()
	for {
		select {
		case err := <-made:
			if err != nil {
				return err
			}
			complete = true
			if h.live.Ended() {
				result = nil
			}
		case o, ok := <-orders:
			switch {
			case !ok:
				claimed, orders = false, nil
			case o.End != "" && complete:
				return result
			case o.End != "":
				claimed, orders = false, nil
				result, endedAt = fmt.Errorf("ingest ended the claim: %s", o.End), time.Now()
			case o.Until > 0:
				handed = true
				h.log.Info("another worker takes over", "until", o.Until)
				h.live.StopAt(ctx, o.Until)
			}
		case broken = <-lost:
			reading, brokenAt = false, time.Now()
			if errors.Is(broken, logread.ErrEnded) {
				handed = h.live.Moved(ctx) || handed
			}
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		switch {
		case complete && !claimed:
			return result
		case complete && (handed || h.isClosed()):
			if h.pub.Safe() >= h.live.Finished() {
				return nil
			}
		case !complete && !dropped && result != nil && (!reading || time.Since(endedAt) > lastMarks):
			dropped = true
			h.live.Drop(ctx)
		case complete, handed, result != nil, h.isClosed():
			// It ends by itself, or ingest ends it.
		case claimed && !reading && time.Since(brokenAt) > relayDoubt:
			return broken
		case !claimed:
			if err := alone.look(ctx, h, reading); err != nil {
				return err
			}
		}
	}
}

func (s *Service) readLog(ctx context.Context, job jobs.Job, from uint64, out chan<- relay.Entry) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, job.Ingest+relay.Path(job.Broadcast, from), nil)
	if err != nil {
		return fmt.Errorf("read relay: %w", err)
	}
	s.cfg.Secret.Authorize(req)
	l, err := logread.Open(s.client, req)
	if err != nil {
		return err
	}
	return l.Run(ctx, out)
}

// enter notes what this worker has. Of the same lease it has one thing only:
// an earlier grant was given up by ingest.
func (s *Service) enter(h *holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range s.holdings[h.job.Broadcast] {
		if old.grant.Epoch.Lease == h.grant.Epoch.Lease {
			old.cancel(errSuperseded)
		}
	}
	s.holdings[h.job.Broadcast] = append(s.holdings[h.job.Broadcast], h)
}

var errSuperseded = errors.New("this worker was granted the broadcast again")

// leave notes that h is over. What it answered to /close can be asked for a
// while longer.
func (s *Service) leave(h *holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(h.gone)
	for id, all := range s.holdings {
		kept := all[:0]
		for _, old := range all {
			if !old.over() || old.isClosed() && time.Since(old.closed) < storage.ForgetAfter {
				kept = append(kept, old)
			}
		}
		if s.holdings[id] = kept; len(kept) == 0 {
			delete(s.holdings, id)
		}
	}
}

func (h *holding) over() bool {
	select {
	case <-h.gone:
		return true
	default:
		return false
	}
}

// held returns what this worker has now.
func (s *Service) held() (all []*holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range s.holdings {
		for _, h := range list {
			if !h.over() {
				all = append(all, h)
			}
		}
	}
	return all
}

// holds reports whether this worker works on a broadcast.
func (s *Service) holds(broadcast string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.holdings[broadcast]) > 0
}
