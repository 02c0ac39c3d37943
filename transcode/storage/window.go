package storage

import (
	"net/http"
	"slices"
	"strconv"

	"millrace/internal/media"
	"millrace/internal/objects"
	"millrace/internal/window"
)

// windowSpan is how much of the newest media a window keeps at least.
const windowSpan = 30 * media.VideoTimescale

// media returns the bytes of a file in pieces, or nil when they aren't held.
func (s *catalogue) media(rendition string, f window.File) [][]byte {
	t := s.tracks[rendition]
	if t == nil {
		return nil
	}
	if f.Init != "" {
		for _, i := range t.inits {
			if i.entry.Init == f.Init && i.data != nil {
				return [][]byte{i.data}
			}
		}
		return nil
	}
	g := t.lookup(f.Sequence, f.Epoch, f.Profile)
	switch {
	case g == nil:
		return nil
	case f.Part == window.WholeSegment:
		if !g.done {
			return nil
		}
		return slices.Clone(g.data)
	case f.Part < len(g.data):
		return g.data[f.Part : f.Part+1 : f.Part+1]
	}
	return nil
}

// serveMedia answers with a part, a segment or an init section.
func (s *Storage) serveMedia(w http.ResponseWriter, r *http.Request) {
	f, ok := window.ParseFile(r.PathValue("file"), r.URL.Query().Get(window.VersionParameter))
	var data [][]byte
	if b := s.find(r.PathValue("broadcast")); ok && b != nil {
		b.mu.Lock()
		data = b.catalogue.media(r.PathValue("rendition"), f)
		b.mu.Unlock()
	}
	s.serve(w, "video/mp4", objects.CacheControl, data)
}

// serveThumbnail answers with the newest picture.
func (s *Storage) serveThumbnail(w http.ResponseWriter, r *http.Request) {
	var data [][]byte
	if b := s.find(r.PathValue("broadcast")); b != nil {
		b.mu.Lock()
		if b.catalogue.thumbnail != nil {
			data = [][]byte{b.catalogue.thumbnail}
		}
		b.mu.Unlock()
	}
	s.serve(w, "image/jpeg", "no-cache", data)
}

// serve writes the pieces of one file; no pieces are a 404.
func (s *Storage) serve(w http.ResponseWriter, contentType, cacheControl string, data [][]byte) {
	if len(data) == 0 {
		http.Error(w, "the window doesn't hold it", http.StatusNotFound)
		return
	}
	size := 0
	for _, d := range data {
		size += len(d)
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", cacheControl)
	h.Set("Content-Length", strconv.Itoa(size))
	c := http.NewResponseController(w)
	for _, d := range data {
		if extendDeadline(c) != nil {
			return
		}
		if _, err := w.Write(d); err != nil {
			return // the reader went away
		}
	}
}
