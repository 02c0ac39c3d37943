package edge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"millrace/internal/index"
	"millrace/internal/jobs"
)

const (
	// quietAfter is how long a follow stream may say nothing.
	quietAfter = 2 * time.Second
	// lateAfter is when a worker that says nothing is suspected.
	lateAfter = index.Heartbeat + index.Heartbeat/2
	// collectFor bounds the wait for a worker's first line before a cold edge begins.
	collectFor = time.Second
	// burstFor is how long a worker may take from the first media it tells of
	// to the last that exists.
	burstFor = 30 * time.Millisecond
	// lingerFor is how long a worker without a slot is listened to.
	lingerFor = 10 * time.Second
	// tickInterval is how often a broadcast is looked at for what doesn't come.
	tickInterval = 250 * time.Millisecond
	// silentFor is how long nothing new may come before nothing is expected,
	// lostFor the same while the publisher is known to be gone.
	silentFor = 3 * time.Second
	lostFor   = time.Second
)

var (
	errQuiet   = errors.New("the follow stream went quiet")
	errNotHere = errors.New("the worker doesn't know the broadcast")
)

// broadcast follows the workers of one broadcast and keeps its board.
type broadcast struct {
	service *Service
	channel *channel
	id      string
	log     *slog.Logger
	board   *board
	stopRun chan struct{}
	stop    func()
	// asked is when somebody asked last, heard when a worker said something
	// last, told when one told of new media, over since when it isn't the
	// current one (0: it is); Unix nanoseconds.
	asked, heard, told, over atomic.Int64
	// lost is set while the publisher is known to be gone.
	lost atomic.Bool
	// connected counts open follow streams, searched is since when there is none.
	connected, searched atomic.Int64
	// hot holds, by rendition, when a part of it was asked for last (*atomic.Int64).
	hot sync.Map
	// first is closed when the first media that a worker told of has been applied.
	first     chan struct{}
	firstOnce sync.Once
	// counted is what the gauges hold of it; of run.
	counted struct{ paused, lost bool }
	// news has room for one: the slots have changed.
	news chan struct{}

	workers workers
}

func newBroadcast(c *channel, id string, log *slog.Logger) *broadcast {
	b := &broadcast{
		service: c.service, channel: c, id: id, log: log.With("broadcast", id),
		board: newBoard(c.service.cfg.DVRWindow), stopRun: make(chan struct{}),
		first: make(chan struct{}), news: make(chan struct{}, 1), workers: newWorkers(),
	}
	b.board.fold.holds = b.holds
	b.stop = sync.OnceFunc(func() { close(b.stopRun) })
	now := time.Now().UnixNano()
	b.asked.Store(now)
	b.searched.Store(now)
	b.told.Store(now)
	return b
}

func (b *broadcast) idle(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - b.asked.Load())
}

// alive reports whether a worker speaks of the broadcast and it hasn't ended.
func (b *broadcast) alive(now time.Time) bool {
	return !b.board.now.Load().ended && now.UnixNano()-b.heard.Load() < int64(quietAfter)
}

// searching tells for how long the broadcast has needed another worker; ok is
// false when it doesn't, or no longer hopes to find one soon.
func (b *broadcast) searching(now time.Time) (since time.Duration, ok bool) {
	if b.board.now.Load().ended {
		return 0, false
	}
	if searched := b.searched.Load(); searched != 0 {
		since = time.Duration(now.UnixNano() - searched)
		return since, since < searchFor
	}
	since = time.Duration(now.UnixNano()-b.heard.Load()) - lateAfter
	return since, since > 0
}

