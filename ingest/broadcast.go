package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/media"
)

const (
	// renewInterval is how often the lease is renewed.
	renewInterval = time.Second
	// tickInterval is how often claims, grace and waiting tracks are looked at.
	tickInterval = 100 * time.Millisecond
	// drainTime is how long the log outlives the broadcast's end for workers to finish.
	drainTime = 60 * time.Second
	// redisTimeout bounds one exchange with Redis.
	redisTimeout = 2 * time.Second
)

var errEnded = errors.New("the broadcast has ended")

// broadcast is one live session of a channel, across reconnects.
type broadcast struct {
	// immutable
	service *Service
	id      string
	channel string
	epoch   uint64
	started time.Time
	logger  *slog.Logger
	log     *log
	done    chan struct{} // closed when the log is given up
	wake    chan struct{} // something to look at before the next tick

	mu        sync.Mutex // guards what follows
	seq       *sequencer
	slots     []slot
	publisher *publisher // nil while none is connected
	seen      bool       // a publisher has been here before
	lost      time.Time  // when the publisher went
	ended     time.Time  // zero while it goes on
	drained   bool       // no worker is needed any more
	video     *media.AVCConfig
}

func newBroadcast(s *Service, channel string, r lease.Record) *broadcast {
	b := &broadcast{
		service: s, id: r.Broadcast, channel: channel, epoch: r.Epoch, started: r.Started,
		logger: s.cfg.Log.With("channel", channel, "broadcast", r.Broadcast),
		log:    newLog(s.cfg.LogBytes),
		done:   make(chan struct{}), wake: make(chan struct{}, 1),
		slots: make([]slot, 1),
		lost:  time.Now(),
	}
	b.seq = newSequencer(r.Epoch, func(e entry) {
		if err := b.log.append(e); err != nil {
			b.logger.Error("an entry is missing in the log", "err", err)
		}
	})
	return b
}

func (b *broadcast) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// attach makes p the broadcast's publisher.
func (b *broadcast) attach(req publishRequest, now time.Time) (*publisher, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended.IsZero() {
		return nil, errEnded
	}
	if old := b.publisher; old != nil {
		if now.Sub(old.last) < takeoverSilence {
			return nil, refusalBusy
		}
		b.logger.Info("the publisher is silent and another one takes over", "remote", req.Remote)
		old.close(Refusal{Code: codePublishBadName, Reason: "taken_over", Description: "Another encoder took over, since this one had sent nothing for 2 s."})
		b.detach()
	}
	p := &publisher{broadcast: b, close: req.Close, last: now, keyframe: now, logger: b.logger.With("remote", req.Remote)}
	b.publisher = p
	b.service.metrics.publishers.Inc()
	b.seq.attach(b.seen)
	p.logger.Info("publisher connected", "encoder", req.Encoder, "reconnect", b.seen)
	b.seen = true
	b.wakeUp()
	return p, nil
}

// detach notes that the publisher is gone. The caller holds mu.
func (b *broadcast) detach() {
	b.publisher.clearProblems()
	b.publisher = nil
	b.service.metrics.publishers.Dec()
	b.lost = time.Now()
	if b.ended.IsZero() {
		b.seq.pause()
	}
	b.wakeUp()
}

// reconnecting reports whether the broadcast waits for its publisher.
func (b *broadcast) reconnecting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.publisher == nil && b.ended.IsZero()
}

// end closes the broadcast.
func (b *broadcast) end(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endLocked(reason)
}

func (b *broadcast) endLocked(reason string) {
	if !b.ended.IsZero() {
		return
	}
	b.seq.finish()
	b.ended = time.Now()
	b.logger.Info("broadcast ended", "reason", reason, "duration", time.Since(b.started).Round(time.Second), "segments", b.seq.mark.Sequence)
	b.wakeUp()
}

// run keeps the lease, finds workers and watches the grace period, until the
// broadcast has ended and its workers are done, or ctx ends.
func (b *broadcast) run(ctx context.Context) {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	var redisWork sync.WaitGroup
	defer redisWork.Wait()
	// Redis may be slow or away: it must not hold up the claims.
	renewals := make(chan lease.Record, 1)
	offers := make(chan int, 4)
	redisWork.Go(func() { b.renewer(ctx, renewals) })
	redisWork.Go(func() { b.offerer(ctx, offers) })
	defer close(renewals)
	defer close(offers)

	var renewed time.Time
	var state lease.State
	for {
		now := time.Now()
		record, over := b.step(now)
		if record.State == lease.Ended {
			b.service.forgetChannel(b)
		}
		if now.Sub(renewed) >= renewInterval || record.State != state {
			select {
			case renewals <- record:
				renewed, state = now, record.State
			default: // the one before is still under way
			}
		}
		if over || ctx.Err() != nil {
			if state != record.State { // that it has ended must be the last word
				select {
				case renewals <- record:
				case <-time.After(redisTimeout):
				}
			}
			break
		}
		for _, n := range b.reapSilent(now) {
			select {
			case offers <- n:
			default: // offered again in a second
			}
		}
		select {
		case <-tick.C:
		case <-b.wake:
		case <-ctx.Done():
			b.end("the ingest shuts down")
		}
	}
	b.leave()
}

