package edge

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/objects"
)

// hall is a cache with callers who take what they ask for as slowly as a test likes.
type hall struct {
	t *testing.T
	*cache
	group   sync.WaitGroup
	fetched map[uint64]int
}

// newHall returns one for objects of 1 MB, with room for limit of them.
func newHall(t *testing.T, limit int64) *hall {
	h := &hall{t: t, fetched: make(map[uint64]int)}
	h.cache = newCache(limit*(1<<20+overhead), func(_ context.Context, job func(context.Context)) error {
		h.group.Go(func() { job(context.Background()) })
		return nil
	}, newMetrics(discard{}))
	return h
}

// slowWriter is a connection whose writes take until its deadline.
type slowWriter struct {
	http.ResponseWriter
	once  sync.Once
	ended chan struct{}
}

func (w *slowWriter) SetWriteDeadline(time.Time) error {
	w.once.Do(func() { close(w.ended) })
	return nil
}

// ask loads object n for a caller, who begins to take it. He goes on until he is cut off:
// then it is let go of.
func (h *hall) ask(by *caller, n uint64) (*delivery, error) {
	w := &slowWriter{ended: make(chan struct{})}
	d := &delivery{caller: by, writer: w, began: time.Now()}
	_, err := h.load(h.t.Context(), &want{
		object: object{sequence: n}, size: 1 << 20, delivery: d,
		fetch: func(context.Context) ([]byte, error) {
			h.mu.Lock()
			h.fetched[n]++
			h.mu.Unlock()
			return make([]byte, 1<<20), nil
		},
	})
	if err != nil {
		h.release(d, 0)
		return nil, err
	}
	h.group.Go(func() {
		select {
		case <-w.ended:
			h.release(d, 0)
		case <-h.t.Context().Done():
		}
	})
	return d, nil
}

func (h *hall) must(by *caller, n uint64) *delivery {
	h.t.Helper()
	d, err := h.ask(by, n)
	if err != nil {
		h.t.Fatalf("object %d: %v", n, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.size > h.limit {
		h.t.Fatalf("%d bytes are held, of %d", h.size, h.limit)
	}
	return d
}

// What is being sent counts against the cache's limit. Who holds most makes room for others,
// the oldest first; those who hold little go on.
func TestSlowReadersMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 16)
		patient, greedy, other := &caller{}, &caller{}, &caller{}
		kept := h.must(patient, 100)
		time.Sleep(time.Second)
		first := h.must(greedy, 0)
		for n := range uint64(7) {
			time.Sleep(time.Second)
			h.must(greedy, n+1)
			h.must(other, n+10)
		}
		// 15 of 16 are held, by slow readers all.
		for n := range uint64(8) {
			h.must(&caller{}, n+20)
			synctest.Wait()
		}
		if !first.wasEnded() || kept.wasEnded() {
			t.Errorf("the one who holds most was cut off: %t; one who holds little: %t", first.wasEnded(), kept.wasEnded())
		}
		if greedy.held > 5<<20 || other.held > 5<<20 {
			t.Errorf("of 16 MB two slow readers hold %d and %d bytes still", greedy.held, other.held)
		}
	})
}

// An answer that has only begun isn't cut off: who needs room waits until one is slow.
func TestFreshAnswersAreSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 16)
		begun := time.Now()
		one, other := &caller{}, &caller{}
		var all []*delivery
		for n := range uint64(7) {
			all = append(all, h.must(one, n), h.must(other, n+10))
		}
		for n := range uint64(4) { // there is no room for the last ones
			h.must(&caller{}, n+20)
		}
		if took := time.Since(begun); took < freshFor {
			t.Errorf("there was room after %s", took)
		}
		ended := 0
		for _, a := range all {
			if a.wasEnded() {
				ended++
			}
		}
		if ended == 0 || ended > 4 {
			t.Errorf("%d answers were cut off for four", ended)
		}
	})
}

// An address holds no more than its share, of what nobody had before it; what others hold
// already is for nothing.
func TestShareOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 16)
		one, other := &caller{}, &caller{}
		var held []*delivery
		for n := range uint64(8) { // half: the cache is small
			held = append(held, h.must(one, n))
		}
		if _, err := h.ask(one, 8); !errors.Is(err, errGreedy) {
			t.Fatalf("the ninth object of one address: %v", err)
		}
		if h.fetched[8] != 0 {
			t.Error("it was fetched nevertheless")
		}
		h.must(other, 9)
		time.Sleep(time.Second)
		h.must(one, 9)
		// He who came first leaves: his object is charged to who is left.
		h.must(other, 0)
		h.release(held[0], 1<<20)
		h.mu.Lock()
		if one.held > 7*(1<<20+overhead) || other.held < 2<<20 {
			t.Errorf("%d and %d bytes are held after the first reader of one left", one.held, other.held)
		}
		h.mu.Unlock()
		// Who waits for his own share gets it when one of his answers is taken.
		done := make(chan error, 1)
		h.group.Go(func() {
			_, err := h.ask(one, 8)
			done <- err
		})
		h.release(held[1], 1<<20)
		h.must(one, 2)
		if err := <-done; err != nil {
			t.Errorf("after one was taken: %v", err)
		}
	})
}

// Who holds his share and asks first for what comes next doesn't keep it from the others.
func TestShareOfWhoAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 16)
		greedy, other := &caller{}, &caller{}
		for n := range uint64(8) {
			h.must(greedy, n)
		}
		for _, n := range []uint64{8, 9} {
			h.group.Go(func() { _, _ = h.ask(greedy, n) })
		}
		synctest.Wait()
		began := time.Now()
		h.must(other, 8)
		if _, err := h.load(t.Context(), &want{ // ahead of requests
			object: object{sequence: 9}, size: 1 << 20, fetch: func(context.Context) ([]byte, error) { panic("it is being fetched") },
		}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 4*boundInterval {
			t.Errorf("they waited for %s", took)
		}
	})
}

