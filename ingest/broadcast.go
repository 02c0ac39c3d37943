package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/ingest/front"
	"millrace/ingest/timeline"
	"millrace/internal/credentials"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/rate"
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

// broadcast is one live session of a channel, across reconnects.
type broadcast struct {
	// immutable
	service *Service
	id      string
	channel string
	epoch   uint64
	started time.Time
	resumed bool // an ingest before this one began it
	logger  *slog.Logger
	log     *timeline.Log
	done    chan struct{} // closed when the log is given up
	wake    chan struct{} // something to look at before the next tick
	notes   chan struct{} // slots changed hands

	mu            sync.Mutex // guards what follows
	seq           *timeline.Sequencer
	slots         []slot
	grants        uint64      // of all slots: no two under a lease have one number
	reaped        time.Time   // when claims were last looked at
	breaks, flow  rate.Bucket // of discontinuities that publishers make, and of bytes they send
	publisher     *publisher  // nil while none is connected
	seen          bool        // a publisher has been here before
	lost          time.Time   // when the publisher went
	grace         time.Duration
	width, height int       // of the pictures
	ended         time.Time // zero while it goes on
	moved         time.Time // when another ingest took it over
	stopping      time.Time // when this ingest began to stop
	drained       bool      // no worker is needed any more
}

// newBroadcast makes the broadcast of a lease. With before not nil it goes on
// from there.
func newBroadcast(s *Service, rights credentials.Channel, r lease.Record, before *relay.Carry) *broadcast {
	b := &broadcast{
		service: s, id: r.Broadcast, channel: rights.Name, epoch: r.Epoch, started: r.Started,
		resumed: before != nil, seen: before != nil,
		logger: s.cfg.Log.With("channel", rights.Name, "broadcast", r.Broadcast),
		log:    timeline.NewLog(s.cfg.LogBytes),
		done:   make(chan struct{}), wake: make(chan struct{}, 1), notes: make(chan struct{}, 1),
		slots: make([]slot, s.redundancy(rights)), grace: s.grace(rights),
		lost: time.Now(), width: r.Width, height: r.Height,
	}
	b.seq = timeline.NewSequencer(r.Epoch, func(e timeline.Entry) {
		if err := b.log.Append(e); err != nil {
			b.logger.Error("an entry is missing in the log", "err", err)
		}
		if e.Mark != nil {
			b.passMark()
			b.wakeUp()
		}
	})
	if before != nil {
		b.seq.Resume(*before)
		for i := range b.slots {
			b.slots[i].progress = jobs.Progress{Finished: before.Mark.Sequence, Safe: before.Mark.Sequence}
		}
	}
	return b
}

func (b *broadcast) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// attach makes who asked at arrived the broadcast's publisher. errBusy means
// that the one there has sent nothing since: ask again.
func (b *broadcast) attach(req front.Request, rights credentials.Channel, arrived, now time.Time) (*publisher, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended.IsZero() || !b.moved.IsZero() {
		return nil, errEnded
	}
	if !b.stopping.IsZero() {
		return nil, refusalStopping
	}
	if old := b.publisher; old != nil {
		switch {
		case old.last.After(arrived):
			return nil, refusalBusy
		case now.Sub(old.last) < takeoverSilence:
			return nil, errBusy
		}
		b.logger.Info("the publisher is silent and another one takes over", "remote", req.Remote)
		old.end(front.Refusal{Kind: front.Busy, Reason: front.TakenOver, Text: "Another encoder took over, since this one had sent nothing for 2 s."})
		b.detach()
	}
	b.grace = b.service.grace(rights)
	p := &publisher{broadcast: b, end: req.End, last: now, keyframe: now, logger: b.logger.With("remote", req.Remote)}
	b.publisher = p
	b.service.metrics.publishers.Inc()
	b.seq.Attach(b.seen)
	p.logger.Info("publisher connected", "encoder", req.Encoder, "reconnect", b.seen)
	b.seen = true
	b.wakeUp()
	return p, nil
}

// detach notes that the publisher is gone. The caller holds mu.
func (b *broadcast) detach() {
	now := time.Now()
	b.lost = now
	if last := b.publisher.last; now.Sub(last) >= takeoverSilence {
		b.lost = last
	}
	b.publisher.clearProblems()
	b.publisher = nil
	b.service.metrics.publishers.Dec()
	if b.ended.IsZero() {
		b.seq.Pause()
	}
	b.wakeUp()
}

// reconnecting reports whether the broadcast waits for its publisher.
func (b *broadcast) reconnecting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.over() && b.lostSince(time.Now()) != time.Time{}
}

// lostSince is when the publisher went, or fell silent: its connection may
// stand for long after the network is gone. The caller holds mu.
func (b *broadcast) lostSince(now time.Time) time.Time {
	switch p := b.publisher; {
	case p == nil:
		return b.lost
	case now.Sub(p.last) >= takeoverSilence:
		return p.last
	}
	return time.Time{}
}

// end closes the broadcast.
func (b *broadcast) end(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dismiss(front.Refusal{Kind: front.Failed, Reason: front.Ended, Text: "The broadcast has ended: " + reason + "."})
	b.endLocked(reason)
}

