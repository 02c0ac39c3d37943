package edge

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"millrace/internal/objects"
)

const (
	// boundPatience bounds the wait of a request for what others have under way, boundInterval is
	// how often it looks.
	boundPatience = 2 * time.Second
	boundInterval = 50 * time.Millisecond
	// boundRoom names the cache's own bound.
	boundRoom = "room"
)

// flight is a fetch that is under way. data and err are set before done is closed; the
// cache's mu guards the rest.
type flight struct {
	object object
	// size is what it needs, began when it did.
	size  int64
	began time.Time
	live  bool
	// by is the caller who made it begin, or took it over, from the answer that he is to get.
	by   *caller
	from *delivery
	// aboard counts who waits, waiting are the answers that they wait for.
	aboard  int
	waiting []*delivery
	// abandon ends the fetch.
	abandon context.CancelFunc
	// off is set when what it needs is reserved for it, landed when it is over.
	off, landed bool

	done chan struct{}
	data []byte
	err  error
}

// wasted counts in a caller's misses a fetch that he made begin and that he, or nobody, took
// the share of. Requests to S3 cost, and so do bytes.
func (k *caller) wasted(size int64, share float64) {
	if now := time.Now(); k.misses.Take(0, missLimit, now) { // else it is full already
		k.misses.Add(share*(2+float64(size)/(1<<20)), missLimit, now)
	}
}

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

// newFlight makes a flight, unless what is wanted is known to be missing, or too much was
// fetched for its caller in vain. It needs mu.
func (c *cache) newFlight(w *want) (*flight, error) {
	now := time.Now()
	if _, known := c.missed.get(w.object, now); known {
		return nil, objects.ErrNotFound
	}
	if w.size > c.limit {
		return nil, errTooLarge
	}
	f := &flight{object: w.object, size: w.size, began: now, live: w.live, from: w.delivery, done: make(chan struct{})}
	if w.delivery != nil && w.delivery.caller != nil {
		f.by = w.delivery.caller
		if !f.by.misses.Take(0, missLimit, now) {
			return nil, c.refuse("address_misses")
		}
	}
	return f, nil
}

// refuse counts that a bound is reached, and returns the error for it.
func (c *cache) refuse(reason string) error {
	c.metrics.rejected.WithLabelValues(reason).Inc()
	if strings.HasPrefix(reason, "address_") {
		return errGreedy
	}
	return errBusy
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
		var data []byte
		err := c.await(ctx, func() (string, []*delivery) { return c.takeOff(f) })
		if err == nil {
			data, err = w.fetch(ctx)
		}
		c.land(f, data, err)
	})
	if err != nil {
		abandon()
		c.land(f, nil, err)
	}
}

// takeOff reserves what a flight needs, or tells the bound that it has to wait for, and the
// answers that are to end for it. Where its caller is at a bound of his own, another one takes
// it over who waits for the same: he doesn't suffer for who asked first. It needs mu.
func (c *cache) takeOff(f *flight) (bound string, end []*delivery) {
	if !f.live && c.old >= maxOldFetches {
		return "fetches", nil
	}
	if bound := c.boundOf(f.by, f.size); bound != "" {
		if f.aboard > len(f.waiting) { // it is fetched ahead of requests, too
			f.by, f.from = nil, nil
		} else if i := slices.IndexFunc(f.waiting, func(a *delivery) bool { return c.boundOf(a.caller, f.size) == "" }); i >= 0 {
			f.by, f.from = f.waiting[i].caller, f.waiting[i]
		} else {
			return bound, nil
		}
	}
	k := f.by
	c.size += f.size
	c.evict()
	if c.size > c.limit {
		c.size -= f.size
		return boundRoom, c.cutOff(f.size)
	}
	f.off = true
	if k != nil {
		k.fetches++
		k.held += f.size
	}
	if !f.live {
		c.old++
	}
	return "", nil
}

// boundOf names the bound of a caller that a fetch of size bytes for him has to wait for. It needs mu.
func (c *cache) boundOf(k *caller, size int64) string {
	switch {
	case k == nil:
		return ""
	case k.fetches >= maxFetches:
		return "address_fetches"
	case k.held > 0 && k.held+size > c.share():
		return "address_bytes"
	}
	return ""
}

// await calls try, with mu held, until it names no bound that it waits for. It ends the
// answers that try names.
func (c *cache) await(ctx context.Context, try func() (bound string, end []*delivery)) error {
	c.mu.Lock()
	bound, end := try()
	c.mu.Unlock()
	if bound == "" {
		return nil
	}
	patience, tick := time.NewTimer(boundPatience), time.NewTicker(boundInterval)
	defer patience.Stop()
	defer tick.Stop()
	for bound != "" {
		for _, a := range end {
			a.end()
		}
		var freed chan struct{}
		if bound == boundRoom {
			freed = c.freed
		}
		select {
		case <-freed:
		case <-tick.C:
		case <-patience.C:
			return c.refuse(bound)
		case <-ctx.Done():
			return ctx.Err()
		}
		c.mu.Lock()
		bound, end = try()
		c.mu.Unlock()
	}
	return nil
}

// leave takes who doesn't wait any longer off the flight; the last one ends it. It
// reports false if the flight has landed.
func (c *cache) leave(f *flight, a *delivery) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.landed {
		return false
	}
	if f.off && f.by != nil && a == f.from {
		f.by.wasted(f.size, 1)
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
func (c *cache) land(f *flight, data []byte, err error) {
	if err == nil && int64(len(data)) > c.limit {
		err = errTooLarge
	}
	f.data, f.err = data, err
	c.mu.Lock()
	f.landed = true
	if c.flights[f.object] == f {
		delete(c.flights, f.object)
	}
	if f.off {
		c.giveBack(f)
	}
	switch {
	case err == nil:
		entry := c.put(f.object, data)
		f.data = entry.data
		for _, a := range f.waiting {
			c.link(entry, a)
			if a == f.from {
				a.fetched = int64(len(data))
			}
		}
	case errors.Is(err, objects.ErrNotFound):
		c.missed.put(f.object, struct{}{}, f.began.Add(missedFor))
		if f.by != nil {
			f.by.wasted(0, 1)
		}
	}
	c.wake()
	c.mu.Unlock()
	close(f.done)
}

// giveBack ends what takeOff reserved. It needs mu.
func (c *cache) giveBack(f *flight) {
	c.size -= f.size
	if f.by != nil {
		f.by.fetches--
		f.by.held -= f.size
	}
	if !f.live {
		c.old--
	}
}
