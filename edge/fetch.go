package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"millrace/edge/fold"
	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/objects"
	"millrace/internal/rate"
	"millrace/internal/window"
)

const (
	// fetchTimeout bounds a fetch from all sources, workerTimeout one from a worker.
	fetchTimeout  = 12 * time.Second
	workerTimeout = 3 * time.Second
	// hedgeAfter is how long a worker may take to its first byte before another
	// source is asked too; S3 has bucketHedge.
	hedgeAfter  = 150 * time.Millisecond
	bucketHedge = time.Second
	// partPatience is how long a listed part that no source has is asked for
	// again: its worker died, and the next one is about to make it again, later on a
	// machine that has much to do. hls.js waits for 10 s. segmentPatience is that for
	// a recent segment, which live parts go before.
	partPatience    = 8 * time.Second
	segmentPatience = 4 * time.Second
	// recentFor is how old a segment may be to be looked for at workers first.
	recentFor = 60 * time.Second
	// maxObject bounds an object whose size isn't known, maxPart a part, maxInit an init
	// section, maxThumbnail a picture, in bytes.
	maxObject    = 64 << 20
	maxPart      = 16 << 20
	maxInit      = 4 << 20
	maxThumbnail = 2 << 20
	// thumbnailFor is how long a picture is kept.
	thumbnailFor = 2 * time.Second
	// thumbnailPatience is how long the first picture of a broadcast is waited for.
	thumbnailPatience = 3 * time.Second
	// hotFor is how long after a request for a part the next ones are fetched
	// ahead of requests.
	hotFor = 3 * time.Second
)

var errSize = errors.New("its size differs from the index")

// load returns an object from the cache, which keeps what is fetched.
func (b *broadcast) load(ctx context.Context, w *want) ([]byte, error) {
	fetch := w.fetch
	w.fetch = func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		return fetch(ctx)
	}
	return b.service.cache.load(ctx, w)
}

// objectAt names what an address of the broadcast names.
func objectAt(broadcast string, a *fold.Address) object {
	return object{
		kind: a.Kind, broadcast: broadcast, rendition: a.Rendition,
		epoch: a.Epoch, sequence: a.Sequence, part: a.Part, profile: a.Profile,
	}
}

// loadPart returns a part's bytes, which to holds. Of an older segment it is cut out of
// the whole, which is what S3 has.
func (b *broadcast) loadPart(ctx context.Context, a *fold.Address, to *delivery) ([]byte, error) {
	r := b.view.rendition(a.Rendition)
	p := r.Part(a)
	if p == nil {
		return nil, objects.ErrNotFound
	}
	if s := r.Find(a.Sequence); s != r.Open && !recent(r.Rendition, s) {
		data, err := b.loadSegment(ctx, segmentAddress(a.Rendition, s), to)
		if err != nil {
			return nil, err
		}
		part := cut(data, s.Parts, a.Part)
		if part == nil {
			return nil, errSize
		}
		return part, nil
	}
	return b.load(ctx, &want{
		object: objectAt(b.id, a), size: sizeOf(p.Size, maxPart), live: true, delivery: to,
		fetch: func(ctx context.Context) ([]byte, error) { return b.fetchPart(ctx, a) },
	})
}

// sizeOf returns the size of an object, or most where it isn't known.
func sizeOf(size int, most int64) int64 {
	if size > 0 {
		return int64(size)
	}
	return most
}

// recent reports whether a complete segment is looked for at workers first.
func recent(r *fold.Rendition, s *playlist.Segment) bool {
	n := len(r.Segments)
	return n > 0 && r.Segments[n-1].Time.Sub(s.Time) < recentFor
}

