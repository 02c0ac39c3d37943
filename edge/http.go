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

	"millrace/internal/media"
	"millrace/internal/objects"
)

const (
	// statusLeft stands in metrics for a viewer who didn't wait for the answer.
	statusLeft = 499
	// startWait bounds the wait of a playlist request for a broadcast that has begun.
	startWait = 5 * time.Second
	// firstSegmentWait bounds the wait for any rendition's first segment,
	// allSegmentsWait then that for all of them.
	firstSegmentWait = 200 * time.Millisecond
	allSegmentsWait  = time.Second
	// Media never changes: a year.
	cacheForever = "public, max-age=31536000, immutable"
	cacheNever   = "no-cache"
	cacheShort   = "public, max-age=1"
)

// Header values that many responses share; nobody may change them.
var (
	typePlaylist = []string{"application/vnd.apple.mpegurl"}
	typeVideo    = []string{"video/mp4"}
	typeAudio    = []string{"audio/mp4"}
	typeJPEG     = []string{"image/jpeg"}
	typeJSON     = []string{"application/json"}
	anyOrigin    = []string{"*"}
	exposed      = []string{"Age, Content-Length, Content-Range, Date, ETag, Retry-After"}
	gzipEncoding = []string{"gzip"}
	byEncoding   = []string{"Accept-Encoding"}
	acceptBytes  = []string{"bytes"}
	forever      = []string{cacheForever}
	never        = []string{cacheNever}
	short        = []string{cacheShort}
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
	failUnknown   = failure{http.StatusServiceUnavailable, "unavailable", "It can't be told right now whether this channel is live. Try again in a moment.", ""}
	failStopping  = failure{http.StatusServiceUnavailable, "stopping", "This edge is stopping. Try again.", ""}
	failUpstream  = failure{http.StatusBadGateway, "upstream_failed", "The media could not be fetched. Try again.", ""}
	failSlow      = failure{http.StatusGatewayTimeout, "upstream_slow", "The media could not be fetched in time. Try again.", ""}
)

// Handler serves everything below /hls/.
func (s *Service) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// response counts what is sent.
type response struct {
	http.ResponseWriter
	kind   kind
	status int
	bytes  int64
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
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (s *Service) serve(rw http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w := &response{ResponseWriter: rw, kind: kindOther}
	defer func() {
		status := w.status
		if w.left {
			status = statusLeft
		}
		s.metrics.answered(w.kind, status, w.bytes, time.Since(start))
	}()
	h := w.Header()
	h["Access-Control-Allow-Origin"] = anyOrigin
	h["Access-Control-Expose-Headers"] = exposed
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "Range, CMCD-Object, CMCD-Request, CMCD-Session, CMCD-Status")
		h.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		fail(w, r, failMethod)
		return
	}
	a, err := parseAddress(r.URL.Path)
	if err != nil {
		fail(w, r, failAddress)
		return
	}
	w.kind = a.kind
	if a.kind == kindSteering {
		s.serveSteering(w, r)
		return
	}
	c, err := s.channel(r.Context(), a.channel)
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	state, err := c.look(r.Context())
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	if a.kind == kindMultivariant {
		s.serveMultivariant(w, r, &a, state)
		return
	}
	b := state.broadcasts[a.broadcast]
	if b == nil {
		if state.err != nil && !errors.Is(state.err, errNotLive) {
			s.failWith(w, r, state.err)
			return
		}
		fail(w, r, failBroadcast)
		return
	}
	b.asked.Store(start.UnixNano())
	switch a.kind {
	case kindMedia:
		s.audience.saw(a.channel, r, start)
		s.serveMedia(w, r, &a, b)
	case kindPart:
		s.audience.saw(a.channel, r, start)
		s.servePart(w, r, &a, b)
	case kindSegment:
		s.audience.saw(a.channel, r, start)
		data, err := b.segment(r.Context(), &a)
		s.serveObject(w, r, &a, b, data, err)
	case kindInit:
		data, err := b.init(r.Context(), &a)
		s.serveObject(w, r, &a, b, data, err)
	case kindThumbnail:
		data, err := b.thumbnail(r.Context(), start)
		if err != nil {
			s.failWith(w, r, err)
			return
		}
		serveBytes(w, r, typeJPEG, []string{"public, max-age=2"}, data)
	}
}

func (s *Service) serveMultivariant(w *response, r *http.Request, a *address, state *channelState) {
	b := state.live
	if b == nil {
		s.failWith(w, r, state.err)
		return
	}
	b.asked.Store(time.Now().UnixNano())
	known, err := s.waiters.waitListable(r.Context(), b.board, startWait)
	switch {
	case errors.Is(err, errTimeout):
		fail(w, r, failStarting)
	case err != nil:
		s.failWith(w, r, err)
	case known.ended:
		fail(w, r, failNotLive)
	default:
		known = s.waiters.waitSegments(r.Context(), b.board, firstSegmentWait, allSegmentsWait)
		s.audience.saw(a.channel, r, time.Now())
		zip := acceptsGzip(r)
		paths := s.edges.pathways()
		text := known.variants(a.channel, b.id, s.edges.steering(a.channel, paths), paths, zip)
		servePlaylist(w, r, never, text, zip)
	}
}

