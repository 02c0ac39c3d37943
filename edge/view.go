package edge

import (
	"bytes"
	"compress/gzip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/edge/fold"
	"millrace/edge/playlist"
)

// view shows the newest state of a broadcast to viewers' requests, and wakes
// those who wait for the next one. It is safe for concurrent use.
type view struct {
	// renders counts media playlists rendered.
	renders prometheus.Counter
	now     atomic.Pointer[shown]

	// mu guards the fold.
	mu   sync.Mutex
	fold *fold.Fold
}

// shown is a snapshot with what has been rendered of it, and with the means to
// wait for the next one. It is immutable but for the texts.
type shown struct {
	*fold.Snapshot
	// renditions are those of the snapshot, in the same order.
	renditions []*shownRendition
	// changed is closed when there is a newer snapshot.
	changed chan struct{}

	multivariant text
}

// shownRendition is the same for a rendition.
type shownRendition struct {
	*fold.Rendition
	// changed is closed when there is a newer state of it.
	changed chan struct{}

	texts [playlist.Flavours]text
}

// rendition returns the rendition of that name, nil for none.
func (s *shown) rendition(name string) *shownRendition {
	for _, r := range s.renditions {
		if r.Info.Name == name {
			return r
		}
	}
	return nil
}

func newView(window time.Duration, m *metrics) *view {
	v := &view{renders: m.renders, fold: fold.New(window)}
	v.now.Store(&shown{Snapshot: v.fold.Snapshot(nil), changed: make(chan struct{})})
	return v
}

// rendition returns the newest state of a rendition, nil where there is none.
func (v *view) rendition(name string) *shownRendition { return v.now.Load().rendition(name) }

// update changes the fold by fn, and shows what has changed.
func (v *view) update(fn func(*fold.Fold)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fn(v.fold)
	before := v.now.Load()
	if next := v.fold.Snapshot(before.Snapshot); next != before.Snapshot {
		v.show(before, next)
	}
}

// show makes next what is shown, and wakes those who wait for what has changed
// since before. It needs mu.
func (v *view) show(before *shown, next *fold.Snapshot) {
	now := &shown{
		Snapshot: next, changed: make(chan struct{}), renditions: make([]*shownRendition, len(next.Renditions)),
	}
	for i, r := range next.Renditions {
		if i < len(before.renditions) && before.renditions[i].Rendition == r {
			now.renditions[i] = before.renditions[i]
			continue
		}
		now.renditions[i] = &shownRendition{Rendition: r, changed: make(chan struct{})}
	}
	v.now.Store(now)
	for i, r := range before.renditions {
		if now.renditions[i] != r {
			close(r.changed)
		}
	}
	close(before.changed)
}

// renderMedia renders a rendition's media playlist, unless another request did.
func (v *view) renderMedia(r *shownRendition, skip playlist.Skip, zip bool) []byte {
	return r.texts[skip].renderOnce(zip, func() []byte {
		v.renders.Inc()
		return r.Append(make([]byte, 0, 1024+160*len(r.Segments)), skip, v.now.Load().Reports(r.Info.Name))
	})
}

// renderMultivariant renders the multivariant playlist, unless another request
// did. Its URIs are relative to the channel's.
func (s *shown) renderMultivariant(broadcast string, zip bool) []byte {
	return s.multivariant.renderOnce(zip, func() []byte {
		m := s.Multivariant(fold.Place{Base: broadcast + "/"})
		return m.Append(nil)
	})
}

// text is a rendered playlist that many requests share.
type text struct {
	plainOnce sync.Once
	plain     []byte
	zipOnce   sync.Once
	zipped    []byte
}

// renderOnce returns the text, compressed if zip is set. The first call renders
// it, and the first with zip compresses it.
func (t *text) renderOnce(zip bool, render func() []byte) []byte {
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
