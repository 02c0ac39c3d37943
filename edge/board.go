package edge

import (
	"bytes"
	"compress/gzip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/media"
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

// segmented reports whether some, and whether every rendition that is ready has
// a complete segment.
func (s *snapshot) segmented() (some, every bool) {
	every = true
	for _, r := range s.renditions {
		if !r.ready() {
			continue
		}
		if len(r.Segments) > 0 {
			some = true
		} else {
			every = false
		}
	}
	return some, every
}

// variants returns the multivariant playlist as text. Its URIs are relative to
// the channel; with pathways, below each of those, and steering is the address of
// the steering manifest.
func (s *snapshot) variants(channel, broadcast, steering string, pathways []pathway, zip bool) []byte {
	if len(pathways) == 0 {
		return s.multivariant.get(zip, func() []byte {
			var m playlist.Multivariant
			s.appendVariants(&m, broadcast+"/", "audio", "")
			return m.Append(nil)
		})
	}
	m := playlist.Multivariant{SteeringURI: steering, Pathway: pathways[0].id}
	group := "audio"
	for i, p := range pathways {
		if i > 0 {
			group = "audio-" + p.id
		}
		s.appendVariants(&m, p.base+"/hls/"+channel+"/"+broadcast+"/", group, p.id)
	}
	if !zip {
		return m.Append(nil)
	}
	return compress(m.Append(nil))
}

// appendVariants appends what the broadcast offers below base.
func (s *snapshot) appendVariants(m *playlist.Multivariant, base, group, pathway string) {
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
	uri := func(r *rendition) string { return base + r.info.Name + "/index.m3u8" }
	if len(video) == 0 {
		video, audio = audio, nil
	}
	if len(audio) == 0 {
		group = ""
	}
	sound := &rendition{}
	for _, a := range audio {
		m.Audio = append(m.Audio, playlist.Audio{Group: group, Name: a.info.Name, URI: uri(a), Channels: a.info.Channels})
		if a.peak > sound.peak {
			sound = a
		}
	}
	for _, v := range video {
		out := playlist.Variant{
			URI: uri(v), Audio: group, Pathway: pathway, Codecs: v.info.Codec, Bandwidth: v.peak + sound.peak,
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
}
