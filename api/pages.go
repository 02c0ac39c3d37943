package api

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"

	"millrace/api/store"
	"millrace/internal/channelname"
)

// Headers of the pages. The player needs blob: for media and for its
// worker, and loads from any edge.
const (
	contentSecurityPolicy = "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self' http: https: ws: wss:; " +
		"img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; " +
		"frame-ancestors 'self'"
	immutable = "public, max-age=31536000, immutable"
)

// notBuilt stands in for the front end in a binary that was built without it.
const notBuilt = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Millrace</title>
<h1>Millrace is running</h1>
<p>Its pages aren't in this binary. Run <code>make build</code> and start it again.
Streams play at <code>/hls/CHANNEL/index.m3u8</code>.</p></html>
`

// pages serves the front end.
type pages struct {
	channels *channels
	index    *file
	files    map[string]*file // by path without the leading slash
}

// file is one file of the front end.
type file struct {
	body        []byte
	contentType string
	etag        string
	compressed  func() []byte // nil when that isn't worth it
}

// newPages reads the front end, which lies in the binary.
func newPages(web fs.FS, c *channels) (*pages, error) {
	p := &pages{channels: c, files: make(map[string]*file)}
	err := fs.WalkDir(web, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		body, err := fs.ReadFile(web, name)
		if err != nil {
			return err
		}
		p.files[name] = newFile(name, body)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the front end: %w", err)
	}
	p.index = cmp.Or(p.files["index.html"], newFile("index.html", []byte(notBuilt)))
	return p, nil
}

func newFile(name string, body []byte) *file {
	sum := sha256.Sum256(body)
	f := &file{body: body, etag: `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
	f.contentType = mime.TypeByExtension(path.Ext(name))
	switch path.Ext(name) { // whatever the machine's own table says
	case ".js", ".mjs":
		f.contentType = "text/javascript; charset=utf-8"
	case ".woff2":
		f.contentType = "font/woff2"
	case ".webmanifest":
		f.contentType = "application/manifest+json"
	case "":
		f.contentType = "application/octet-stream"
	}
	switch path.Ext(name) {
	case ".html", ".js", ".mjs", ".css", ".svg", ".json", ".txt", ".webmanifest":
		f.compressed = sync.OnceValue(func() []byte { return compress(body) })
	}
	return f
}

func compress(body []byte) []byte {
	var buf bytes.Buffer
	w, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression) // the level is valid
	_, _ = w.Write(body)                                    // a bytes.Buffer takes all
	_ = w.Close()
	return buf.Bytes()
}

// ServeHTTP answers with a file, with the page, or with the page and status 404
// for what can't be a channel; the page itself says the rest.
func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		errMethod.write(w)
		return
	}
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if lower, ok := channelname.Lower(strings.Trim(r.URL.Path, "/")); ok {
		redirect(w, r, "/"+lower)
		return
	}
	switch f := p.files[name]; {
	case f != nil && strings.HasPrefix(name, "assets/"):
		h.Set("Cache-Control", immutable)
		f.serve(w, r, http.StatusOK)
	case f != nil && f != p.index:
		h.Set("Cache-Control", "public, max-age=3600")
		f.serve(w, r, http.StatusOK)
	case strings.HasPrefix(name, "assets/"):
		// Not the page: a browser would take it for the script it asked for.
		h.Set("Cache-Control", "no-store")
		http.Error(w, "There is no such file.", http.StatusNotFound)
	default:
		h.Set("Cache-Control", "no-cache")
		p.index.serve(w, r, p.status(r, name))
	}
}

// redirect sends whoever wrote a channel's name with capital letters to the path
// that is meant, for good: no channel's name will ever have one.
func redirect(w http.ResponseWriter, r *http.Request, path string) {
	w.Header().Set("Cache-Control", "public, max-age=86400")
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	http.Redirect(w, r, path, http.StatusMovedPermanently)
}

// status is 404 for a channel that doesn't exist. While the databases are away
// nobody knows, and the page asks again by itself.
func (p *pages) status(r *http.Request, name string) int {
	if name == "" {
		return http.StatusOK
	}
	for _, page := range []string{"/chat", "/overlay"} { // of a channel
		name = strings.TrimSuffix(name, page)
	}
	if _, err := p.channels.get(r.Context(), name); errors.Is(err, store.ErrNotFound) {
		return http.StatusNotFound
	}
	return http.StatusOK
}

func (f *file) serve(w http.ResponseWriter, r *http.Request, status int) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("ETag", f.etag)
	h.Add("Vary", "Accept-Encoding")
	if status == http.StatusOK && strings.Contains(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.body
	if f.compressed != nil && acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = f.compressed()
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // the client is gone: nobody to tell
	}
}

// acceptsGzip reads Accept-Encoding; a quality of 0 means no.
func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q := strings.ReplaceAll(params, " ", "")
			return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
		}
	}
	return false
}
