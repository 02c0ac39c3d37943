package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace/edge/fold"
	"millrace/internal/objects"
)

const (
	// statusLeft stands in metrics for a viewer who didn't wait for the answer.
	statusLeft = 499
	// Media never changes: a year.
	cacheForever = "public, max-age=31536000, immutable"
	// A viewer's own cache keeps nothing that changes: a player asks again for an
	// address because it wants news (Video.js asks twice for the same blocking
	// reload). Caches that viewers share may keep it for so many seconds.
	sharedFor  = "public, max-age=0, s-maxage="
	cacheShort = sharedFor + "1"
	cacheNever = "no-cache"
)

// Header values that many responses share; nobody may change them.
var (
	typePlaylist = []string{"application/vnd.apple.mpegurl"}
	typeVideo    = []string{"video/mp4"}
	typeAudio    = []string{"audio/mp4"}
	typeJPEG     = []string{"image/jpeg"}
	typeJSON     = []string{"application/json"}
	anyOrigin    = []string{"*"}
	noSniffing   = []string{"nosniff"}
	exposed      = []string{"Age, Content-Length, Content-Range, Date, ETag, Retry-After"}
	gzipEncoding = []string{"gzip"}
	byEncoding   = []string{"Accept-Encoding"}
	acceptBytes  = []string{"bytes"}
	forever      = []string{cacheForever}
	never        = []string{cacheNever}
	short        = []string{cacheShort}
	thumbnail    = []string{"public, max-age=2"}
	// No channel's name will ever have a capital letter.
	renamed = []string{"public, max-age=86400"}
)

// failure is an error answer.
type failure struct {
	status int
	// code is for programs, message for people.
	code, message string
	// cache is the Cache-Control value; empty means no-store.
	cache string
}

var (
	failAddress   = failure{http.StatusNotFound, "not_found", "There is nothing at this address.", cacheShort}
	failMethod    = failure{http.StatusMethodNotAllowed, "method_not_allowed", "Use GET or HEAD.", ""}
	failNotLive   = failure{http.StatusNotFound, "not_live", "This channel is not live.", cacheShort}
	failBroadcast = failure{http.StatusNotFound, "unknown_broadcast", "This broadcast is not known here; it may have ended.", cacheShort}
	failRendition = failure{http.StatusNotFound, "unknown_rendition", "This broadcast has no such rendition.", cacheShort}
	failMedia     = failure{http.StatusNotFound, "unknown_media", "This piece of media does not exist, or no longer.", cacheShort}
	failStarting  = failure{http.StatusServiceUnavailable, "starting", "The broadcast has begun, but there is nothing to play yet. Try again in a moment.", ""}
	failAhead     = failure{http.StatusBadRequest, "too_far_ahead", "_HLS_msn or _HLS_part is too far past the end of the playlist.", ""}
	failBlocked   = failure{http.StatusServiceUnavailable, "no_new_media", "Nothing new came in time.", ""}
	failCrowded   = failure{http.StatusServiceUnavailable, "busy", "Too many requests are waiting. Try again in a moment.", ""}
	failBusy      = failure{http.StatusServiceUnavailable, "busy", "Too much media is being fetched or sent at the moment. Try again in a moment.", ""}
	failGreedy    = failure{http.StatusServiceUnavailable, "too_much_at_once", "Too much is under way for your address. Try again in a moment.", ""}
	failUnknown   = failure{http.StatusServiceUnavailable, "unavailable", "It can't be told right now whether this channel is live. Try again in a moment.", ""}
	failStopping  = failure{http.StatusServiceUnavailable, "stopping", "This edge is stopping. Try again.", ""}
	failUpstream  = failure{http.StatusBadGateway, "upstream_failed", "The media could not be fetched. Try again.", ""}
	failSlow      = failure{http.StatusGatewayTimeout, "upstream_slow", "The media could not be fetched in time. Try again.", ""}
)