// setSlots tells which workers to follow. No slots at all mean that Redis lost
// its memory, or that there is no worker yet: those known stay.
func (b *broadcast) setSlots(slots map[int]jobs.Slot) {
	if len(slots) == 0 || !b.workers.set(slots) {
		return
	}
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// follower is the reader of one worker.
type follower struct {
	address string
	stop    context.CancelFunc
	// leaving is set when the worker has no slot any more: its stream is read
	// until it ends.
	leaving atomic.Bool
	// wake has room for one: try again at once.
	wake chan struct{}
	// done is closed when nothing is read any more.
	done chan struct{}

	// epoch is that of its newest slot, until when it may linger; of run.
	epoch jobs.Epoch
	until time.Time
}

// run reads what Redis remembers, then follows all slots until the broadcast
// is stopped.
func (b *broadcast) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	defer func() { _ = group.Wait() }() // its functions return nil
	defer cancel()
	b.log.Info("following broadcast")
	defer b.log.Info("no longer following broadcast")

	last, err := b.remember(ctx)
	if err != nil && ctx.Err() == nil {
		b.service.metrics.redis.Inc()
		b.log.Warn("the index can't be read from Redis; starting from the workers' memory", "err", err)
	}
	followers := make(map[string]*follower)
	defer b.account(false, false)
	begin := time.NewTimer(collectFor)
	defer begin.Stop()
	first := b.first
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	var faults lineASecond
	var catching atomic.Bool
	for {
		select {
		case <-b.news:
			b.follow(ctx, &group, followers, time.Now())
		case <-first:
			first = nil
			begin.Reset(burstFor)
		case <-begin.C:
			b.board.update((*fold).begin)
		case now := <-tick.C:
			b.follow(ctx, &group, followers, now)
			b.look(now)
			if b.connected.Load() == 0 && !b.board.now.Load().ended && catching.CompareAndSwap(false, true) {
				group.Go(func() error { // a Redis that hangs must not stop the clock
					defer catching.Store(false)
					if err := b.catchUp(ctx, &last); err != nil && ctx.Err() == nil {
						b.service.metrics.redis.Inc()
						faults.log(b.log, "the index can't be read from Redis", err)
					}
					return nil
				})
			}
		case <-b.stopRun:
			return
		case <-ctx.Done():
			return
		}
	}
}

// look finds what doesn't come: the end of a segment, or anything new.
func (b *broadcast) look(now time.Time) {
	silent := time.Duration(now.UnixNano() - b.told.Load())
	away := silent >= silentFor || silent >= lostFor && b.lost.Load()
	var paused, ended bool
	b.board.update(func(f *fold) bool {
		changed := f.setAway(away)
		paused, ended = f.paused || f.away, f.ended()
		if f.settings == nil {
			return changed
		}
		for reason, n := range f.refused {
			b.service.metrics.refused.WithLabelValues(reason).Add(float64(n))
		}
		clear(f.refused)
		target := time.Duration(f.settings.TargetDuration) * time.Second
		return f.giveUp(now, target+target/2) || changed
	})
	searched := b.searched.Load()
	lost := searched != 0 && now.UnixNano()-searched > int64(quietAfter)
	current := b.over.Load() == 0 && !ended
	b.account(paused && current, lost && current)
}

// account keeps the gauges of paused broadcasts and of those without upstream.
// Only run calls it.
func (b *broadcast) account(paused, lost bool) {
	for _, g := range []struct {
		gauge    prometheus.Gauge
		was, now *bool
	}{{b.service.metrics.paused, &b.counted.paused, &paused}, {b.service.metrics.lost, &b.counted.lost, &lost}} {
		if *g.was != *g.now {
			*g.was = *g.now
			if *g.now {
				g.gauge.Inc()
			} else {
				g.gauge.Dec()
			}
		}
	}
}

// follow has a reader for each worker in a slot. One that lost its slot is
// listened to for a while: it may still tell of what it finishes.
func (b *broadcast) follow(ctx context.Context, group *errgroup.Group, followers map[string]*follower, now time.Time) {
	wanted := b.workers.slotted()
	for address, f := range followers {
		epoch, ok := wanted[address]
		switch {
		case ok:
			f.leaving.Store(false)
			f.until = time.Time{}
			if f.epoch != epoch {
				f.epoch = epoch
				f.again()
			}
		case f.until.IsZero():
			f.until = now.Add(lingerFor)
			f.leaving.Store(true)
			f.again()
		case now.After(f.until):
			f.stop()
		}
		select {
		case <-f.done:
			delete(followers, address)
			b.workers.left(address)
		default:
		}
	}
	for address, epoch := range wanted {
		if followers[address] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		f := &follower{address: address, stop: stop, epoch: epoch, wake: make(chan struct{}, 1), done: make(chan struct{})}
		followers[address] = f
		group.Go(func() error {
			defer close(f.done)
			defer stop()
			b.followWorker(ctx, f)
			return nil
		})
	}
}

