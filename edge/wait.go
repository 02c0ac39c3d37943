package edge

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
)

// maxWaiters bounds the requests that wait for something to exist.
const maxWaiters = 50_000

var (
	errTimeout  = errors.New("it did not come in time")
	errCrowded  = errors.New("too many requests are waiting")
	errSkipped  = errors.New("it will never come")
	errReleased = errors.New("answered without news")
)

// waiters counts and bounds those who wait.
type waiters struct {
	metrics *metrics
	count   atomic.Int64
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
func (w *waiters) wait(ctx context.Context, b *board, name string, limit time.Duration, done func(*rendition) bool) (*rendition, error) {
	r := b.now.Load().renditions[name]
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
		r = b.now.Load().renditions[name]
		if done(r) {
			return r, nil
		}
	}
}

// waitReload waits for what a blocking playlist reload asks for.
func (w *waiters) waitReload(ctx context.Context, b *board, name string, d directives) (*rendition, error) {
	// A Server that cannot provide the requested Playlist after blocking for
	// more than three Target Durations SHOULD return Service Unavailable.
	limit := 3 * b.now.Load().renditions[name].Target().Duration()
	return w.wait(ctx, b, name, limit, func(r *rendition) bool {
		// A Server MUST ignore _HLS_msn and _HLS_part if the Playlist contains
		// an EXT-X-ENDLIST tag.
		return r.Ended || r.Has(d.sequence, d.part)
	})
}

// waitPart waits until a part that was hinted exists.
func (w *waiters) waitPart(ctx context.Context, b *board, a *address) (*rendition, error) {
	limit := 3 * b.now.Load().renditions[a.rendition].Target().Duration()
	r, err := w.wait(ctx, b, a.rendition, limit, func(r *rendition) bool {
		return findPart(r, a) != nil || !awaitable(r, a)
	})
	if err == nil && findPart(r, a) == nil {
		return r, errSkipped
	}
	return r, err
}

// findPart returns the part that a names, if it exists.
func findPart(r *rendition, a *address) *playlist.Part {
	s := r.Find(a.sequence)
	if s == nil || a.part >= len(s.Parts) {
		return nil
	}
	p := &s.Parts[a.part]
	if p.Gap || p.Epoch != a.epoch || p.Profile != a.profile {
		return nil
	}
	return p
}

// awaitable reports whether a names the part that is expected next, or the one
// after: another edge that is a little ahead may have hinted that.
func awaitable(r *rendition, a *address) bool {
	h, ok := r.Hint()
	if !ok {
		// A part hinted before a pause may come after it: the next segment's
		// first, or one of a rendition that isn't yet where the log ended.
		last, part, known := r.Last()
		return known && r.Paused && !r.Ended && (a.sequence == last+1 && a.part == 0 || r.Open != nil && a.sequence == last && a.part == part+1)
	}
	if h.Epoch != a.epoch || h.Profile != a.profile {
		return false
	}
	return a.sequence == h.Sequence && (a.part == h.Part || a.part == h.Part+1) ||
		a.sequence == h.Sequence+1 && a.part == 0
}

// waitListable waits until the multivariant playlist can be shown.
func (w *waiters) waitListable(ctx context.Context, b *board, limit time.Duration) (*snapshot, error) {
	s := b.now.Load()
	if complete, _ := s.listable(); complete {
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
			if _, playable := s.listable(); playable {
				return s, nil
			}
			return nil, errTimeout
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s = b.now.Load()
		if complete, _ := s.listable(); complete || s.ended {
			return s, nil
		}
	}
}

// waitSegments gives the first segment of every rendition a moment to be
// complete: players that know nothing of parts start with nothing less. With
// keyframes far apart it takes too long to be waited for, so the longer wait
// is only for the renditions that lag behind the first one to have it.
func (w *waiters) waitSegments(ctx context.Context, b *board, first, all time.Duration) *snapshot {
	s := b.now.Load()
	some, every := s.segmented()
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
	for !every && !s.ended {
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
		s = b.now.Load()
		some, every = s.segmented()
	}
	return s
}

// waitRendition waits until a rendition has something to play.
func (w *waiters) waitRendition(ctx context.Context, b *board, name string, limit time.Duration) (*rendition, error) {
	s := b.now.Load()
	if r := s.renditions[name]; r != nil && r.ready() {
		return r, nil
	}
	if err := w.enter(); err != nil {
		return nil, err
	}
	defer w.leave()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		if s.settings != nil && !slices.ContainsFunc(s.settings.Renditions, func(r index.Rendition) bool { return r.Name == name }) {
			return nil, errSkipped
		}
		select {
		case <-s.changed:
		case <-timeout.C:
			return nil, errTimeout
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s = b.now.Load()
		if r := s.renditions[name]; r != nil && r.ready() {
			return r, nil
		}
	}
}
