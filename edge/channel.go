package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/edge/fold"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/seal"
	"millrace/internal/sparselog"
)

const (
	// pollInterval is how often a channel's record is read.
	pollInterval = time.Second
	// hurryInterval is how often it is read while its worker is out of reach, for
	// hurryFor, and searchInterval after that.
	hurryInterval  = 50 * time.Millisecond
	hurryFor       = 2 * time.Second
	searchInterval = 100 * time.Millisecond
	// searchFor bounds how long it is read so often.
	searchFor = 30 * time.Second
	// followFor is how long a channel is followed after the last request.
	followFor = 60 * time.Second
	// overAfter is how long after a grace period a broadcast counts as over that
	// nobody ended.
	overAfter = 30 * time.Second
	// endAfter is how long an ended broadcast may still tell of its end itself.
	endAfter = 3 * time.Second
	// endAnyway is how long its worker may take for that.
	endAnyway = 20 * time.Second
)

var (
	errNotLive = errors.New("the channel is not live")
	errUnknown = errors.New("the channel can't be looked up")
)

// channel follows one channel for as long as somebody asks for it.
type channel struct {
	service *Service
	name    string
	// by is who asked for it first, nil for one without bounds.
	by *caller
	// stop ends run; the service sets it, under its mu, when the channel is admitted.
	stop context.CancelFunc
	// asked is when somebody asked last, in Unix nanoseconds.
	asked atomic.Int64
	// kick wakes run for an early look at Redis.
	kick chan struct{}
	// known is closed when state is there.
	known chan struct{}
	state atomic.Pointer[channelState]
}

// channelState is what is known of a channel at one moment. It is immutable.
type channelState struct {
	// live is the current broadcast; without it err says why there is none.
	live *broadcast
	err  error
	// broadcasts are all that are being served, ended ones too.
	broadcasts map[string]*broadcast
}

func newChannel(s *Service, name string, by *caller) *channel {
	c := &channel{service: s, name: name, by: by, kick: make(chan struct{}, 1), known: make(chan struct{})}
	c.asked.Store(time.Now().UnixNano())
	return c
}

// idle returns for how long nobody has asked for the channel.
func (c *channel) idle() time.Duration { return time.Duration(time.Now().UnixNano() - c.asked.Load()) }

