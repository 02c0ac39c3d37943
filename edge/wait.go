package edge

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"millrace/edge/fold"
	"millrace/internal/objects"
)

const (
	// maxWaiters bounds the requests that wait for something to exist.
	maxWaiters = 50_000
	// maxInitWaiters bounds those of them that wait for an init section of which nobody has told
	// yet, initPatience how long each does.
	maxInitWaiters = 256
	initPatience   = time.Second
)

var (
	errTimeout  = errors.New("it did not come in time")
	errCrowded  = errors.New("too many requests are waiting")
	errSkipped  = errors.New("it will never come")
	errReleased = errors.New("answered without news")
)

// waiters counts and bounds the requests that wait.
type waiters struct {
	metrics *metrics
	count   atomic.Int64
	inits   atomic.Int64
}

// enter reserves a place; the caller must leave unless it is errCrowded.
func (w *waiters) enter() error {
	if w.count.Add(1) > maxWaiters {
		w.count.Add(-1)
		w.metrics.rejected.WithLabelValues("waiters").Inc()
		return errCrowded
	}
	w.metrics.waiters.Inc()
	return nil
}

func (w *waiters) leave() {
	w.count.Add(-1)
	w.metrics.waiters.Dec()
}

// wait returns the first state of a rendition for which done says true, or an
// error: errTimeout, errCrowded, or the context's. In a pause it returns
// errReleased with the unchanged state when it has waited for half a target
// duration, the time before the pause included: hls.js gives up after 0.8 of
// one. The rendition must exist.
func (w *waiters) wait(ctx context.Context, v *view, name string, limit time.Duration, done func(*shownRendition) bool) (*shownRendition, error) {
	r := v.rendition(name)
	if done(r) {
		return r, nil
	}
	if err := w.enter(); err != nil {
		return r, err
	}
	defer w.leave()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	start := time.Now()
	var pause <-chan time.Time
	for {
		if r.Paused && pause == nil {
			t := time.NewTimer(r.Target().Duration()/2 - time.Since(start))
			defer t.Stop()
			pause = t.C
		} else if !r.Paused {
			pause = nil
		}
		select {
		case <-r.changed:
		case <-pause:
			return r, errReleased
		case <-timeout.C:
			return r, errTimeout
		case <-ctx.Done():
			return r, ctx.Err()
		}
		r = v.rendition(name)
		if done(r) {
			return r, nil
		}
	}
}

// waitReload waits for what a blocking playlist reload asks for.
func (w *waiters) waitReload(ctx context.Context, v *view, name string, d fold.Directives) (*shownRendition, error) {
	// A Server that cannot provide the requested Playlist after blocking for
	// more than three Target Durations SHOULD return Service Unavailable.
	limit := 3 * v.rendition(name).Target().Duration()
	return w.wait(ctx, v, name, limit, func(r *shownRendition) bool {
		// A Server MUST ignore _HLS_msn and _HLS_part if the Playlist contains
		// an EXT-X-ENDLIST tag.
		return r.Ended || r.Has(d.Sequence, d.Part)
	})
}

// waitPart waits until a part that was hinted exists.
func (w *waiters) waitPart(ctx context.Context, v *view, a *fold.Address) (*shownRendition, error) {
	limit := 3 * v.rendition(a.Rendition).Target().Duration()
	r, err := w.wait(ctx, v, a.Rendition, limit, func(r *shownRendition) bool {
		return r.Part(a) != nil || !r.Awaits(a)
	})
	if err == nil && r.Part(a) == nil {
		return r, errSkipped
	}
	return r, err
}

// waitListable waits until the multivariant playlist can be shown.
func (w *waiters) waitListable(ctx context.Context, v *view, limit time.Duration) (*shown, error) {
	s := v.now.Load()
	if complete, _ := s.Listable(); complete {
		return s, nil
	}
	if err := w.enter(); err != nil {
		return nil, err
	}
	defer w.leave()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		select {
		case <-s.changed:
		case <-timeout.C:
			if _, playable := s.Listable(); playable {
				return s, nil
			}
			return nil, errTimeout
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s = v.now.Load()
		if complete, _ := s.Listable(); complete || s.Ended {
			return s, nil
		}
	}
}

// waitSegments gives the first segment of every rendition a moment to be
// complete: players that know nothing of parts start with nothing less. With
// keyframes far apart it takes too long to be waited for, so the longer wait
// is only for the renditions that lag behind the first one to have it.
func (w *waiters) waitSegments(ctx context.Context, v *view, first, all time.Duration) *shown {
	s := v.now.Load()
	some, every := s.Segmented()
	if every || w.enter() != nil {
		return s
	}
	defer w.leave()
	limit := first
	if some {
		limit = all
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for !every && !s.Ended {
		if some && limit != all {
			limit = all
			timeout.Reset(all)
		}
		select {
		case <-s.changed:
		case <-timeout.C:
			return s
		case <-ctx.Done():
			return s
		}
		s = v.now.Load()
		some, every = s.Segmented()
	}
	return s
}

// waitRendition waits until a rendition has something to play.
func (w *waiters) waitRendition(ctx context.Context, v *view, name string, limit time.Duration) (*shownRendition, error) {
	s := v.now.Load()
	if r := s.rendition(name); r != nil && r.Ready() {
		return r, nil
	}
	if err := w.enter(); err != nil {
		return nil, err
	}
	defer w.leave()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		if listed, known := s.Lists(name); known && !listed {
			return nil, errSkipped
		}
		select {
		case <-s.changed:
		case <-timeout.C:
			return nil, errTimeout
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s = v.now.Load()
		if r := s.rendition(name); r != nil && r.Ready() {
			return r, nil
		}
	}
}

// waitInit returns what is known of an init section, and waits a moment where that is nothing.
func (w *waiters) waitInit(ctx context.Context, v *view, a *fold.Address) (fold.Init, error) {
	r := v.rendition(a.Rendition)
	if r == nil {
		return fold.Init{}, objects.ErrNotFound
	}
	if init, ok := r.Inits[a.Profile]; ok {
		return init, nil
	}
	defer w.inits.Add(-1)
	if w.inits.Add(1) > maxInitWaiters {
		w.metrics.rejected.WithLabelValues("inits").Inc()
		return fold.Init{}, objects.ErrNotFound
	}
	r, err := w.wait(ctx, v, a.Rendition, initPatience, func(r *shownRendition) bool {
		_, ok := r.Inits[a.Profile]
		return ok || r.Ended
	})
	if init, ok := r.Inits[a.Profile]; ok {
		return init, nil
	}
	if err == nil || errors.Is(err, errTimeout) || errors.Is(err, errReleased) {
		err = objects.ErrNotFound
	}
	return fold.Init{}, err
}