// again ends the wait before the next attempt.
func (f *follower) again() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// followWorker reads a worker's follow stream again and again until ctx ends or
// the worker has lost its slot.
func (b *broadcast) followWorker(ctx context.Context, f *follower) {
	const shortest, longest = 50 * time.Millisecond, time.Second
	backoff := shortest
	var faults lineASecond
	for {
		heard, err := b.followOnce(ctx, f.address)
		if ctx.Err() != nil || f.leaving.Load() {
			return
		}
		b.service.metrics.follows.WithLabelValues(breakReason(err)).Inc()
		if !b.board.now.Load().ended {
			faults.log(b.log.With("worker", f.address), "follow stream broke; connecting again", err)
		}
		if heard {
			backoff = shortest
		}
		// Another worker may have the slot already.
		select {
		case b.channel.kick <- struct{}{}:
		default:
		}
		timer := time.NewTimer(backoff)
		select {
		case <-timer.C:
		case <-f.wake:
			timer.Stop()
			backoff = shortest
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if f.leaving.Load() {
			return
		}
		backoff = min(2*backoff, longest)
	}
}

func breakReason(err error) string {
	switch {
	case errors.Is(err, errQuiet):
		return "quiet"
	case errors.Is(err, errNotHere):
		return "not_here"
	case errors.Is(err, bufio.ErrTooLong):
		return "line_too_long"
	case err == nil:
		return "closed"
	}
	return "error"
}

// followOnce reads a follow stream until it breaks or goes quiet. heard tells
// whether it said anything.
func (b *broadcast) followOnce(ctx context.Context, address string) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(quietAfter, func() { cancel(errQuiet) })
	defer quiet.Stop()
	defer func() {
		if cause := context.Cause(ctx); cause != nil && err != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
	}()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+index.FollowPath(b.id), nil)
	if err != nil {
		return false, fmt.Errorf("follow: %w", err)
	}
	b.service.cfg.Secret.Authorize(req)
	resp, err := b.service.client.Do(req)
	if err != nil {
		return false, fmt.Errorf("follow: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return false, errNotHere
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("follow: status %d", resp.StatusCode)
	}
	b.open()
	defer b.closed()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 16<<10), index.MaxLine)
	for lines.Scan() {
		quiet.Reset(quietAfter)
		b.heard.Store(time.Now().UnixNano())
		entries, err := index.ParseLine(lines.Bytes())
		if err != nil {
			return heard, fmt.Errorf("follow: %w", err)
		}
		if len(entries) > 0 {
			// Who tells of it can serve it, even before it is shown.
			b.workers.note(entries, address)
			b.apply(entries)
			b.arrived(ctx, entries)
		}
		heard = true
	}
	if err := lines.Err(); err != nil {
		return heard, fmt.Errorf("follow: %w", err)
	}
	return heard, nil
}

// apply folds entries in.
func (b *broadcast) apply(entries []index.Entry) {
	b.board.update(func(f *fold) bool {
		before := f.fresh
		changed := f.apply(entries)
		if f.fresh != before {
			b.told.Store(time.Now().UnixNano())
		}
		return changed
	})
}

// arrived begins the playlists with the first media that a worker told of, and
// fetches new parts that viewers are about to ask for.
func (b *broadcast) arrived(ctx context.Context, entries []index.Entry) {
	for i := range entries {
		e := &entries[i]
		if e.Type == index.TypePart || e.Type == index.TypeSegment {
			b.firstOnce.Do(func() { close(b.first) })
		}
		if e.Type == index.TypePart {
			b.prefetch(ctx, e)
		}
	}
}

func (b *broadcast) open() {
	b.connected.Add(1)
	b.searched.Store(0)
	b.service.metrics.streams.Inc()
}

func (b *broadcast) closed() {
	if b.connected.Add(-1) == 0 {
		b.searched.Store(time.Now().UnixNano())
	}
	b.service.metrics.streams.Dec()
}