// await waits until the channel's state is known.
func (c *channel) await(ctx context.Context) (*channelState, error) {
	select {
	case <-c.known:
		return c.state.Load(), nil
	case <-c.service.stopped:
		return nil, errStopped
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// following is what a channel's run has in hand. Only run uses it.
type following struct {
	*channel
	log *slog.Logger
	// start begins to follow a broadcast.
	start func(id string, log *slog.Logger) *broadcast
	// served are the broadcasts that are served, by id; current is the live one.
	served  map[string]*broadcast
	current *broadcast
	// record is the channel's newest, as it was at readAt.
	record lease.Record
	readAt time.Time
	faults sparselog.Limiter
}

// run reads the channel's record and follows its broadcasts until nobody asks
// for them any more.
func (c *channel) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	defer func() { _ = group.Wait() }() // its functions return nil
	defer cancel()
	f := &following{
		channel: c, log: c.service.log.With("channel", c.name), served: make(map[string]*broadcast),
		start: func(id string, log *slog.Logger) *broadcast {
			ctx, stop := context.WithCancel(ctx)
			b := newBroadcast(c, id, log, stop)
			group.Go(func() error {
				defer stop()
				b.run(ctx)
				return nil
			})
			return b
		},
	}
	for admitted := false; ; admitted = true {
		now, err := f.look(ctx)
		switch {
		case ctx.Err() != nil:
			c.service.drop(c, nil)
			c.show(nil, errStopped, nil)
			return
		case len(f.served) == 0:
			// Requests that come soon share this answer; the first one after it
			// makes a channel anew.
			c.service.drop(c, err)
			c.show(nil, err, nil)
			return
		case !admitted:
			if err := c.service.admit(c, cancel); err != nil {
				c.service.drop(c, nil)
				c.show(nil, err, nil)
				return
			}
		}
		c.show(f.current, err, f.served)
		if c.service.forget(c, followFor) {
			return
		}
		timer := time.NewTimer(f.interval(now))
		select {
		case <-timer.C:
		case <-c.kick:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// look reads what Redis knows of the channel and deals with it. The error says why nothing is
// live, if nothing is.
func (f *following) look(ctx context.Context) (now time.Time, err error) {
	record, slots, err := f.read(ctx)
	now = time.Now()
	if ctx.Err() != nil {
		return now, errStopped
	}
	switch {
	case errors.Is(err, lease.ErrNone):
		f.noRecord(now)
		err = errNotLive
	case err != nil:
		f.service.metrics.redis.Inc()
		err = fmt.Errorf("%w: %w", errUnknown, err)
		f.faults.Warn(f.log, "channel can't be read from Redis; going on with what is known", err)
	default:
		f.takeRecord(record, slots, now)
		err = errNotLive
	}
	f.retire(now)
	return now, err
}

// noRecord deals with a channel that Redis knows nothing of. A Redis that lost
// its memory ends nothing that goes on.
func (f *following) noRecord(now time.Time) {
	f.record.Age += now.Sub(f.readAt)
	f.readAt = now
	if f.current != nil && isOver(&f.record) && !f.current.alive(now) {
		f.current = nil
	}
}

// takeRecord takes the channel's record and the workers of the broadcast that
// it names.
func (f *following) takeRecord(record lease.Record, slots map[int]worker, now time.Time) {
	f.record, f.readAt = record, now
	over := isOver(&record)
	b := f.served[record.Broadcast]
	if b == nil && (!over || record.State == lease.Ended && record.Age < followFor) && fold.IsName(record.Broadcast) {
		b = f.start(record.Broadcast, f.log)
		f.served[b.id] = b
	}
	if b != nil {
		b.setSlots(slots)
		b.lost.Store(record.State == lease.Reconnecting)
	}
	if !over || b != nil && record.State != lease.Ended && b.alive(now) {
		f.current = b
		return
	}
	if b != nil && b == f.current {
		f.log.Info("broadcast is over", "broadcast", b.id, "state", string(record.State), "age", record.Age)
	}
	f.current = nil
}

// isOver reports whether a broadcast ended, or will never be ended by anybody.
func isOver(r *lease.Record) bool {
	away := r.Age
	if !r.Lost.IsZero() {
		away = max(away, r.Seen.Add(r.Age).Sub(r.Lost))
	}
	return r.State == lease.Ended || away > r.Grace+overAfter
}

// read returns the channel's record and the workers of its broadcast.
func (c *channel) read(ctx context.Context) (lease.Record, map[int]worker, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	db := c.service.cfg.Redis
	record, err := lease.Read(ctx, db, c.name)
	if err != nil {
		return lease.Record{}, nil, err
	}
	slots, err := lease.Slots(ctx, db, record.Broadcast)
	if err != nil {
		return lease.Record{}, nil, err
	}
	return record, c.verified(record.Broadcast, slots), nil
}

// verified returns the workers in slots that are ours. Others are left out:
// whoever can write to Redis must not be asked for media.
func (c *channel) verified(broadcast string, slots map[int]jobs.Slot) map[int]worker {
	ours := make(map[int]worker, len(slots))
	for n, s := range slots {
		if address, err := c.service.cfg.Peers.Open(seal.Worker, broadcast, s.Address); err == nil { // else it was counted
			ours[n] = worker{address, s.Epoch}
		}
	}
	return ours
}

// interval returns how long to wait until the next look at Redis.
func (f *following) interval(now time.Time) time.Duration {
	if f.current != nil {
		switch since, ok := f.current.searching(now); {
		case ok && since < hurryFor:
			return hurryInterval
		case ok:
			return searchInterval
		}
	}
	return pollInterval
}

// retire ends broadcasts that are over, and lets go of those that ended long
// ago or that nobody asks for.
func (f *following) retire(now time.Time) {
	for id, b := range f.served {
		if b == f.current {
			b.over.Store(0)
			continue
		}
		b.over.CompareAndSwap(0, now.UnixNano())
		since := now.Sub(time.Unix(0, b.over.Load()))
		if since > endAfter && !b.alive(now) || since > endAnyway {
			b.update((*fold.Fold).EndNow)
		}
		if since > f.service.cfg.DVRWindow+followFor || since > followFor && b.demand.idle(now) > followFor {
			b.stop()
			delete(f.served, id)
		}
	}
}

// show tells requests what is known of the channel.
func (c *channel) show(current *broadcast, err error, served map[string]*broadcast) {
	state := &channelState{live: current, err: err, broadcasts: maps.Clone(served)}
	if current != nil {
		state.err = nil
	}
	first := c.state.Swap(state) == nil
	if first {
		close(c.known)
	}
}
