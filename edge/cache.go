package edge

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"millrace/edge/fold"
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

// overhead is what an entry costs beside its bytes, roughly.
const overhead = 256

// errTooLarge means that an object alone is larger than the whole cache.
var errTooLarge = errors.New("object exceeds the cache")

// cache holds whole objects up to a number of bytes and forgets those first
// that weren't asked for the longest. Requests for one object share one fetch.
// It is safe for concurrent use; nobody may change the bytes it returns.
type cache struct {
	limit   int64
	metrics *metrics
	// spawn runs a fetch, which goes on when ctx ends: others may wait for it.
	spawn func(ctx context.Context, fetch func(context.Context)) error

	// mu guards the fields below.
	mu      sync.Mutex
	entries map[object]*list.Element
	recent  *list.List // of *cached, the newest first
	size    int64
	flights map[object]*flight
}

type cached struct {
	object object
	data   []byte
}

// flight is a fetch that is under way. data and err are set before done is closed.
type flight struct {
	done chan struct{}
	data []byte
	err  error
}

func newCache(limit int64, spawn func(context.Context, func(context.Context)) error, m *metrics) *cache {
	return &cache{
		limit: limit, metrics: m, spawn: spawn,
		entries: make(map[object]*list.Element), recent: list.New(), flights: make(map[object]*flight),
	}
}

// has reports whether an object is there.
func (c *cache) has(o object) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[o] != nil
}

// use returns an object that is there as the one that was asked for last. It
// isn't counted as a hit.
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
	c.metrics.held.Set(float64(c.size))
}

// load returns an object. Unless it is there or being fetched, fetch fetches it,
// and the cache keeps it.
func (c *cache) load(ctx context.Context, o object, fetch func(context.Context) ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if e := c.entries[o]; e != nil {
		c.recent.MoveToFront(e)
		data := e.Value.(*cached).data
		c.mu.Unlock()
		c.metrics.hits.WithLabelValues(string(o.kind)).Inc()
		return data, nil
	}
	f := c.flights[o]
	first := f == nil
	if first {
		f = &flight{done: make(chan struct{})}
		c.flights[o] = f
	}
	c.mu.Unlock()

	if first {
		c.metrics.misses.WithLabelValues(string(o.kind)).Inc()
		err := c.spawn(ctx, func(ctx context.Context) {
			data, err := fetch(ctx)
			c.land(o, f, data, err)
		})
		if err != nil {
			c.land(o, f, nil, err)
		}
	}
	select {
	case <-f.done:
		return f.data, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// land ends a flight and keeps what it brought.
func (c *cache) land(o object, f *flight, data []byte, err error) {
	if err == nil && int64(len(data)) > c.limit {
		err = errTooLarge
	}
	f.data, f.err = data, err
	c.mu.Lock()
	delete(c.flights, o)
	if err == nil {
		c.put(o, data)
	}
	size := c.size
	c.mu.Unlock()
	close(f.done)
	c.metrics.held.Set(float64(size))
}

// put needs mu.
func (c *cache) put(o object, data []byte) {
	if c.entries[o] != nil {
		return
	}
	c.entries[o] = c.recent.PushFront(&cached{o, data})
	c.size += int64(len(data)) + overhead
	for c.size > c.limit && c.recent.Len() > 1 {
		e := c.recent.Back()
		old := c.recent.Remove(e).(*cached)
		delete(c.entries, old.object)
		c.size -= int64(len(old.data)) + overhead
	}
}
