package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/seal"
)

// workers is the side of a broadcast on which it is worked on. Nothing under its
// lock waits for anything.
type workers struct {
	mu     sync.Mutex // guards what follows
	slots  slots
	orders map[*claim]chan jobs.Order // to the claims that have a connection
}

// change lets f change the slots, and does what comes of it.
func (b *broadcast) change(f func(*slots) outcome) {
	w := &b.workers
	w.mu.Lock()
	out := f(&w.slots)
	for _, o := range out.orders {
		select {
		case w.orders[o.claim] <- o.say:
		default: // its connection is over, or it has been told of its end
		}
	}
	w.mu.Unlock()
	for _, n := range out.news {
		b.tell(n)
	}
	if out.note {
		b.noteSlots()
	}
	if out.wake {
		b.wakeUp()
	}
}

// tell logs and counts what happened to a slot.
func (b *broadcast) tell(n news) {
	m := &b.service.metrics
	log := b.logger.With("slot", n.slot)
	switch n.kind {
	case handedOver:
		m.handovers.WithLabelValues("done").Inc()
		log.Info("a worker has handed over", "from", n.claim.address, "to", n.to.address, "segment", n.segment)
	case successorLost:
		m.handovers.WithLabelValues("successor_lost").Inc()
	case workerLost:
		m.handovers.WithLabelValues("worker_lost").Inc()
	case wantsToLeave:
		log.Info("a worker wants to leave", "worker", n.claim.address)
	case fellSilent:
		m.claimsLost.WithLabelValues("silent").Inc()
		log.Warn("worker is silent, its claim ends", "worker", n.claim.address)
	case notStored:
		log.Warn("segments were not stored and can't be made again", "from", n.from, "to", n.segment)
	}
}

// grant gives a slot to a worker. What it is to be told comes through orders, of
// which one with End is the last.
func (b *broadcast) grant(n int, address seal.Address, now time.Time) (c *claim, orders <-chan jobs.Order, g jobs.Grant, err error) {
	b.change(func(s *slots) (out outcome) {
		if c, g, out, err = s.grant(n, address, b.log.Oldest(), now); err == nil {
			line := make(chan jobs.Order, 4)
			b.workers.orders[c], orders = line, line
		}
		return out
	})
	return c, orders, g, err
}

// report notes a claim's progress.
func (b *broadcast) report(n int, c *claim, p jobs.Progress, now time.Time) {
	b.change(func(s *slots) outcome { return s.report(n, c, p, now) })
}

// release ends a claim whose connection is over.
func (b *broadcast) release(n int, c *claim, now time.Time) (early bool) {
	b.change(func(s *slots) (out outcome) {
		delete(b.workers.orders, c)
		early, out = s.release(n, c, now)
		return out
	})
	return early
}

// look ends claims without progress and returns the slots that need a worker.
func (b *broadcast) look(now time.Time) (offer []int) {
	b.change(func(s *slots) (out outcome) {
		offer, out = s.look(b.log.Oldest(), now)
		return out
	})
	return offer
}

// wrapUp ends claims of a broadcast that is over as they come to their end, and
// reports whether no worker is needed any more.
func (b *broadcast) wrapUp(noTime bool) (done bool) {
	b.change(func(s *slots) (out outcome) {
		done, out = s.wrapUp(noTime)
		return out
	})
	return done
}

// endClaims tells every worker why its claim ends.
func (b *broadcast) endClaims(reason string) {
	b.change(func(s *slots) outcome { return s.endClaims(reason) })
}

// shed is how many rungs viewers miss.
func (b *broadcast) shed() int {
	b.workers.mu.Lock()
	defer b.workers.mu.Unlock()
	return b.workers.slots.shed()
}

// window is how far viewers can seek back, in seconds, where there is no room for
// more; 0: as far as ever.
func (b *broadcast) window() int {
	b.workers.mu.Lock()
	defer b.workers.mu.Unlock()
	return b.workers.slots.window()
}

// failing reports whether viewers get no rungs, since processes die of what is sent.
func (b *broadcast) failing() bool {
	b.workers.mu.Lock()
	defer b.workers.mu.Unlock()
	return b.workers.slots.failing()
}

// unclaimed is how many slots need a worker and have none, and whether those are all.
func (b *broadcast) unclaimed() (n int, all bool) {
	b.workers.mu.Lock()
	defer b.workers.mu.Unlock()
	return b.workers.slots.unclaimed()
}

// holders says which worker edges should follow in each slot.
func (b *broadcast) holders() map[int]jobs.Slot {
	b.workers.mu.Lock()
	defer b.workers.mu.Unlock()
	return b.workers.slots.holders()
}

// offerer puts jobs into the queue.
func (b *broadcast) offerer(ctx context.Context, offers <-chan int) {
	for n := range offers {
		doc, err := json.Marshal(jobs.Job{Broadcast: b.id, Channel: b.channel, Slot: n, Ingest: b.service.self(b.channel)})
		if err == nil {
			rctx, cancel := context.WithTimeout(ctx, redisTimeout)
			err = offer(rctx, b.service.cfg.Redis, doc)
			cancel()
		}
		if err != nil && ctx.Err() == nil {
			b.logger.Warn("the broadcast can't be offered to workers; trying again", "slot", n, "err", err)
		}
	}
}

// offer adds a job to the queue, and makes the workers' group in the same
// breath: a Redis that lost its memory has both.
func offer(ctx context.Context, db redis.UniversalClient, doc []byte) error {
	var added *redis.StringCmd
	_, _ = db.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.XGroupCreateMkStream(ctx, jobs.Stream, jobs.Group, "0") // mostly it exists
		added = p.XAdd(ctx, &redis.XAddArgs{
			Stream: jobs.Stream, MaxLen: jobs.MaxOffers, Approx: true,
			Values: map[string]any{jobs.Field: doc},
		})
		return nil
	})
	return added.Err()
}

// slotsInterval is how often slots are noted again: a Redis that lost them has
// them back by then.
const slotsInterval = 5 * time.Second

// noteSlots has edges told of the slots.
func (b *broadcast) noteSlots() {
	select {
	case b.notes <- struct{}{}:
	default:
	}
}

// noter tells edges who holds the slots, until ctx ends.
func (b *broadcast) noter(ctx context.Context) {
	told := map[int]jobs.Slot{}
	again := time.NewTimer(slotsInterval)
	defer again.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.notes:
		case <-again.C:
			clear(told)
		}
		failed := false
		for n, s := range b.holders() {
			if told[n] == s {
				continue
			}
			rctx, cancel := context.WithTimeout(ctx, redisTimeout)
			err := lease.SetSlot(rctx, b.service.cfg.Redis, b.id, n, s)
			cancel()
			if err == nil || errors.Is(err, lease.ErrLost) { // the renewal says what to do
				told[n] = s
				continue
			}
			if failed = true; !failing && ctx.Err() == nil {
				b.logger.Warn("edges can't be told of the worker yet", "slot", n, "err", err)
			}
		}
		failing = failed
		if failing {
			again.Reset(renewInterval)
		} else {
			again.Reset(slotsInterval)
		}
	}
}
