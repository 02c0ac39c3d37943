package storage

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"millrace/internal/objects"
	"millrace/internal/window"
)

// windowFile is a parsed file name of the window's paths.
type windowFile struct {
	// init is the hash of an init section; empty for media.
	init     string
	sequence uint64
	// part is window.WholeSegment for a segment.
	part    int
	epoch   uint64
	profile string
}

// parseWindowFile parses a file name and the query parameter v.
func parseWindowFile(name, version string) (windowFile, bool) {
	if hash, ok := strings.CutPrefix(name, "init-"); ok {
		hash, ok = strings.CutSuffix(hash, ".mp4")
		return windowFile{init: hash}, ok && hash != ""
	}
	name, ok := strings.CutSuffix(name, ".m4s")
	if !ok {
		return windowFile{}, false
	}
	f := windowFile{part: window.WholeSegment}
	sequence, part, hasPart := strings.Cut(name, ".")
	var err error
	if f.sequence, err = strconv.ParseUint(sequence, 10, 64); err != nil {
		return windowFile{}, false
	}
	if hasPart {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return windowFile{}, false
		}
		f.part = int(n)
	}
	epoch, profile, ok := strings.Cut(version, ".")
	if !ok || profile == "" {
		return windowFile{}, false
	}
	f.profile = profile
	f.epoch, err = strconv.ParseUint(epoch, 10, 64)
	return f, err == nil
}

// media returns the bytes of a file in pieces, or nil when they aren't held.
func (s *shelf) media(rendition string, f windowFile) [][]byte {
	t := s.tracks[rendition]
	if t == nil {
		return nil
	}
	if f.init != "" {
		for _, i := range t.inits {
			if i.entry.Init == f.init && i.data != nil {
				return [][]byte{i.data}
			}
		}
		return nil
	}
	g := t.lookup(f.sequence, f.epoch, f.profile)
	switch {
	case g == nil:
		return nil
	case f.part == window.WholeSegment:
		if !g.done {
			return nil
		}
		return slices.Clone(g.data)
	case f.part < len(g.data):
		return g.data[f.part : f.part+1 : f.part+1]
	}
	return nil
}

// serveMedia answers with a part, a segment or an init section.
func (s *Storage) serveMedia(w http.ResponseWriter, r *http.Request) {
	f, ok := parseWindowFile(r.PathValue("file"), r.URL.Query().Get("v"))
	var data [][]byte
	if b := s.find(r.PathValue("broadcast")); ok && b != nil {
		b.mu.Lock()
		data = b.shelf.media(r.PathValue("rendition"), f)
		b.mu.Unlock()
	}
	s.serve(w, "video/mp4", objects.CacheControl, data)
}

// serveThumbnail answers with the newest picture.
func (s *Storage) serveThumbnail(w http.ResponseWriter, r *http.Request) {
	var data [][]byte
	if b := s.find(r.PathValue("broadcast")); b != nil {
		b.mu.Lock()
		if b.shelf.thumbnail != nil {
			data = [][]byte{b.shelf.thumbnail}
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