func (b *broadcast) endLocked(reason string) {
	if !b.ended.IsZero() || !b.moved.IsZero() {
		return
	}
	b.seq.Finish()
	b.ended = time.Now()
	b.logger.Info("broadcast ended", "reason", reason, "duration", time.Since(b.started).Round(time.Second), "segments", b.segments())
	b.wakeUp()
}

// segments is how many segments there are, but for one that is open. The caller
// holds mu.
func (b *broadcast) segments() uint64 {
	m, _ := b.seq.Mark()
	return m.Sequence
}

// dismiss ends the publisher's connection, which closes the open segment. The
// caller holds mu.
func (b *broadcast) dismiss(why front.Refusal) {
	if b.publisher == nil {
		return
	}
	b.publisher.end(why)
	b.detach()
}

// stop closes the open segment, since this ingest goes; another one may go on.
func (b *broadcast) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dismiss(*refusalStopping)
	b.stopping = time.Now()
	b.wakeUp()
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
			record.Carry.Mark.Sequence != last.Carry.Mark.Sequence || record.Carry.Settings != last.Carry.Settings
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
		}
	}
	b.leave()
}

// stateMoved is the state of a broadcast that another ingest has: Redis says
// what that one says.
const stateMoved lease.State = "moved"

// step looks at the time: what the record in Redis should say, and whether all is over.
func (b *broadcast) step(now time.Time) (r lease.Record, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch p := b.publisher; {
	case b.over():
	case p != nil:
		b.seq.Tick(now)
		if r := p.overdue(now); r != nil {
			p.end(*r)
		}
	case now.Sub(b.lost) >= b.grace:
		b.endLocked("the publisher didn't come back")
	}
	settings, _ := b.seq.Settings()
	r = lease.Record{
		Broadcast: b.id, Epoch: b.epoch, Ingest: b.service.cfg.Advertise, Started: b.started, Grace: b.grace,
		Lost: b.lostSince(now), Width: b.width, Height: b.height, FrameRate: settings.FrameRate,
		Carry: b.seq.Carry(),
	}
	if b.publisher != nil {
		r.Silent, r.Health = now.Sub(b.publisher.last), b.publisher.advice()
	}
	switch {
	case !b.moved.IsZero():
		r.State = stateMoved
	case !b.ended.IsZero():
		r.State = lease.Ended
	case !r.Lost.IsZero():
		r.State = lease.Reconnecting
	default:
		r.State = lease.Live
	}
	if !b.over() {
		return r, false
	}
	b.drained = b.finish()
	for _, t := range []time.Time{b.ended, b.moved} {
		b.drained = b.drained || !t.IsZero() && now.Sub(t) >= drainTime
	}
	if !b.stopping.IsZero() {
		b.drained = b.drained || b.abandoned() || now.Sub(b.stopping) >= b.service.cfg.Finish
	}
	return r, b.drained
}

// abandoned reports whether no worker is left. The caller holds mu.
func (b *broadcast) abandoned() bool {
	for i := range b.slots {
		if len(b.slots[i].all()) > 0 {
			return false
		}
	}
	return true
}

// leave gives up the log.
func (b *broadcast) leave() {
	b.mu.Lock()
	ended, moved := !b.ended.IsZero(), !b.moved.IsZero()
	b.mu.Unlock()
	switch {
	case ended:
		b.endClaims(overEnded)
	case moved:
		b.endClaims(overMoved)
	}
	close(b.done)
	b.service.forget(b)
}

// renewer writes the newest record to Redis. A higher epoch there takes the
// broadcast away.
func (b *broadcast) renewer(ctx context.Context, records <-chan lease.Record) {
	ctx = context.WithoutCancel(ctx) // the last record says that it has ended
	failing := false
	for r := range records {
		rctx, cancel := context.WithTimeout(ctx, redisTimeout)
		err := lease.Renew(rctx, b.service.cfg.Redis, b.channel, r)
		if errors.Is(err, lease.ErrLost) {
			b.lostLease(rctx)
			err = nil
		}
		cancel()
		switch {
		case err != nil && !failing:
			b.logger.Warn("the lease can't be renewed; the broadcast goes on", "err", err)
		case err == nil && failing:
			b.logger.Info("the lease is renewed again")
		}
		failing = err != nil
	}
}

// lostLease finds out what another ingest made of the channel.
func (b *broadcast) lostLease(ctx context.Context) {
	r, err := lease.Read(ctx, b.service.cfg.Redis, b.channel)
	switch {
	case err != nil: // the next renewal tells again
	case r.Broadcast == b.id:
		b.mu.Lock()
		defer b.mu.Unlock()
		b.move(r.Ingest)
	default:
		b.end("another ingest began another broadcast of the channel")
	}
}

// offerer puts jobs into the queue.
func (b *broadcast) offerer(ctx context.Context, offers <-chan int) {
	for n := range offers {
		doc, err := json.Marshal(jobs.Job{Broadcast: b.id, Channel: b.channel, Slot: n, Ingest: b.service.cfg.Advertise})
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
