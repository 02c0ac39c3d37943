package edge

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"millrace/edge/fold"
	"millrace/edge/playlist"
	"millrace/internal/index"
)

const (
	// lateAfter is when a worker that says nothing is suspected.
	lateAfter = index.Heartbeat + index.Heartbeat/2
	// collectFor bounds the wait for a worker's first line before a cold edge begins.
	collectFor = time.Second
	// burstFor is how long a worker may take from the first media it tells of
	// to the last that exists.
	burstFor = 30 * time.Millisecond
	// tickInterval is how often a broadcast is looked at for what doesn't come.
	tickInterval = 250 * time.Millisecond
	// silentFor is how long nothing new may come before nothing is expected,
	// lostFor the same while the publisher is known to be gone.
	silentFor = 3 * time.Second
	lostFor   = time.Second
)

// broadcast follows the workers of one broadcast, and keeps what is shown of it.
type broadcast struct {
	// Immutable.
	service *Service
	channel *channel
	id      string
	log     *slog.Logger
	// stop ends run.
	stop context.CancelFunc
	// slotsChanged has room for one.
	slotsChanged chan struct{}

	// Each is safe for concurrent use.
	view     *view
	workers  workers
	upstream upstream
	demand   demand

	// Set by the channel's run: over is since when the broadcast isn't the
	// current one, in Unix nanoseconds (0: it is), lost whether the publisher
	// is known to be gone.
	over atomic.Int64
	lost atomic.Bool
}

func newBroadcast(c *channel, id string, log *slog.Logger, stop context.CancelFunc) *broadcast {
	b := &broadcast{
		service: c.service, channel: c, id: id, log: log.With("broadcast", id), stop: stop,
		slotsChanged: make(chan struct{}, 1),
		view:         newView(c.service.cfg.DVRWindow, c.service.metrics),
		workers:      newWorkers(),
	}
	now := time.Now()
	b.upstream.begin(now)
	b.demand.note(now)
	return b
}

// alive reports whether a worker speaks of the broadcast and it hasn't ended.
func (b *broadcast) alive(now time.Time) bool {
	return !b.view.now.Load().Ended && b.upstream.quiet(now) < quietAfter
}

// searching tells for how long the broadcast has needed another worker; ok is
// false when it doesn't, or no longer hopes to find one soon.
func (b *broadcast) searching(now time.Time) (since time.Duration, ok bool) {
	if b.view.now.Load().Ended {
		return 0, false
	}
	if since, lost := b.upstream.lost(now); lost {
		return since, since < searchFor
	}
	since = b.upstream.quiet(now) - lateAfter
	return since, since > 0
}

// setSlots tells which workers to follow. No slots at all mean that Redis lost
// its memory, or that there is no worker yet: those known stay.
func (b *broadcast) setSlots(slots map[int]worker) {
	if len(slots) == 0 || !b.workers.set(slots) {
		return
	}
	select {
	case b.slotsChanged <- struct{}{}:
	default:
	}
}

// run reads what Redis remembers, then follows all slots until ctx ends or stop
// is called.
func (b *broadcast) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	defer func() { _ = group.Wait() }() // its functions return nil
	defer cancel()
	b.log.Info("following broadcast")
	defer b.log.Info("no longer following broadcast")

	memory := b.newMemory()
	if err := b.remember(ctx, memory); err != nil && ctx.Err() == nil {
		b.service.metrics.redis.Inc()
		b.log.Warn("the index can't be read from Redis; starting from the workers' memory", "err", err)
	}
	streams := make(map[string]*followStream)
	state := gauges{metrics: b.service.metrics}
	defer state.set(false, false)
	begin := time.NewTimer(collectFor)
	defer begin.Stop()
	told := b.upstream.media()
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		select {
		case <-b.slotsChanged:
			b.follow(ctx, &group, streams, time.Now())
		case <-told:
			told = nil
			begin.Reset(burstFor)
		case <-begin.C:
			b.update((*fold.Fold).Begin)
		case now := <-tick.C:
			b.follow(ctx, &group, streams, now)
			state.set(b.review(now))
			if !b.upstream.connected() && !b.view.now.Load().Ended && memory.reading.CompareAndSwap(false, true) {
				group.Go(func() error { // a Redis that hangs must not stop the clock
					defer memory.reading.Store(false)
					b.catchUp(ctx, memory)
					return nil
				})
			}
		case <-ctx.Done():
			return
		}
	}
}

// update changes the fold by fn, answers what it asks then, and shows what has
// changed.
func (b *broadcast) update(fn func(*fold.Fold)) {
	b.view.update(func(f *fold.Fold) {
		fn(f)
		for {
			q, ok := f.Question()
			if !ok {
				return
			}
			f.Answer(q, b.keepSegment(q.Rendition, q.Segment))
		}
	})
}