// loadSegment returns a whole segment's bytes, which to holds.
func (b *broadcast) loadSegment(ctx context.Context, a *fold.Address, to *delivery) ([]byte, error) {
	r := b.view.rendition(a.Rendition)
	if r == nil {
		return nil, objects.ErrNotFound
	}
	w := &want{object: objectAt(b.id, a), delivery: to}
	if s := r.Segment(a); s != nil {
		w.size, w.live = sizeOf(s.Size, b.service.cache.largest()), recent(r.Rendition, s)
		w.fetch = func(ctx context.Context) ([]byte, error) {
			data, err := b.fetchSegment(ctx, a, s, w.live)
			if errors.Is(err, objects.ErrNotFound) {
				b.update(func(f *fold.Fold) { f.Vanish(a) })
			}
			return data, err
		}
		return b.load(ctx, w)
	}
	if !r.Precedes(a, b.service.cfg.DVRWindow) {
		return nil, objects.ErrNotFound
	}
	// It may have been there before the first one that is known, and somebody may have listed it.
	w.size = b.service.cache.largest()
	w.fetch = func(ctx context.Context) ([]byte, error) {
		if err := b.service.guess(); err != nil {
			return nil, err
		}
		bucket := b.fromBucket(objects.SegmentKey(b.id, a.Epoch, a.Rendition, a.Sequence, a.Profile), 0)
		return b.race(ctx, 0, func() []source { return []source{bucket} })
	}
	return b.load(ctx, w)
}

// segmentSize returns a segment's size, 0 where it isn't known.
func (b *broadcast) segmentSize(ctx context.Context, a *fold.Address) (int, error) {
	r := b.view.rendition(a.Rendition)
	if r == nil {
		return 0, objects.ErrNotFound
	}
	if s := r.Segment(a); s != nil {
		return s.Size, nil
	}
	if !r.Precedes(a, b.service.cfg.DVRWindow) {
		return 0, objects.ErrNotFound
	}
	if err := b.service.guess(); err != nil {
		return 0, err
	}
	there, err := b.service.cfg.Bucket.Exists(ctx, objects.SegmentKey(b.id, a.Epoch, a.Rendition, a.Sequence, a.Profile))
	if err == nil && !there {
		err = objects.ErrNotFound
	}
	return 0, err
}

// guesses bounds the questions to S3 for what no index told of.
type guesses struct {
	// mu guards bucket.
	mu     sync.Mutex
	bucket rate.Bucket
}

var guessLimit = rate.Limit{PerSecond: 10, Size: 50}

// guess counts a question for what no index told of; it returns errBusy where there are too
// many.
func (s *Service) guess() error {
	s.guesses.mu.Lock()
	defer s.guesses.mu.Unlock()
	if !s.guesses.bucket.Take(1, guessLimit, time.Now()) {
		s.metrics.rejected.WithLabelValues("guesses").Inc()
		return errBusy
	}
	return nil
}

// loadInit returns an init section's bytes, which to holds.
func (b *broadcast) loadInit(ctx context.Context, a *fold.Address, to *delivery) ([]byte, error) {
	r := b.view.rendition(a.Rendition)
	if r == nil {
		return nil, objects.ErrNotFound
	}
	init, ok := r.Inits[a.Profile]
	if !ok {
		return nil, objects.ErrNotFound
	}
	return b.load(ctx, &want{
		object: objectAt(b.id, a), size: sizeOf(init.Size, maxInit), delivery: to,
		fetch: func(ctx context.Context) ([]byte, error) {
			return b.race(ctx, b.service.partPatience, func() []source {
				sources := b.fromWorkers(piece{}, window.InitPath(b.id, a.Rendition, a.Profile), init.Size)
				for _, epoch := range b.view.rendition(a.Rendition).Inits[a.Profile].Epochs {
					sources = append(sources, b.fromBucket(objects.InitKey(b.id, epoch, a.Rendition, a.Profile), init.Size))
				}
				return sources
			})
		},
	})
}

