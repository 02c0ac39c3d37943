package edge

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// boardOf returns a board on which a script has been played.
func boardOf(t testing.TB, text string) (*script, *board) {
	t.Helper()
	s := &script{t: t}
	s.run(text)
	return s, s.board()
}

const twoSegments = "begin\nbroadcast\nwhole source 0 1\npart source 2 0 independent"

func TestWaitEndsAfterThreeTargetDurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b := boardOf(t, twoSegments)
		w := &waiters{metrics: newMetrics(discard{})}
		start := time.Now()
		_, err := w.waitReload(t.Context(), b, "source", directives{blocking: true, sequence: 2, part: 1})
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
			s, b := boardOf(t, twoSegments)
			w := &waiters{metrics: newMetrics(discard{})}
			start := time.Now()
			time.AfterFunc(before, func() {
				b.update(func(*fold) bool { s.line("pause"); return true })
			})
			_, err := w.waitReload(t.Context(), b, "source", directives{blocking: true, sequence: 2, part: 1})
			if !errors.Is(err, errReleased) || time.Since(start) != want {
				t.Errorf("%v %s after the request, paused %s after it", err, time.Since(start), before)
			}
		})
	}
}

func TestManyWaitersWakeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := boardOf(t, twoSegments)
		w := &waiters{metrics: newMetrics(discard{})}
		m := newMetrics(discard{})
		texts := make(chan *byte, 1000)
		for range 1000 {
			go func() {
				r, err := w.waitReload(t.Context(), b, "source", directives{blocking: true, sequence: 2, part: 1})
				if err != nil {
					t.Error(err)
				}
				texts <- &b.media(r, 0, true, m)[0]
			}()
		}
		synctest.Wait()
		if n := w.count.Load(); n != 1000 {
			t.Fatalf("%d wait", n)
		}
		// News of another rendition wakes nobody.
		b.update(func(*fold) bool { s.line("part audio 0 0 independent"); return true })
		synctest.Wait()
		if n := w.count.Load(); n != 1000 {
			t.Fatalf("%d wait", n)
		}
		start := time.Now()
		b.update(func(*fold) bool { s.line("part source 2 1"); return true })
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
	_, b := boardOf(t, twoSegments)
	if _, err := w.waitReload(context.Background(), b, "source", directives{blocking: true, sequence: 2, part: 1}); !errors.Is(err, errCrowded) {
		t.Error(err)
	}
	// What is there needs no place.
	if _, err := w.waitReload(context.Background(), b, "source", directives{blocking: true, sequence: 2, part: 0}); err != nil {
		t.Error(err)
	}
}

func TestMultivariantWaitsForAllRenditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := boardOf(t, "begin\nbroadcast ladder\npart source 0 0 independent")
		w := &waiters{metrics: newMetrics(discard{})}
		if _, err := w.waitListable(t.Context(), b, 5*time.Second); !errors.Is(err, errTimeout) {
			t.Errorf("without sound: %v", err)
		}
		// A rung that isn't there after 5 s is left out rather than the channel.
		time.AfterFunc(time.Second, func() {
			b.update(func(*fold) bool { s.line("part audio 0 0 independent"); return true })
		})
		start := time.Now()
		if _, err := w.waitListable(t.Context(), b, 5*time.Second); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		time.AfterFunc(time.Second, func() {
			b.update(func(*fold) bool { s.line("part 360p30 0 0 independent"); return true })
		})
		start = time.Now()
		if _, err := w.waitListable(t.Context(), b, 5*time.Second); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func TestMultivariantWaitsAMomentForSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := boardOf(t, "begin\nbroadcast ladder\npart source 0 0 independent\npart audio 0 0 independent\npart 360p30 0 0 independent")
		w := &waiters{metrics: newMetrics(discard{})}
		start := time.Now()
		if w.waitSegments(t.Context(), b, 200*time.Millisecond, time.Second); time.Since(start) != 200*time.Millisecond {
			t.Errorf("without any segment it took %s", time.Since(start))
		}
		time.AfterFunc(100*time.Millisecond, func() {
			b.update(func(*fold) bool { s.line("segment source 0"); return true })
		})
		start = time.Now()
		if w.waitSegments(t.Context(), b, 200*time.Millisecond, time.Second); time.Since(start) != 1100*time.Millisecond {
			t.Errorf("with one segment it took %s", time.Since(start))
		}
		time.AfterFunc(100*time.Millisecond, func() {
			b.update(func(*fold) bool { s.line("segment audio 0"); s.line("segment 360p30 0"); return true })
		})
		start = time.Now()
		if now := w.waitSegments(t.Context(), b, 200*time.Millisecond, time.Second); time.Since(start) != 100*time.Millisecond || len(now.renditions["audio"].Segments) != 1 {
			t.Errorf("with all segments it took %s", time.Since(start))
		}
	})
}
