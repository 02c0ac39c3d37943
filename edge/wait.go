package edge

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/media"
)

// maxWaiters bounds the requests that wait for something to exist.
const maxWaiters = 50_000

var (
	errTimeout  = errors.New("it did not come in time")
	errCrowded  = errors.New("too many requests are waiting")
	errSkipped  = errors.New("it will never come")
	errReleased = errors.New("answered without news")
)

// snapshot is what is known of a broadcast at one moment. It is immutable.
type snapshot struct {
	// settings are nil until the broadcast entry is there.
	settings   *index.Broadcast
	renditions map[string]*rendition
	// ended is set when no rendition will grow any more.
	ended bool
	// changed is closed when there is a newer snapshot.
	changed chan struct{}

	multivariant text
}

// rendition is what is known of a rendition at one moment. Its playlists are
// rendered once, when the first request needs them.
type rendition struct {
	playlist.Media
	info       index.Rendition
	initEpochs map[string][]uint64
	// peak and average are in bits a second, average 0 until measured.
	peak, average int
	// changed is closed when there is a newer state of it.
	changed chan struct{}

	texts [playlist.Flavours]text
}

// ready reports whether a player could start with the rendition.
func (r *rendition) ready() bool {
	s := r.Open
	if s == nil {
		if len(r.Segments) == 0 {
			return false
		}
		s = r.Segments[len(r.Segments)-1]
	}
	return s.Init != "" && r.info.Codec != ""
}

// text is a rendered playlist, made on first use and shared by all requests.
type text struct {
	plainOnce sync.Once
	plain     []byte
	zipOnce   sync.Once
	zipped    []byte
}

func (t *text) get(zip bool, render func() []byte) []byte {
	t.plainOnce.Do(func() { t.plain = render() })
	if !zip {
		return t.plain
	}
	t.zipOnce.Do(func() { t.zipped = compress(t.plain) })
	return t.zipped
}

var zippers = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // fails for unknown levels only
	return w
}}

func compress(plain []byte) []byte {
	w := zippers.Get().(*gzip.Writer)
	defer zippers.Put(w)
	var b bytes.Buffer
	b.Grow(len(plain)/4 + 64)
	w.Reset(&b)
	_, _ = w.Write(plain) // a bytes.Buffer takes all
	_ = w.Close()
	return b.Bytes()
}

// board shows the newest snapshot of a broadcast and wakes those who wait for
// the next one. It is safe for concurrent use.
type board struct {
	now atomic.Pointer[snapshot]

	// mu guards the fold.
	mu   sync.Mutex
	fold *fold
}

func newBoard(window time.Duration) *board {
	b := &board{fold: newFold(window)}
	b.now.Store(&snapshot{changed: make(chan struct{})})
	return b
}

// update changes the fold by fn, and publishes when fn says that something
// changed.
func (b *board) update(fn func(*fold) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if fn(b.fold) {
		b.publish()
	}
}

// publish makes a snapshot, in which unchanged renditions are the same values
// as before, and wakes those who wait for a changed one. It needs mu.
func (b *board) publish() {
	f, old := b.fold, b.now.Load()
	next := &snapshot{
		settings: f.settings, ended: f.ended(), changed: make(chan struct{}),
		renditions: make(map[string]*rendition, len(f.renditions)),
	}
	var stale []*rendition
	for name, r := range f.renditions {
		before := old.renditions[name]
		if before != nil && !r.changed {
			next.renditions[name] = before
			continue
		}
		r.changed = false
		peak, average := r.rate.measured(r.info.MaxBitrate)
		now := &rendition{
			Media: r.media, info: r.info, peak: peak, average: average,
			initEpochs: r.knownInits(before), changed: make(chan struct{}),
		}
		now.Segments = slices.Clip(now.Segments)
		next.renditions[name] = now
		if before != nil {
			stale = append(stale, before)
		}
	}
	b.now.Store(next)
	for _, r := range stale {
		close(r.changed)
	}
	close(old.changed)
}

