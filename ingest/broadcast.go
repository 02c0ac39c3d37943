package ingest

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"millrace/ingest/timeline"
	"millrace/internal/credentials"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/relay"
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

var (
	errEnded = errors.New("the broadcast has ended")
	errBusy  = errors.New("the broadcast has a publisher that may have fallen silent")
)

// broadcast is one live session of a channel, across reconnects. What comes in
// is its source's, who works on it is its workers'. Each has a lock of its own:
// where both are needed, the source's is taken first.
type broadcast struct {
	service *Service
	id      string
	channel string
	epoch   uint64
	started time.Time
	logger  *slog.Logger
	log     *timeline.Log
	done    chan struct{} // closed when the log is given up
	wake    chan struct{} // something to look at before the next tick
	notes   chan struct{} // slots changed hands

	source  source
	workers workers
}

// newBroadcast makes the broadcast of a lease. With before not nil it goes on
// from there.
func newBroadcast(s *Service, rights credentials.Channel, r lease.Record, before *relay.Handoff) *broadcast {
	b := &broadcast{
		service: s, id: r.Broadcast, channel: rights.Name, epoch: r.Epoch, started: r.Started,
		logger: s.cfg.Log.With("channel", rights.Name, "broadcast", r.Broadcast),
		log:    timeline.NewLog(s.cfg.LogBytes),
		done:   make(chan struct{}), wake: make(chan struct{}, 1), notes: make(chan struct{}, 1),
	}
	b.source = source{life: life{lost: time.Now()}, rights: rights, grace: s.grace(rights), format: r.Format, width: r.Width, height: r.Height, universal: r.Universal, picture: r.Picture}
	b.source.seq = timeline.NewSequencer(r.Epoch, b.write)
	b.workers.orders = map[*claim]chan jobs.Order{}
	b.workers.slots = newSlots(s.redundancy(rights), r.Epoch, before)
	if before != nil {
		b.source.life.phase = reconnecting
		b.source.seq.Resume(*before)
	}
	return b
}

// write puts an entry into the log. The workers' slots pass a mark as it gets
// there. The caller holds the source's lock.
func (b *broadcast) write(e relay.Entry) {
	put := func() {
		if err := b.log.Append(e); err != nil {
			b.logger.Error("an entry is missing in the log", "err", err)
		}
	}
	if e.Mark == nil {
		put()
		return
	}
	b.change(func(s *slots) outcome {
		put()
		return s.pass(*e.Mark)
	})
	b.wakeUp()
}

// enter moves the broadcast to another phase, which the slots are told. Workers
// have the time keep from then on, at most. It reports whether the event changed
// anything. The caller holds the source's lock.
func (b *broadcast) enter(e event, now time.Time, keep time.Duration) bool {
	l := &b.source.life
	if !l.enter(e, now, keep) {
		return false
	}
	b.change(func(s *slots) outcome {
		s.phase = l.phase
		return outcome{wake: true}
	})
	return true
}

func (b *broadcast) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run keeps the lease, finds workers and watches the grace period, until the
// broadcast is over here and its workers are done.
func (b *broadcast) run(ctx context.Context) {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	var redisWork sync.WaitGroup
	defer redisWork.Wait()
	// Redis may be slow or away: it must not hold up the claims.
	renewals := make(chan lease.Record, 1)
	offers := make(chan int, 4)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	redisWork.Go(func() { b.renewer(ctx, renewals) })
	redisWork.Go(func() { b.offerer(ctx, offers) })
	redisWork.Go(func() { b.noter(ctx) })
	defer close(renewals)
	defer close(offers)

	var renewed time.Time
	var last lease.Record
	for {
		now := time.Now()
		record, over := b.step(now)
		if record.State == lease.Ended || record.State == stateMoved {
			b.service.forgetChannel(b)
		}
		due := now.Sub(renewed) >= renewInterval || record.State != last.State ||
			record.Handoff.Mark.Sequence != last.Handoff.Mark.Sequence || record.Handoff.Settings != last.Handoff.Settings
		if due && record.State != stateMoved {
			select {
			case renewals <- record:
				renewed, last = now, record
			default: // the one before is still under way
			}
		}
		if over || ctx.Err() != nil {
			if record.State != stateMoved { // this is the last word
				select {
				case renewals <- record:
				case <-time.After(redisTimeout):
				}
			}
			break
		}
		for _, n := range b.look(now) {
			select {
			case offers <- n:
			default: // offered again in a second
			}
		}
		select {
		case <-tick.C:
		case <-b.wake:
		case <-ctx.Done():
		}
	}
	b.leave()
}

// step looks at the time: what the record in Redis should say, and whether all is over.
func (b *broadcast) step(now time.Time) (r lease.Record, over bool) {
	s := &b.source
	s.mu.Lock()
	defer s.mu.Unlock()
	switch p := s.publisher; {
	case s.life.phase.over():
	case p != nil:
		s.seq.Tick(now)
		if r := p.overdue(now); r != nil {
			p.end(*r)
		}
		p.askForKeyframe(now)
	case now.Sub(s.life.lost) >= s.grace:
		b.endLocked("the publisher didn't come back")
	}
	r = b.record(now)
	return r, s.life.phase.over() && b.wrapUp(s.life.givenUp(now))
}

// leave gives up the log.
func (b *broadcast) leave() {
	b.source.mu.Lock()
	phase := b.source.life.phase
	b.source.mu.Unlock()
	switch {
	case phase.hasEnded():
		b.endClaims(overEnded)
	case phase.hasMoved():
		b.endClaims(overMoved)
	}
	close(b.done)
	b.service.forget(b)
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
	if s.broadcasts[b.id] == b { // it may have come back to this ingest
		delete(s.broadcasts, b.id)
	}
	s.metrics.broadcasts.Dec()
}