func (s *Service) serveMedia(w *response, r *http.Request, a *address, b *broadcast) {
	d, err := parseDirectives(r.URL.RawQuery)
	if err != nil {
		fail(w, r, failure{http.StatusBadRequest, "bad_directive", err.Error() + ".", ""})
		return
	}
	now, err := s.waiters.waitRendition(r.Context(), b.board, a.rendition, startWait)
	switch {
	case errors.Is(err, errTimeout):
		fail(w, r, failStarting)
		return
	case errors.Is(err, errSkipped):
		fail(w, r, failRendition)
		return
	case err != nil:
		s.failWith(w, r, err)
		return
	}
	zip := acceptsGzip(r)
	if !d.blocking || now.Ended {
		cache := short
		if now.Paused && !now.Ended {
			// A player that finds its playlist unchanged asks again half a target
			// duration later, without directives (6.3.4). Held for as long, it
			// learns at once that the publisher is back.
			cache = []string{"no-store"}
			// The pause ends with the first part of any rendition: this one's may
			// be a moment later.
			limit := now.Target().Duration() / 2
			sequence, part, _ := now.Last()
			now, err = s.waiters.wait(r.Context(), b.board, a.rendition, limit, func(r *rendition) bool {
				last, lastPart, _ := r.Last()
				return r.Ended || last != sequence || lastPart != part
			})
			if r.Context().Err() != nil {
				s.failWith(w, r, err)
				return
			}
		}
		servePlaylist(w, r, cache, b.board.media(now, d.skip, zip, s.metrics), zip)
		return
	}
	w.kind = kindReload
	if now.TooFar(d.sequence, d.part) {
		fail(w, r, failAhead)
		return
	}
	cache := short
	if last, _, _ := now.Last(); d.sequence >= last {
		// Each answer to a reload near the end has an address of its own, and
		// is right for as long as a player may ask for it: six target durations.
		cache = []string{"public, max-age=" + strconv.Itoa(6*now.TargetDuration)}
	}
	now, err = s.waiters.waitReload(r.Context(), b.board, a.rendition, d)
	switch {
	case errors.Is(err, errReleased):
		// In a pause the request would have to fail after three target
		// durations. Players count that as an error and give up after a few,
		// while they stay with a playlist that doesn't grow. So the unchanged
		// playlist is the better answer.
		cache = []string{"no-store"}
	case errors.Is(err, errTimeout):
		fail(w, r, failBlocked)
		return
	case err != nil:
		s.failWith(w, r, err)
		return
	}
	servePlaylist(w, r, cache, b.board.media(now, d.skip, zip, s.metrics), zip)
}

func (s *Service) servePart(w *response, r *http.Request, a *address, b *broadcast) {
	now := b.board.now.Load().renditions[a.rendition]
	if now == nil {
		fail(w, r, failMedia)
		return
	}
	b.heat(a.rendition)
	if findPart(now, a) == nil {
		// The server SHOULD respond with 404 to a request for a resource that
		// it cannot find and that is not specified by an EXT-X-PRELOAD-HINT
		// tag in an active Media Playlist (6.2.6).
		if !awaitable(now, a) {
			fail(w, r, failMedia)
			return
		}
		_, err := s.waiters.waitPart(r.Context(), b.board, a)
		switch {
		case errors.Is(err, errSkipped), errors.Is(err, errReleased), errors.Is(err, errTimeout):
			fail(w, r, failMedia)
			return
		case err != nil:
			s.failWith(w, r, err)
			return
		}
	}
	// No byte is sent before all of the part is here.
	data, err := b.part(r.Context(), a)
	s.serveObject(w, r, a, b, data, err)
}

func (s *Service) serveObject(w *response, r *http.Request, a *address, b *broadcast, data []byte, err error) {
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	contentType := typeVideo
	if now := b.board.now.Load().renditions[a.rendition]; now != nil && now.info.Kind == media.Audio {
		contentType = typeAudio
	}
	serveBytes(w, r, contentType, forever, data)
}

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
	case errors.Is(err, errStopped), errors.Is(err, context.Canceled):
		fail(w, r, failStopping)
	case errors.Is(err, errUnknown):
		fail(w, r, failUnknown)
	case errors.Is(err, context.DeadlineExceeded):
		s.upstream.log(s.log, "media can't be fetched in time", err, slog.String("kind", string(w.kind)))
		fail(w, r, failSlow)
	default:
		s.upstream.log(s.log, "media can't be fetched", err, slog.String("kind", string(w.kind)))
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
