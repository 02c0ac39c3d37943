package edge

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"millrace/edge/fold"
	"millrace/edge/fold/foldtest"
)

// viewOf returns a view of what a script tells.
func viewOf(t testing.TB, text string) (*foldtest.Script, *view) {
	t.Helper()
	s := foldtest.Play(t, text)
	v := newView(0, newMetrics(discard{}))
	v.fold = s.Fold
	v.update(func(*fold.Fold) {})
	return s, v
}

const twoSegments = "begin\nbroadcast\nwhole source 0 1\npart source 2 0 independent"

func TestWaitEndsAfterThreeTargetDurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, v := viewOf(t, twoSegments)
		w := &waiters{metrics: newMetrics(discard{})}
		start := time.Now()
		_, err := w.waitReload(t.Context(), v, "source", fold.Directives{Blocking: true, Sequence: 2, Part: 1})
		if !errors.Is(err, errTimeout) || time.Since(start) != 12*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if w.count.Load() != 0 {
			t.Error("the waiter is still counted")
		}
	})
}

// hls.js counts from its request: the time before the pause counts too.
func TestWaitInAPauseEndsAfterHalfATargetDuration(t *testing.T) {
	for before, want := range map[time.Duration]time.Duration{time.Second: 2 * time.Second, 3 * time.Second: 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, v := viewOf(t, twoSegments)
			w := &waiters{metrics: newMetrics(discard{})}
			start := time.Now()
			time.AfterFunc(before, func() {
				v.update(func(*fold.Fold) { s.Line("pause") })
			})
			_, err := w.waitReload(t.Context(), v, "source", fold.Directives{Blocking: true, Sequence: 2, Part: 1})
			if !errors.Is(err, errReleased) || time.Since(start) != want {
				t.Errorf("%v %s after the request, paused %s after it", err, time.Since(start), before)
			}
		})
	}
}

func TestManyWaitersWakeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := viewOf(t, twoSegments)
		w := &waiters{metrics: newMetrics(discard{})}
		texts := make(chan *byte, 1000)
		for range 1000 {
			go func() {
				r, err := w.waitReload(t.Context(), v, "source", fold.Directives{Blocking: true, Sequence: 2, Part: 1})
				if err != nil {
					t.Error(err)
				}
				texts <- &v.renderMedia(r, 0, true)[0]
			}()
		}
		synctest.Wait()
		if n := w.count.Load(); n != 1000 {
			t.Fatalf("%d wait", n)
		}
		// News of another rendition wakes nobody.
		v.update(func(*fold.Fold) { s.Line("part audio 0 0 independent") })
		synctest.Wait()
		if n := w.count.Load(); n != 1000 {
			t.Fatalf("%d wait", n)
		}
		start := time.Now()
		v.update(func(*fold.Fold) { s.Line("part source 2 1") })
		first := <-texts
		for range 999 {
			if text := <-texts; text != first {
				t.Fatal("two renderings of one state")
			}
		}
		if time.Since(start) != 0 {
			t.Errorf("it took %s", time.Since(start))
		}
	})
}

func TestWaitersAreBounded(t *testing.T) {
	w := &waiters{metrics: newMetrics(discard{})}
	w.count.Store(maxWaiters)
	_, v := viewOf(t, twoSegments)
	if _, err := w.waitReload(context.Background(), v, "source", fold.Directives{Blocking: true, Sequence: 2, Part: 1}); !errors.Is(err, errCrowded) {
		t.Error(err)
	}
	// What is there needs no place.
	if _, err := w.waitReload(context.Background(), v, "source", fold.Directives{Blocking: true, Sequence: 2, Part: 0}); err != nil {
		t.Error(err)
	}
}

func TestMultivariantWaitsForAllRenditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := viewOf(t, "begin\nbroadcast ladder\npart source 0 0 independent")
		w := &waiters{metrics: newMetrics(discard{})}
		if _, err := w.waitListable(t.Context(), v, 5*time.Second); !errors.Is(err, errTimeout) {
			t.Errorf("without sound: %v", err)
		}
		// A rung that isn't there after 5 s is left out rather than the channel.
		time.AfterFunc(time.Second, func() {
			v.update(func(*fold.Fold) { s.Line("part audio 0 0 independent") })
		})
		start := time.Now()
		if _, err := w.waitListable(t.Context(), v, 5*time.Second); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		time.AfterFunc(time.Second, func() {
			v.update(func(*fold.Fold) { s.Line("part 360p30 0 0 independent") })
		})
		start = time.Now()
		if _, err := w.waitListable(t.Context(), v, 5*time.Second); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func TestMultivariantWaitsAMomentForSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := viewOf(t, "begin\nbroadcast ladder\npart source 0 0 independent\npart audio 0 0 independent\npart 360p30 0 0 independent")
		w := &waiters{metrics: newMetrics(discard{})}
		start := time.Now()
		if w.waitSegments(t.Context(), v, 200*time.Millisecond, time.Second); time.Since(start) != 200*time.Millisecond {
			t.Errorf("without any segment it took %s", time.Since(start))
		}
		time.AfterFunc(100*time.Millisecond, func() {
			v.update(func(*fold.Fold) { s.Line("segment source 0") })
		})
		start = time.Now()
		if w.waitSegments(t.Context(), v, 200*time.Millisecond, time.Second); time.Since(start) != 1100*time.Millisecond {
			t.Errorf("with one segment it took %s", time.Since(start))
		}
		time.AfterFunc(100*time.Millisecond, func() {
			v.update(func(*fold.Fold) { s.Line("segment audio 0"); s.Line("segment 360p30 0") })
		})
		start = time.Now()
		if now := w.waitSegments(t.Context(), v, 200*time.Millisecond, time.Second); time.Since(start) != 100*time.Millisecond || len(now.rendition("audio").Segments) != 1 {
			t.Errorf("with all segments it took %s", time.Since(start))
		}
	})
}