// loadThumbnail returns the newest picture, at most thumbnailFor old, which to holds.
func (b *broadcast) loadThumbnail(ctx context.Context, now time.Time, to *delivery) ([]byte, error) {
	return b.load(ctx, &want{
		object: object{kind: fold.KindThumbnail, broadcast: b.id, sequence: uint64(now.UnixNano() / int64(thumbnailFor))},
		size:   maxThumbnail, live: true, delivery: to,
		fetch: func(ctx context.Context) ([]byte, error) {
			data, err := b.race(ctx, thumbnailPatience, func() []source { return b.fromWorkers(piece{}, window.ThumbnailPath(b.id), 0) })
			if err == nil && len(data) > maxThumbnail {
				return nil, errSize
			}
			return data, err
		},
	})
}

// prefetch fetches a part that was just told of when viewers take the parts of
// its rendition: they ask for it a round trip later.
func (b *broadcast) prefetch(ctx context.Context, e *index.Entry) {
	if !b.demand.wantsParts(e.Rendition, time.Now()) {
		return
	}
	a := &fold.Address{
		Kind: fold.KindPart, Rendition: e.Rendition,
		Epoch: e.Epoch, Sequence: e.Sequence, Part: e.Part, Profile: e.Profile,
	}
	if b.service.cache.has(objectAt(b.id, a)) {
		return
	}
	if r := b.view.rendition(e.Rendition); r == nil || r.Part(a) == nil {
		return
	}
	// An error means that the edge is stopping; one of the fetch comes back to
	// the viewer who asks.
	_ = b.service.spawn(ctx, func(ctx context.Context) { _, _ = b.loadPart(ctx, a, nil) })
}

// fetchPart asks the workers, then cuts the part out of its segment.
func (b *broadcast) fetchPart(ctx context.Context, a *fold.Address) ([]byte, error) {
	r := b.view.rendition(a.Rendition)
	p := r.Part(a)
	if p == nil {
		return nil, objects.ErrNotFound
	}
	if s := r.Find(a.Sequence); s != r.Open {
		if data, ok := b.service.cache.use(objectAt(b.id, segmentAddress(a.Rendition, s))); ok {
			if part := cut(data, s.Parts, a.Part); part != nil {
				return bytes.Clone(part), nil
			}
		}
	}
	return b.race(ctx, b.service.partPatience, func() []source {
		sources := b.fromWorkers(piece{a.Rendition, a.Sequence, a.Part}, b.windowMedia(a).Path(), p.Size)
		r := b.view.rendition(a.Rendition)
		s := r.Find(a.Sequence)
		if s == nil || s == r.Open || s.Gap {
			return sources
		}
		whole := b.fromBucket(objects.SegmentKey(b.id, s.Epoch, a.Rendition, s.Sequence, s.Profile), s.Size)
		get := whole.get
		whole.get = func(ctx context.Context, began func()) ([]byte, error) {
			data, err := get(ctx, began)
			if err != nil {
				return nil, err
			}
			if part := cut(data, s.Parts, a.Part); part != nil {
				return bytes.Clone(part), nil
			}
			return nil, errSize
		}
		return append(sources, whole)
	})
}

// cut returns one part of a segment, or nil when the sizes don't add up.
func cut(segment []byte, parts []playlist.Part, part int) []byte {
	from, sum := 0, 0
	for i := range parts {
		if parts[i].Size <= 0 {
			return nil
		}
		if i == part {
			from = sum
		}
		sum += parts[i].Size
	}
	if sum != len(segment) || part >= len(parts) {
		return nil
	}
	return segment[from : from+parts[part].Size]
}

// fetchSegment joins the segment's parts where the cache has them all, else
// asks the workers and S3, for an older segment S3 first.
func (b *broadcast) fetchSegment(ctx context.Context, a *fold.Address, s *playlist.Segment, live bool) ([]byte, error) {
	if data := b.join(a, s); data != nil {
		return data, nil
	}
	bucket := b.fromBucket(objects.SegmentKey(b.id, a.Epoch, a.Rendition, a.Sequence, a.Profile), s.Size)
	workers := func() []source {
		return b.fromWorkers(piece{a.Rendition, a.Sequence, playlist.NoPart}, b.windowMedia(a).Path(), s.Size)
	}
	if live {
		return b.race(ctx, segmentPatience, func() []source { return append(workers(), bucket) })
	}
	return b.race(ctx, 0, func() []source { return append([]source{bucket}, workers()...) })
}