// knownInits returns a copy of initEpochs, or the earlier copy when it is equal.
func (r *foldRendition) knownInits(before *rendition) map[string][]uint64 {
	if before != nil && !r.initsChanged {
		return before.initEpochs
	}
	r.initsChanged = false
	inits := make(map[string][]uint64, len(r.initEpochs))
	for hash, epochs := range r.initEpochs {
		inits[hash] = epochs
	}
	return inits
}

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
// errReleased after half a target duration, with the unchanged state. The
// rendition must exist.
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
	var pause <-chan time.Time
	for {
		if r.Paused && pause == nil {
			t := time.NewTimer(min(limit, r.Target().Duration()/2))
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
		// A part hinted before a pause may come after it.
		last, _, known := r.Last()
		return known && r.Paused && !r.Ended && r.Open == nil && a.sequence == last+1 && a.part == 0
	}
	if h.Epoch != a.epoch || h.Profile != a.profile {
		return false
	}
	return a.sequence == h.Sequence && (a.part == h.Part || a.part == h.Part+1) ||
		a.sequence == h.Sequence+1 && a.part == 0
}

// media returns a rendition's media playlist as text.
func (b *board) media(r *rendition, skip playlist.Skip, zip bool, m *metrics) []byte {
	return r.texts[skip].get(zip, func() []byte {
		m.renders.Inc()
		others := b.now.Load()
		var reports []playlist.Report
		if others.settings != nil {
			for _, info := range others.settings.Renditions {
				other := others.renditions[info.Name]
				if info.Name == r.info.Name || other == nil {
					continue
				}
				if sequence, part, ok := other.Last(); ok {
					reports = append(reports, playlist.Report{Rendition: info.Name, Sequence: sequence, Part: part})
				}
			}
		}
		return r.Append(make([]byte, 0, 1024+160*len(r.Segments)), skip, reports)
	})
}

// listable reports whether the multivariant playlist can be shown: complete
// when every rendition is ready, playable when those that are ready make a
// picture and sound, or sound where there is no picture.
func (s *snapshot) listable() (complete, playable bool) {
	if s.settings == nil || len(s.settings.Renditions) == 0 {
		return false, false
	}
	complete = true
	wanted, got := map[media.Kind]bool{}, map[media.Kind]bool{}
	for _, info := range s.settings.Renditions {
		wanted[info.Kind] = true
		if r := s.renditions[info.Name]; r != nil && r.ready() {
			got[info.Kind] = true
		} else {
			complete = false
		}
	}
	return complete, len(wanted) == len(got)
}

// variants returns the multivariant playlist as text; URIs are relative to the channel.
func (s *snapshot) variants(broadcast string, zip bool) []byte {
	return s.multivariant.get(zip, func() []byte {
		var audio, video []*rendition
		for _, info := range s.settings.Renditions {
			r := s.renditions[info.Name]
			switch {
			case r == nil || !r.ready():
			case info.Kind == media.Audio:
				audio = append(audio, r)
			default:
				video = append(video, r)
			}
		}
		uri := func(r *rendition) string { return broadcast + "/" + r.info.Name + "/index.m3u8" }
		var m playlist.Multivariant
		if len(video) == 0 {
			video, audio = audio, nil
		}
		sound := &rendition{}
		for _, a := range audio {
			m.Audio = append(m.Audio, playlist.Audio{Name: a.info.Name, URI: uri(a), Channels: a.info.Channels})
			if a.peak > sound.peak {
				sound = a
			}
		}
		for _, v := range video {
			out := playlist.Variant{
				URI: uri(v), Codecs: v.info.Codec, Bandwidth: v.peak + sound.peak,
				Width: v.info.Width, Height: v.info.Height, FrameRate: v.info.FrameRate,
			}
			if v.average > 0 && (len(audio) == 0 || sound.average > 0) {
				out.AverageBandwidth = v.average + sound.average
			}
			if sound.info.Codec != "" {
				out.Codecs += "," + sound.info.Codec
			}
			m.Variants = append(m.Variants, out)
		}
		return m.Append(nil)
	})
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
