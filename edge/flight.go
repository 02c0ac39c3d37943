package edge

import (
	"context"
	"errors"
	"slices"
	"time"

	"millrace/internal/objects"
)

// roomPatience bounds the wait of a fetch for room in the cache.
const roomPatience = 2 * time.Second

// flight is a fetch that is under way. data and err are set before done is closed; the
// cache's mu guards the rest.
type flight struct {
	object object
	// size is what is reserved for it, began when it did.
	size  int64
	began time.Time
	live  bool
	// by is the caller who made it begin, cost what it cost him, from the answer that
	// is to give that back.
	by   *caller
	cost float64
	from *delivery
	// aboard counts who waits, waiting are the answers that they wait for.
	aboard  int
	waiting []*delivery
	// abandon ends the fetch.
	abandon context.CancelFunc
	landed  bool

	done chan struct{}
	data []byte
	err  error
}

// fetchCost is what a fetch counts in a caller's misses: requests to S3 cost, and so
// do bytes.
func fetchCost(size int64) float64 { return 1 + float64(size)/(1<<20) }

// board joins the flight for what is wanted, or makes a new one unless a bound
// is reached. It needs mu.
func (c *cache) board(w *want) (f *flight, first bool, err error) {
	f = c.flights[w.object]
	if f == nil {
		if f, err = c.newFlight(w); err != nil {
			return nil, false, err
		}
		c.flights[w.object] = f
		first = true
	}
	f.aboard++
	if w.delivery != nil {
		f.waiting = append(f.waiting, w.delivery)
	}
	return f, first, nil
}

func (c *cache) newFlight(w *want) (*flight, error) {
	now := time.Now()
	if _, known := c.missed.get(w.object, now); known {
		return nil, objects.ErrNotFound
	}
	if w.size > c.limit {
		return nil, errTooLarge
	}
	f := &flight{object: w.object, size: w.size, began: now, live: w.live, from: w.delivery, done: make(chan struct{})}
	if w.delivery != nil {
		if !w.live && c.old >= maxOldFetches {
			return nil, c.refuse("fetches", errBusy)
		}
		if k := w.delivery.caller; k != nil {
			f.by, f.cost = k, fetchCost(w.size)
			switch {
			case k.fetches >= maxFetches:
				return nil, c.refuse("address_fetches", errGreedy)
			case k.held > 0 && k.held+w.size > c.share():
				return nil, c.refuse("address_bytes", errGreedy)
			case !k.misses.Take(f.cost, missLimit, now):
				return nil, c.refuse("address_misses", errGreedy)
			}
			k.fetches++
			k.held += w.size
		}
	}
	if !f.live {
		c.old++
	}
	return f, nil
}

func (c *cache) refuse(reason string, err error) error {
	c.metrics.rejected.WithLabelValues(reason).Inc()
	return err
}

// start has the flight's fetch run.
func (c *cache) start(ctx context.Context, f *flight, w *want) {
	abandoned, abandon := context.WithCancel(context.Background())
	c.mu.Lock()
	f.abandon = abandon // nobody has left yet
	c.mu.Unlock()
	err := c.spawn(ctx, func(ctx context.Context) {
		defer abandon()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(abandoned, cancel)()
		reserved := int64(0)
		err := c.reserve(ctx, f.size)
		var data []byte
		if err == nil {
			reserved = f.size
			data, err = w.fetch(ctx)
		}
		c.land(f, reserved, data, err)
	})
	if err != nil {
		abandon()
		c.land(f, 0, nil, err)
	}
}

// leave takes who doesn't wait any longer off the flight; the last one ends it. It
// reports false if the flight has landed.
func (c *cache) leave(f *flight, a *delivery) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.landed {
		return false
	}
	if f.aboard--; a != nil {
		f.waiting = slices.DeleteFunc(f.waiting, func(other *delivery) bool { return other == a })
	}
	if f.aboard == 0 {
		if c.flights[f.object] == f {
			delete(c.flights, f.object)
		}
		f.abandon()
	}
	return true
}

// land ends a flight and keeps what it brought.
func (c *cache) land(f *flight, reserved int64, data []byte, err error) {
	if err == nil && int64(len(data)) > c.limit {
		err = errTooLarge
	}
	f.data, f.err = data, err
	c.mu.Lock()
	f.landed = true
	if c.flights[f.object] == f {
		delete(c.flights, f.object)
	}
	c.size -= reserved
	if !f.live {
		c.old--
	}
	if f.by != nil {
		f.by.fetches--
		f.by.held -= f.size
	}
	switch {
	case err == nil:
		entry := c.put(f.object, data)
		f.data = entry.data
		for _, a := range f.waiting {
			c.link(entry, a)
			if a == f.from {
				a.cost, a.fetched = f.cost, int64(len(data))
			}
		}
	case errors.Is(err, objects.ErrNotFound):
		c.missed.put(f.object, struct{}{}, f.began.Add(missedFor))
	case f.by != nil && f.aboard > 0:
		f.by.misses.Return(f.cost) // it isn't the viewer's fault
	}
	c.wake()
	c.gauge()
	c.mu.Unlock()
	close(f.done)
}

// reserve takes room for n bytes, and waits for it where slow readers have to be cut
// off first.
func (c *cache) reserve(ctx context.Context, n int64) error {
	c.mu.Lock()
	if c.take(n) {
		c.mu.Unlock()
		return nil
	}
	c.short++
	c.mu.Unlock()
	patience := time.NewTimer(roomPatience)
	defer patience.Stop()
	defer func() {
		c.mu.Lock()
		c.short--
		c.mu.Unlock()
	}()
	for {
		c.mu.Lock()
		if c.take(n) {
			c.mu.Unlock()
			return nil
		}
		ended := c.cutOff(n)
		freed := c.freed
		c.mu.Unlock()
		for _, a := range ended {
			a.end()
		}
		select {
		case <-freed:
		case <-patience.C:
			return c.refuse("room", errBusy)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take reserves n bytes if there is room. It needs mu.
func (c *cache) take(n int64) bool {
	c.size += n
	c.evict()
	if c.size <= c.limit {
		return true
	}
	c.size -= n
	return false
}