// response counts what is sent.
type response struct {
	http.ResponseWriter
	kind   fold.Kind
	status int
	bytes  int64
	// delivery is the object that is sent, if it is one.
	delivery delivery
	// left is set when the viewer went away before there was an answer.
	left bool
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if w.delivery.wasEnded() {
		return 0, errCutOff
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// servePlaylist sends a rendered playlist, which is compressed when zip is set.
func servePlaylist(w *response, r *http.Request, cache []string, data []byte, zip bool) {
	h := w.Header()
	h["Content-Type"] = typePlaylist
	h["Cache-Control"] = cache
	h["Vary"] = byEncoding
	if zip {
		h["Content-Encoding"] = gzipEncoding
	}
	h["Content-Length"] = []string{strconv.Itoa(len(data))}
	if r.Method != http.MethodHead {
		_, _ = w.Write(data) // the viewer may be gone
	}
}

// serveBytes sends media, or the range of it that was asked for.
func serveBytes(w *response, r *http.Request, contentType, cache []string, data []byte) {
	h := w.Header()
	h["Content-Type"] = contentType
	h["Cache-Control"] = cache
	if r.Header.Get("Range") != "" {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		return
	}
	h["Accept-Ranges"] = acceptBytes
	h["Content-Length"] = []string{strconv.Itoa(len(data))}
	if r.Method != http.MethodHead {
		_, _ = w.Write(data) // the viewer may be gone
	}
}

// serveHead answers a HEAD request for media of so many bytes, 0 where that isn't known.
func serveHead(w *response, contentType, cache []string, size int) {
	h := w.Header()
	h["Content-Type"] = contentType
	h["Cache-Control"] = cache
	h["Accept-Ranges"] = acceptBytes
	if size > 0 {
		h["Content-Length"] = []string{strconv.Itoa(size)}
	}
	w.WriteHeader(http.StatusOK)
}

// failWith answers an error with the status that fits it. Faults of the
// platform are logged, those of the viewer aren't.
func (s *Service) failWith(w *response, r *http.Request, err error) {
	switch {
	case r.Context().Err() != nil:
		// Most likely nobody is there to read the answer.
		w.left = true
		fail(w, r, failStopping)
	case errors.Is(err, errNotLive):
		fail(w, r, failNotLive)
	case errors.Is(err, objects.ErrNotFound):
		fail(w, r, failMedia)
	case errors.Is(err, errCrowded):
		fail(w, r, failCrowded)
	case errors.Is(err, errGreedy):
		fail(w, r, failGreedy)
	case errors.Is(err, errBusy):
		fail(w, r, failBusy)
	case errors.Is(err, errStopped), errors.Is(err, context.Canceled):
		fail(w, r, failStopping)
	case errors.Is(err, errUnknown):
		fail(w, r, failUnknown)
	case errors.Is(err, context.DeadlineExceeded):
		s.fetchFaults.Warn(s.log, "media can't be fetched in time", err, slog.String("kind", string(w.kind)))
		fail(w, r, failSlow)
	default:
		s.fetchFaults.Warn(s.log, "media can't be fetched", err, slog.String("kind", string(w.kind)))
		fail(w, r, failUpstream)
	}
}

// fail answers with a JSON document that names the reason.
func fail(w *response, r *http.Request, f failure) {
	h := w.Header()
	h["Content-Type"] = typeJSON
	if f.cache == "" {
		f.cache = "no-store"
	}
	h.Set("Cache-Control", f.cache)
	if f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	doc, _ := json.Marshal(struct { // two strings always encode
		Code    string `json:"code"`
		Message string `json:"message"`
	}{f.code, f.message})
	doc = append(doc, '\n')
	h["Content-Length"] = []string{strconv.Itoa(len(doc))}
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(doc) // the viewer may be gone
	}
}

// redirect sends a viewer to another path for good; the query stays. 301 is what
// the oldest players follow.
func redirect(w *response, path, query string) {
	h := w.Header()
	if query != "" {
		path += "?" + query
	}
	h["Location"], h["Cache-Control"] = []string{path}, renamed
	w.WriteHeader(http.StatusMovedPermanently)
}

// acceptsGzip reports whether the viewer takes gzip (RFC 9110, 12.5.3).
func acceptsGzip(r *http.Request) bool {
	for _, field := range r.Header["Accept-Encoding"] {
		for part := range strings.SplitSeq(field, ",") {
			name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
			if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
				continue
			}
			q, ok := strings.CutPrefix(strings.TrimSpace(params), "q=")
			if !ok {
				return true
			}
			weight, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
			return err == nil && weight > 0
		}
	}
	return false
}