// review deals with what doesn't come: the end of a segment, or anything new. It
// reports whether the current broadcast is paused, and whether no worker tells
// of it.
func (b *broadcast) review(now time.Time) (paused, lost bool) {
	silent := b.upstream.silent(now)
	away := silent >= b.service.silentFor || silent >= lostFor && b.lost.Load()
	var ended bool
	var refused map[fold.Refusal]int
	b.update(func(f *fold.Fold) {
		f.SetAway(away)
		f.GiveUp(now)
		paused, ended, refused = f.Paused(), f.Ended(), f.TakeRefused()
	})
	for why, n := range refused {
		b.service.metrics.refused.WithLabelValues(string(why)).Add(float64(n))
	}
	if b.over.Load() != 0 || ended {
		return false, false
	}
	since, lost := b.upstream.lost(now)
	return paused, lost && since > quietAfter
}

// gauges are what the metrics count of one broadcast. Only its run uses them.
type gauges struct {
	metrics      *metrics
	paused, lost bool
}

// set counts the broadcast as paused, and as one without upstream.
func (g *gauges) set(paused, lost bool) {
	count := func(gauge prometheus.Gauge, was, now bool) {
		switch {
		case now && !was:
			gauge.Inc()
		case was && !now:
			gauge.Dec()
		}
	}
	count(g.metrics.paused, g.paused, paused)
	count(g.metrics.lost, g.lost, lost)
	g.paused, g.lost = paused, lost
}

// upstream is when the workers of a broadcast said what. It is safe for
// concurrent use; times are Unix nanoseconds.
type upstream struct {
	// spoke is when one said something last, told when one told of new media.
	spoke, told atomic.Int64
	// streams counts open follow streams, none is since when there is none.
	streams, none atomic.Int64
	// firstMedia is closed when media was told of for the first time.
	firstMedia chan struct{}
	once       sync.Once
}

// begin is to be called once, before anything else.
func (u *upstream) begin(now time.Time) {
	u.none.Store(now.UnixNano())
	u.told.Store(now.UnixNano())
	u.firstMedia = make(chan struct{})
}

func (u *upstream) opened() {
	u.streams.Add(1)
	u.none.Store(0)
}

func (u *upstream) closed(now time.Time) {
	if u.streams.Add(-1) == 0 {
		u.none.Store(now.UnixNano())
	}
}

func (u *upstream) connected() bool { return u.streams.Load() > 0 }

// lost tells since when no worker can be reached; ok is false when one can.
func (u *upstream) lost(now time.Time) (since time.Duration, ok bool) {
	none := u.none.Load()
	return time.Duration(now.UnixNano() - none), none != 0
}

// quiet returns for how long no worker has said anything.
func (u *upstream) quiet(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - u.spoke.Load())
}

// silent returns for how long no worker has told of new media.
func (u *upstream) silent(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - u.told.Load())
}

// noteMedia notes that a worker's media has been applied.
func (u *upstream) noteMedia() { u.once.Do(func() { close(u.firstMedia) }) }

// media is closed once a worker's media has been applied.
func (u *upstream) media() <-chan struct{} { return u.firstMedia }

// demand is when viewers asked for what of a broadcast last. It is safe for
// concurrent use; the zero value is ready.
type demand struct {
	// any is when one asked for anything, in Unix nanoseconds.
	any atomic.Int64
	// parts holds, by rendition, when one asked for a part (*atomic.Int64).
	parts sync.Map
}

// note notes a request.
func (d *demand) note(now time.Time) { d.any.Store(now.UnixNano()) }

// idle returns for how long nobody has asked for anything.
func (d *demand) idle(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - d.any.Load())
}

// noteParts notes that a viewer takes the parts of a rendition.
func (d *demand) noteParts(rendition string, now time.Time) {
	asked, ok := d.parts.Load(rendition)
	if !ok {
		asked, _ = d.parts.LoadOrStore(rendition, new(atomic.Int64))
	}
	asked.(*atomic.Int64).Store(now.UnixNano())
}

// wantsParts reports whether viewers take the parts of a rendition.
func (d *demand) wantsParts(rendition string, now time.Time) bool {
	asked, ok := d.parts.Load(rendition)
	return ok && now.UnixNano()-asked.(*atomic.Int64).Load() <= int64(hotFor)
}

// segmentAddress names a segment as a viewer would ask for it.
func segmentAddress(rendition string, s *playlist.Segment) *fold.Address {
	return &fold.Address{
		Kind: fold.KindSegment, Rendition: rendition, Epoch: s.Epoch, Sequence: s.Sequence, Part: playlist.NoPart, Profile: s.Profile,
	}
}