// keepSegment joins the parts of a segment in the cache to one object, since
// nobody else may have it. It reports whether the cache has them all.
func (b *broadcast) keepSegment(rendition string, s *playlist.Segment) bool {
	a := segmentAddress(rendition, s)
	data := b.join(a, s)
	if data != nil {
		b.service.cache.add(objectAt(b.id, a), data)
	}
	return data != nil
}

// join concatenates a segment's parts, or returns nil.
func (b *broadcast) join(a *fold.Address, s *playlist.Segment) []byte {
	if len(s.Parts) == 0 {
		return nil
	}
	parts := make([][]byte, len(s.Parts))
	total := 0
	for i := range s.Parts {
		o := object{
			kind: fold.KindPart, broadcast: b.id, rendition: a.Rendition, epoch: s.Parts[i].Epoch,
			sequence: s.Sequence, part: i, profile: s.Parts[i].Profile,
		}
		data, ok := b.service.cache.use(o)
		if !ok {
			return nil
		}
		parts[i] = data
		total += len(data)
	}
	if s.Size > 0 && s.Size != total {
		return nil
	}
	return bytes.Join(parts, nil)
}

func (b *broadcast) windowMedia(a *fold.Address) window.Media {
	return window.Media{
		Broadcast: b.id, Rendition: a.Rendition, Epoch: a.Epoch, Sequence: a.Sequence, Part: a.Part, Profile: a.Profile,
	}
}

// fromWorkers returns the workers' windows as sources. size is the object's, 0
// where it isn't known.
func (b *broadcast) fromWorkers(p piece, path string, size int) []source {
	var sources []source
	for _, address := range b.workers.of(p, time.Now()) {
		sources = append(sources, source{
			name: address, worker: true, hedge: hedgeAfter, again: hedgeAfter,
			get: func(ctx context.Context, began func()) ([]byte, error) {
				return b.getWindow(ctx, strings.TrimSuffix(address, "/")+path, size, began)
			},
		})
	}
	return sources
}

func (b *broadcast) getWindow(ctx context.Context, url string, size int, began func()) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, workerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch from worker: %w", err)
	}
	resp, err := b.service.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch from worker: %w", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return nil, objects.ErrNotFound
	default:
		return nil, fmt.Errorf("fetch from worker: %s: status %d", req.URL.Path, resp.StatusCode)
	}
	began()
	if size == 0 {
		size = int(min(resp.ContentLength, maxObject+1))
	}
	data, err := readSized(resp.Body, size)
	if err != nil {
		return nil, fmt.Errorf("fetch from worker: %s: %w", req.URL.Path, err)
	}
	return data, nil
}

// readSized reads a body of size bytes, or up to maxObject where size isn't positive.
func readSized(r io.Reader, size int) ([]byte, error) {
	if size > maxObject {
		return nil, errTooLarge
	}
	if size <= 0 {
		data, err := io.ReadAll(io.LimitReader(r, maxObject+1))
		if err == nil && len(data) > maxObject {
			return nil, errTooLarge
		}
		return data, err
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errSize
		}
		return nil, err
	}
	var more [1]byte
	if n, err := io.ReadFull(r, more[:]); n > 0 || !errors.Is(err, io.EOF) {
		if n > 0 {
			return nil, errSize
		}
		return nil, err
	}
	return data, nil
}

// fromBucket returns an object in S3 as a source.
func (b *broadcast) fromBucket(key string, size int) source {
	return source{
		name: key, hedge: bucketHedge, again: time.Second,
		get: func(ctx context.Context, _ func()) ([]byte, error) {
			data, err := b.service.cfg.Bucket.Get(ctx, key)
			if err == nil && (size > 0 && len(data) != size || len(data) > maxObject) {
				err = fmt.Errorf("get %s: %w", key, errSize)
			}
			return data, err
		},
	}
}
