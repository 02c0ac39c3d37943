package edge

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"millrace/edge/fold"
)

func inline(ctx context.Context, job func(context.Context)) error {
	job(ctx)
	return nil
}

// load loads an object for nobody.
func load(t *testing.T, c *cache, o object, fetch func(context.Context) ([]byte, error)) ([]byte, error) {
	t.Helper()
	return c.load(t.Context(), &want{object: o, fetch: fetch})
}

// aboard returns how many wait for fetches.
func (c *cache) aboard() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, f := range c.flights {
		n += f.aboard
	}
	return n
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(10*(1000+overhead), inline, newMetrics(discard{}))
	fetches := 0
	get := func(n uint64) {
		t.Helper()
		data, err := load(t, c, object{kind: fold.KindPart, sequence: n}, func(context.Context) ([]byte, error) {
			fetches++
			return bytes.Repeat([]byte{byte(n)}, 1000), nil
		})
		if err != nil || len(data) != 1000 || data[0] != byte(n) {
			t.Fatalf("%d: %v", n, err)
		}
	}
	for n := range uint64(10) {
		get(n)
	}
	get(0) // used again, so 1 is the oldest now
	get(10)
	if fetches != 11 {
		t.Errorf("%d fetches, want 11", fetches)
	}
	get(0)
	if fetches != 11 {
		t.Error("what was used lately is gone")
	}
	get(1)
	if fetches != 12 {
		t.Error("what wasn't used the longest is still there")
	}
	if c.size > c.limit || c.recent.Len() != 10 || len(c.entries) != 10 {
		t.Errorf("%d of %d bytes, %d entries", c.size, c.limit, c.recent.Len())
	}
	if _, err := load(t, c, object{}, func(context.Context) ([]byte, error) { return make([]byte, c.limit+1), nil }); !errors.Is(err, errTooLarge) {
		t.Errorf("an object larger than the cache: %v", err)
	}
}

func TestCacheForgetsFailures(t *testing.T) {
	c := newCache(1000, inline, newMetrics(discard{}))
	broken := errors.New("broken")
	if _, err := load(t, c, object{}, func(context.Context) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if data, err := load(t, c, object{}, func(context.Context) ([]byte, error) { return []byte("x"), nil }); err != nil || string(data) != "x" {
		t.Fatal(err)
	}
	c.spawn = func(context.Context, func(context.Context)) error { return errStopped }
	if _, err := load(t, c, object{part: 1}, nil); !errors.Is(err, errStopped) {
		t.Fatal(err)
	}
	if len(c.flights) != 0 {
		t.Error("a flight is left")
	}
}

func TestCacheSharesFetches(t *testing.T) {
	var fetches atomic.Int64
	var jobs, group sync.WaitGroup
	spawn := func(ctx context.Context, job func(context.Context)) error {
		jobs.Go(func() { job(context.WithoutCancel(ctx)) })
		return nil
	}
	c := newCache(1<<20, spawn, newMetrics(discard{}))
	for range 64 {
		group.Go(func() {
			for n := range uint64(100) {
				data, err := load(t, c, object{sequence: n}, func(context.Context) ([]byte, error) {
					fetches.Add(1)
					return []byte{byte(n)}, nil
				})
				if err != nil || data[0] != byte(n) {
					t.Errorf("%d: %v", n, err)
				}
			}
		})
	}
	group.Wait()
	jobs.Wait()
	if n := fetches.Load(); n != 100 {
		t.Errorf("%d fetches for 100 objects", n)
	}
}
