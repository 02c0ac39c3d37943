package api

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// cacheFor is how old an answer may be.
	cacheFor = time.Second
	// cacheEntries bounds a cache; when it is full of fresh answers it is emptied.
	cacheEntries = 10_000
	// loadTimeout bounds one load from the databases.
	loadTimeout = 3 * time.Second
)

// cache answers the same question at most once in cacheFor, and once for all
// who ask at the same time. Errors are kept as well, so that a database that is
// away isn't asked by everybody. It is safe for concurrent use.
type cache[T any] struct {
	load func(ctx context.Context, key string) (T, error)

	flights singleflight.Group

	mu      sync.Mutex
	entries map[string]answer[T]
}

// answer is the result of a load, a value or an error, and when it was had.
type answer[T any] struct {
	value T
	err   error
	at    time.Time
}

func newCache[T any](load func(ctx context.Context, key string) (T, error)) *cache[T] {
	return &cache[T]{load: load, entries: make(map[string]answer[T])}
}

func (c *cache[T]) get(ctx context.Context, key string) (T, error) {
	if a, ok := c.fresh(key); ok {
		return a.value, a.err
	}
	// The load goes on when the caller that began it leaves: other callers wait for
	// its result.
	ch := c.flights.DoChan(key, func() (any, error) {
		if a, ok := c.fresh(key); ok {
			return a, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
		defer cancel()
		value, err := c.load(ctx, key)
		a := answer[T]{value, err, time.Now()}
		c.put(key, a)
		return a, nil
	})
	select {
	case r := <-ch:
		a := r.Val.(answer[T])
		return a.value, a.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

func (c *cache[T]) fresh(key string) (answer[T], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.entries[key]
	return a, ok && time.Since(a.at) < cacheFor
}

func (c *cache[T]) put(key string, a answer[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= cacheEntries {
		for k, old := range c.entries {
			if time.Since(old.at) >= cacheFor {
				delete(c.entries, k)
			}
		}
		if len(c.entries) >= cacheEntries {
			clear(c.entries)
		}
	}
	c.entries[key] = a
}