// A fetch ends when the last of those who wait for it leaves, not before.
func TestFetchEndsWithItsLastWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 16)
		var ended error
		ask := func(ctx context.Context, by *caller) {
			d := &delivery{caller: by, writer: &slowWriter{ended: make(chan struct{})}}
			_, err := h.load(ctx, &want{object: object{}, size: 1 << 20, delivery: d, fetch: func(ctx context.Context) ([]byte, error) {
				<-ctx.Done()
				ended = ctx.Err()
				return nil, ended
			}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("who left got %v", err)
			}
			h.release(d, 0)
		}
		first, leave := context.WithCancel(t.Context())
		last, leaveLast := context.WithCancel(t.Context())
		one, other := &caller{}, &caller{}
		h.group.Go(func() { ask(first, one) })
		synctest.Wait()
		h.group.Go(func() { ask(last, other) })
		synctest.Wait()
		leave()
		synctest.Wait()
		if ended != nil {
			t.Error("it ended while somebody waits")
		}
		leaveLast()
		synctest.Wait()
		if ended == nil || h.size != 0 || len(h.flights) != 0 {
			t.Errorf("ended: %v; %d bytes are reserved, %d flights known", ended, h.size, len(h.flights))
		}
		if one.misses.Empty(missLimit, time.Now()) || !other.misses.Empty(missLimit, time.Now()) {
			t.Error("it must count for who made it begin, and for nobody else")
		}
	})
}

// What an address has fetched and doesn't take is bounded; what it takes isn't, nor what fails
// without its doing.
func TestFetchesThatNobodyTakes(t *testing.T) {
	h := newHall(t, 4)
	fetch := func(by *caller, n uint64, sent int64, err error) error {
		d := &delivery{caller: by, writer: &slowWriter{ended: make(chan struct{})}}
		_, got := h.load(t.Context(), &want{object: object{sequence: n}, size: 100, delivery: d, fetch: func(context.Context) ([]byte, error) {
			return make([]byte, 100), err
		}})
		h.release(d, sent)
		return got
	}
	honest, unlucky, thief := &caller{}, &caller{}, &caller{}
	broken := errors.New("broken")
	refused := 0
	for n := range uint64(1000) {
		if err := fetch(honest, 3*n, 50, nil); err != nil {
			t.Fatalf("object %d of a viewer who takes half of each: %v", n, err)
		}
		if err := fetch(unlucky, 3*n+1, 0, broken); !errors.Is(err, broken) {
			t.Fatalf("object %d: %v", n, err)
		}
		if err := fetch(thief, 3*n+2, 0, nil); errors.Is(err, errGreedy) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if most := int(missLimit.Size / 2); refused < 1000-most-200 {
		t.Errorf("%d of 1000 fetches that nobody takes are refused, want all but about %d", refused, most)
	}
}

// What isn't there is looked for once within a moment.
func TestMissesAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 4)
		fetches := 0
		ask := func() {
			_, err := h.load(t.Context(), &want{object: object{sequence: 1}, fetch: func(context.Context) ([]byte, error) {
				fetches++
				return nil, objects.ErrNotFound
			}})
			if !errors.Is(err, objects.ErrNotFound) {
				t.Errorf("%v", err)
			}
		}
		for range 10 {
			ask()
		}
		if fetches != 1 {
			t.Errorf("%d fetches within a moment, want 1", fetches)
		}
		time.Sleep(missedFor + time.Millisecond)
		if ask(); fetches != 2 {
			t.Errorf("%d fetches after it, want 2", fetches)
		}
	})
}

// Older media that is being fetched is bounded; live media has no part in it.
func TestOldFetchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 1000)
		hold := make(chan struct{})
		ask := func(n uint64, live bool) error {
			d := &delivery{caller: &caller{}, writer: &slowWriter{ended: make(chan struct{})}}
			_, err := h.load(t.Context(), &want{object: object{sequence: n}, size: 1, live: live, delivery: d, fetch: func(context.Context) ([]byte, error) {
				if !live {
					<-hold
				}
				return []byte{1}, nil
			}})
			h.release(d, 1)
			return err
		}
		for n := range uint64(maxOldFetches) {
			h.group.Go(func() {
				if err := ask(n, false); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if err := ask(1000, false); !errors.Is(err, errBusy) {
			t.Errorf("one more: %v", err)
		}
		if err := ask(1001, true); err != nil {
			t.Errorf("live media: %v", err)
		}
		close(hold)
		h.group.Wait()
		if err := ask(1002, false); err != nil {
			t.Errorf("after the others: %v", err)
		}
	})
}

func TestLately(t *testing.T) {
	l := newLately[int, string](3)
	now := time.Now()
	for _, key := range []int{1, 2, 1, 3} { // 1 again: it stays
		l.put(key, "x", now.Add(time.Second))
	}
	for key, want := range map[int]bool{0: false, 1: true, 2: true, 3: true} {
		if _, ok := l.get(key, now); ok != want {
			t.Errorf("%d is remembered: %t", key, ok)
		}
	}
	l.put(4, "x", now.Add(time.Second))
	if _, ok := l.get(2, now); ok {
		t.Error("the oldest is remembered, and there is no room")
	}
	if _, ok := l.get(4, now.Add(2*time.Second)); ok || len(l.known) > 3 {
		t.Errorf("remembered for too long: %t; %d are known", ok, len(l.known))
	}
}