// step looks at the time: what the record in Redis should say, and whether all is over.
func (b *broadcast) step(now time.Time) (r lease.Record, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r = lease.Record{
		Broadcast: b.id, Epoch: b.epoch, Ingest: b.service.cfg.Advertise,
		Started: b.started, State: lease.Live, FrameRate: b.seq.settings.FrameRate,
	}
	if b.video != nil {
		r.Width, r.Height = b.video.Width, b.video.Height
	}
	switch p := b.publisher; {
	case !b.ended.IsZero():
	case p != nil:
		b.seq.tick(now)
		if r := p.overdue(now); r != nil {
			p.close(*r)
		}
	case now.Sub(b.lost) >= b.service.cfg.Grace:
		b.endLocked("the publisher didn't come back")
	}
	if b.publisher == nil && b.ended.IsZero() {
		r.State = lease.Reconnecting
	}
	if b.ended.IsZero() {
		return r, false
	}
	r.State = lease.Ended
	end := b.seq.mark.Sequence
	b.drained = true
	for i := range b.slots {
		b.drained = b.drained && b.slots[i].progress.Safe >= end
	}
	b.drained = b.drained || now.Sub(b.ended) >= drainTime
	return r, b.drained
}

// leave gives up the log.
func (b *broadcast) leave() {
	b.endClaims("the broadcast is over")
	close(b.done)
	b.service.forget(b)
}

// renewer writes the newest record to Redis. A higher epoch there ends the broadcast.
func (b *broadcast) renewer(ctx context.Context, records <-chan lease.Record) {
	ctx = context.WithoutCancel(ctx) // the last record says that it has ended
	failing := false
	for r := range records {
		rctx, cancel := context.WithTimeout(ctx, redisTimeout)
		err := lease.Renew(rctx, b.service.cfg.Redis, b.channel, r)
		cancel()
		switch {
		case errors.Is(err, lease.ErrLost):
			b.mu.Lock()
			if b.publisher != nil {
				b.publisher.close(Refusal{Code: codePublishBadName, Reason: "taken_over", Description: "Another encoder publishes to this channel through another server."})
			}
			b.endLocked("another ingest took the channel")
			b.mu.Unlock()
		case err != nil && !failing:
			b.logger.Warn("the lease can't be renewed; the broadcast goes on", "err", err)
		case err == nil && failing:
			b.logger.Info("the lease is renewed again")
		}
		failing = err != nil
	}
}

// offerer puts jobs into the queue.
func (b *broadcast) offerer(ctx context.Context, offers <-chan int) {
	for n := range offers {
		doc, err := json.Marshal(jobs.Job{Broadcast: b.id, Channel: b.channel, Slot: n, Ingest: b.service.cfg.Advertise})
		if err == nil {
			rctx, cancel := context.WithTimeout(ctx, redisTimeout)
			err = b.service.cfg.Redis.XAdd(rctx, &redis.XAddArgs{
				Stream: jobs.Stream, MaxLen: jobs.MaxOffers, Approx: true,
				Values: map[string]any{jobs.Field: doc},
			}).Err()
			cancel()
		}
		if err != nil && ctx.Err() == nil {
			b.logger.Warn("the broadcast can't be offered to workers; trying again", "slot", n, "err", err)
		}
	}
}

// noteSlot tells edges who holds a slot, until it is told or ctx ends.
func (b *broadcast) noteSlot(ctx context.Context, n int, s jobs.Slot) {
	for {
		rctx, cancel := context.WithTimeout(ctx, redisTimeout)
		err := lease.SetSlot(rctx, b.service.cfg.Redis, b.id, n, s)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		b.logger.Warn("edges can't be told of the worker yet", "slot", n, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(renewInterval):
		}
	}
}

// forgetChannel lets the channel begin another broadcast.
func (s *Service) forgetChannel(b *broadcast) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels[b.channel] == b {
		delete(s.channels, b.channel)
	}
}

func (s *Service) forget(b *broadcast) {
	s.forgetChannel(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.broadcasts, b.id)
	s.metrics.broadcasts.Dec()
}
