package edge

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"millrace/edge/fold"
)

const (
	// overhead is what an entry costs beside its bytes, roughly.
	overhead = 256
	// maxOldFetches bounds the fetches of older media that viewers make the edge do at a
	// time. What is live is bounded by how much of it there is.
	maxOldFetches = 256
	// missedFor is how long from its start a fetch that found nothing is remembered,
	// maxMissed how many of them.
	missedFor = time.Second
	maxMissed = 1024
)

// The errors of bounds that are reached.
var (
	// errTooLarge means that an object alone is larger than the whole cache.
	errTooLarge = errors.New("object exceeds the cache")
	// errGreedy means that too much is under way for one address.
	errGreedy = errors.New("too much is under way for this address")
	// errBusy means that too much is under way for all.
	errBusy = errors.New("too much media is being fetched or sent")
)

// object names one immutable piece of media.
type object struct {
	kind      fold.Kind
	broadcast string
	rendition string
	epoch     uint64
	sequence  uint64
	part      int
	// profile is the hash for an init section.
	profile string
}

// want is what a request wants of the cache.
type want struct {
	object object
	// size is the object's in bytes, or the most that it is taken to be.
	size int64
	// live is set for media of the last moments.
	live bool
	// delivery holds the object until the cache's release is called; nil: the object is only to
	// be there.
	delivery *delivery
	fetch    func(context.Context) ([]byte, error)
}

// cache holds whole objects up to a number of bytes and forgets those first
// that weren't asked for the longest. Those that are being sent, and those that are being
// fetched, count too: where they leave no room, slow readers are cut off. Requests for one
// object share one fetch, which ends when the last of them has left. It is safe for
// concurrent use; nobody may change the bytes it returns.
type cache struct {
	limit   int64
	metrics *metrics
	// spawn runs a fetch, which goes on when ctx ends: others may wait for it.
	spawn func(ctx context.Context, fetch func(context.Context)) error

	// mu guards the fields below, and what is said to be guarded by it in cached,
	// flight, delivery and caller.
	mu      sync.Mutex
	entries map[object]*list.Element
	recent  *list.List // of *cached, the newest first
	flights map[object]*flight
	missed  *lately[object, struct{}]
	// size is what entries hold and flights have reserved, sending what of it is being
	// sent, leaving what of that only readers hold who were cut off.
	size, sending, leaving int64
	// old counts the flights for older media.
	old int
	// freed wakes one who waits for room when there may be some.
	freed chan struct{}
}

// cached is an object that is there. The cache's mu guards all but the first two.
type cached struct {
	object object
	data   []byte
	// first and last are the answers that it is being sent in, the oldest first; cut counts
	// those that were cut off and still hold it.
	first, last *delivery
	cut         int
}

// cost is what the entry counts in the cache's size.
func (e *cached) cost() int64 { return int64(len(e.data)) + overhead }

// busy reports whether somebody is being sent it.
func (e *cached) busy() bool { return e.first != nil || e.cut > 0 }

func newCache(limit int64, spawn func(context.Context, func(context.Context)) error, m *metrics) *cache {
	return &cache{
		limit: limit, metrics: m, spawn: spawn,
		entries: make(map[object]*list.Element), recent: list.New(), flights: make(map[object]*flight),
		missed: newLately[object, struct{}](maxMissed), freed: make(chan struct{}, 1),
	}
}

// share is how many bytes may be held for one address alone: a quarter, or what
// leaves room for a few large segments where that is too little.
func (c *cache) share() int64 { return max(c.limit/4, min(32<<20, c.limit/2)) }

// largest is what an object whose size isn't known is taken to be.
func (c *cache) largest() int64 { return min(maxObject, c.share()) }

// has reports whether an object is there.
func (c *cache) has(o object) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[o] != nil
}

// use returns an object that is there as the one that was asked for last. It
// isn't counted as a hit, and not as being sent.
func (c *cache) use(o object) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[o]
	if e == nil {
		return nil, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cached).data, true
}

// add keeps an object.
func (c *cache) add(o object, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(o, data)
	c.gauge()
}

// load returns an object. Unless it is there or being fetched, it is fetched, and the
// cache keeps it.
func (c *cache) load(ctx context.Context, w *want) ([]byte, error) {
	c.mu.Lock()
	entry, bound := c.find(w)
	c.mu.Unlock()
	if entry == nil || bound != "" {
		return c.loadLater(ctx, w)
	}
	c.metrics.hits.WithLabelValues(string(w.object.kind)).Inc()
	return entry.data, nil
}

// find returns the entry of what is wanted, held for it, or names the bound that has to be waited
// for. Without one it returns nil. It needs mu.
func (c *cache) find(w *want) (entry *cached, bound string) {
	e := c.entries[w.object]
	if e == nil {
		return nil, ""
	}
	c.recent.MoveToFront(e)
	entry = e.Value.(*cached)
	return entry, c.hold(entry, w.delivery)
}

// loadLater is load for what isn't there, or has to wait for a bound.
func (c *cache) loadLater(ctx context.Context, w *want) ([]byte, error) {
	var entry *cached
	var f *flight
	var first bool
	var refusal error
	err := c.await(ctx, func() (bound string, _ []*delivery) {
		if entry, bound = c.find(w); entry == nil {
			f, first, refusal = c.board(w)
		}
		return bound, nil
	})
	if err := cmp.Or(err, refusal); err != nil {
		return nil, err
	}
	if entry != nil {
		c.metrics.hits.WithLabelValues(string(w.object.kind)).Inc()
		return entry.data, nil
	}
	if first {
		c.metrics.misses.WithLabelValues(string(w.object.kind)).Inc()
		c.start(ctx, f, w)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		if c.leave(f, w.delivery) {
			return nil, ctx.Err()
		}
	}
	return f.data, f.err
}

// put keeps an object and returns its entry. It needs mu.
func (c *cache) put(o object, data []byte) *cached {
	if e := c.entries[o]; e != nil {
		return e.Value.(*cached)
	}
	entry := &cached{object: o, data: data}
	c.entries[o] = c.recent.PushFront(entry)
	c.size += entry.cost()
	c.evict()
	return entry
}

// evict forgets what nobody is being sent until the cache is within its limit. It needs mu.
func (c *cache) evict() {
	for n := c.recent.Len() - 1; n > 0 && c.size > c.limit; n-- {
		e := c.recent.Back()
		entry := e.Value.(*cached)
		if entry.busy() {
			c.recent.MoveToFront(e)
			continue
		}
		c.recent.Remove(e)
		delete(c.entries, entry.object)
		c.size -= entry.cost()
	}
}

// gauge shows what is held. It needs mu.
func (c *cache) gauge() {
	c.metrics.held.Set(float64(c.size))
	c.metrics.sending.Set(float64(c.sending))
}
