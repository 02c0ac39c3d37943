package edge

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"millrace/edge/fold"
	"millrace/internal/media"
)

const (
	// startWait bounds the wait of a playlist request for a broadcast that has begun.
	startWait = 5 * time.Second
	// firstSegmentWait bounds the wait for any rendition's first segment,
	// allSegmentsWait then that for all of them.
	firstSegmentWait = 200 * time.Millisecond
	allSegmentsWait  = time.Second
)

// Handler serves everything below /hls/.
func (s *Service) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Service) serve(rw http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w := &response{ResponseWriter: rw, kind: fold.KindOther}
	by, err := s.callers.enter(r, start)
	w.delivery.caller, w.delivery.writer, w.delivery.began = by, rw, start
	defer s.finish(w, start)
	h := w.Header()
	h["Access-Control-Allow-Origin"] = anyOrigin
	h["Access-Control-Expose-Headers"] = exposed
	h["X-Content-Type-Options"] = noSniffing
	if err != nil {
		s.failWith(w, r, err)
		return
	}
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
	a, err := fold.ParseAddress(r.URL.Path)
	if err != nil {
		if lower, ok := fold.LowerPath(r.URL.Path); ok {
			redirect(w, lower, r.URL.RawQuery)
			return
		}
		fail(w, r, failAddress)
		return
	}
	w.kind = a.Kind
	if a.Kind == fold.KindSteering {
		s.serveSteering(w, r)
		return
	}
	s.serveChannel(w, r, &a, start)
}

// finish lets go of what an answer held, and counts it.
func (s *Service) finish(w *response, start time.Time) {
	s.cache.release(&w.delivery, w.bytes)
	w.delivery.caller.leave()
	status := w.status
	switch {
	case w.left:
		status = statusLeft
	case status == 0:
		status = http.StatusOK // what net/http makes of an answer without a body
	}
	s.metrics.answered(w.kind, status, w.bytes, time.Since(start))
	if w.delivery.wasEnded() {
		panic(http.ErrAbortHandler) // or what was sent would look whole
	}
}

// serveChannel answers a request for what an address of a channel names.
func (s *Service) serveChannel(w *response, r *http.Request, a *fold.Address, now time.Time) {
	c, err := s.channel(r.Context(), a.Channel, w.delivery.caller)
	if errors.Is(err, errNotLive) && a.Kind != fold.KindMultivariant {
		fail(w, r, failBroadcast)
		return
	}
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	state, err := c.await(r.Context())
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	if a.Kind == fold.KindMultivariant {
		s.serveMultivariant(w, r, a, state)
		return
	}
	b := state.broadcasts[a.Broadcast]
	if b == nil {
		if state.err != nil && !errors.Is(state.err, errNotLive) {
			s.failWith(w, r, state.err)
			return
		}
		fail(w, r, failBroadcast)
		return
	}
	b.demand.note(now)
	switch a.Kind {
	case fold.KindMedia:
		s.audience.stays(a.Channel, s.viewer(r), now)
		s.serveMedia(w, r, a, b)
	case fold.KindPart:
		s.servePart(w, r, a, b)
	case fold.KindSegment:
		s.serveSegment(w, r, a, b)
	case fold.KindInit:
		s.serveInit(w, r, a, b)
	case fold.KindThumbnail:
		data, err := b.loadThumbnail(r.Context(), now, &w.delivery)
		if err != nil {
			s.failWith(w, r, err)
			return
		}
		serveBytes(w, r, typeJPEG, thumbnail, data)
	}
}

func (s *Service) serveMultivariant(w *response, r *http.Request, a *fold.Address, state *channelState) {
	b := state.live
	if b == nil {
		s.failWith(w, r, state.err)
		return
	}
	b.demand.note(time.Now())
	known, err := s.waiters.waitListable(r.Context(), b.view, startWait)
	switch {
	case errors.Is(err, errTimeout):
		fail(w, r, failStarting)
	case err != nil:
		s.failWith(w, r, err)
	case known.Ended:
		fail(w, r, failNotLive)
	default:
		known = s.waiters.waitSegments(r.Context(), b.view, firstSegmentWait, allSegmentsWait)
		zip := acceptsGzip(r)
		servePlaylist(w, r, never, s.renderMultivariant(known, a.Channel, b.id, zip), zip)
	}
}

// renderMultivariant renders what a broadcast offers, at this edge and at the next
// one where there are several.
func (s *Service) renderMultivariant(known *shown, channel, broadcast string, zip bool) []byte {
	paths := s.edges.pathways()
	if len(paths) == 0 {
		return known.renderMultivariant(broadcast, zip)
	}
	places := make([]fold.Place, len(paths))
	for i, p := range paths {
		places[i] = fold.Place{Base: p.base + "/hls/" + channel + "/" + broadcast + "/", Pathway: p.id}
	}
	m := known.Multivariant(places...)
	m.SteeringURI, m.Pathway = s.edges.steering(channel, paths), paths[0].id
	if !zip {
		return m.Append(nil)
	}
	return compress(m.Append(nil))
}

func (s *Service) serveMedia(w *response, r *http.Request, a *fold.Address, b *broadcast) {
	d, err := fold.ParseDirectives(r.URL.RawQuery)
	if err != nil {
		fail(w, r, failure{http.StatusBadRequest, "bad_directive", err.Error() + ".", ""})
		return
	}
	now, err := s.waiters.waitRendition(r.Context(), b.view, a.Rendition, startWait)
	switch {
	case errors.Is(err, errTimeout):
		fail(w, r, failStarting)
	case errors.Is(err, errSkipped):
		fail(w, r, failRendition)
	case err != nil:
		s.failWith(w, r, err)
	case d.Blocking && !now.Ended:
		s.serveReload(w, r, a, b, now, d)
	default:
		s.servePlain(w, r, a, b, now, d)
	}
}

// servePlain answers a playlist request without directives that block.
func (s *Service) servePlain(w *response, r *http.Request, a *fold.Address, b *broadcast, now *shownRendition, d fold.Directives) {
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
		var err error
		now, err = s.waiters.wait(r.Context(), b.view, a.Rendition, limit, func(r *shownRendition) bool {
			last, lastPart, _ := r.Last()
			return r.Ended || last != sequence || lastPart != part
		})
		if r.Context().Err() != nil {
			s.failWith(w, r, err)
			return
		}
	}
	zip := acceptsGzip(r)
	servePlaylist(w, r, cache, b.view.renderMedia(now, d.Skip, zip), zip)
}

// serveReload answers a blocking playlist reload (RFC 8216bis, 6.2.5.2).
func (s *Service) serveReload(w *response, r *http.Request, a *fold.Address, b *broadcast, now *shownRendition, d fold.Directives) {
	w.kind = fold.KindReload
	if now.TooFar(d.Sequence, d.Part) {
		fail(w, r, failAhead)
		return
	}
	cache := short
	if last, _, _ := now.Last(); d.Sequence >= last {
		// Each answer to a reload near the end has an address of its own, which
		// other viewers ask for. "A successful response to a blocking Playlist
		// request SHOULD be cached for six Target Durations" (appendix B.1).
		cache = []string{sharedFor + strconv.Itoa(6*now.TargetDuration)}
	}
	now, err := s.waiters.waitReload(r.Context(), b.view, a.Rendition, d)
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
	zip := acceptsGzip(r)
	servePlaylist(w, r, cache, b.view.renderMedia(now, d.Skip, zip), zip)
}

func (s *Service) servePart(w *response, r *http.Request, a *fold.Address, b *broadcast) {
	now := b.view.rendition(a.Rendition)
	if now == nil {
		fail(w, r, failMedia)
		return
	}
	b.demand.noteParts(a.Rendition, time.Now())
	if now.Part(a) == nil {
		// The server SHOULD respond with 404 to a request for a resource that
		// it cannot find and that is not specified by an EXT-X-PRELOAD-HINT
		// tag in an active Media Playlist (6.2.6).
		if !now.Awaits(a) {
			fail(w, r, failMedia)
			return
		}
		_, err := s.waiters.waitPart(r.Context(), b.view, a)
		switch {
		case errors.Is(err, errSkipped), errors.Is(err, errReleased), errors.Is(err, errTimeout):
			fail(w, r, failMedia)
			return
		case err != nil:
			s.failWith(w, r, err)
			return
		}
	}
	if r.Method == http.MethodHead {
		size := 0
		if p := b.view.rendition(a.Rendition).Part(a); p != nil {
			size = p.Size
		}
		serveHead(w, b.contentType(a), forever, size)
		return
	}
	// No byte is sent before all of the part is here.
	data, err := b.loadPart(r.Context(), a, &w.delivery)
	s.serveMediaBytes(w, r, a, b, data, err)
}

func (s *Service) serveSegment(w *response, r *http.Request, a *fold.Address, b *broadcast) {
	if r.Method == http.MethodHead {
		size, err := b.segmentSize(r.Context(), a)
		if err != nil {
			s.failWith(w, r, err)
			return
		}
		serveHead(w, b.contentType(a), forever, size)
		return
	}
	data, err := b.loadSegment(r.Context(), a, &w.delivery)
	s.serveMediaBytes(w, r, a, b, data, err)
}

// serveMediaBytes answers with a part or segment, and counts who took it as a viewer.
func (s *Service) serveMediaBytes(w *response, r *http.Request, a *fold.Address, b *broadcast, data []byte, err error) {
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	serveBytes(w, r, b.contentType(a), forever, data)
	if w.bytes > 0 {
		s.audience.took(a.Channel, s.viewer(r), time.Now())
	}
}

func (s *Service) serveInit(w *response, r *http.Request, a *fold.Address, b *broadcast) {
	// Another edge that is a little ahead may have listed it.
	init, err := s.waiters.waitInit(r.Context(), b.view, a)
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	if r.Method == http.MethodHead {
		serveHead(w, b.contentType(a), forever, init.Size)
		return
	}
	data, err := b.loadInit(r.Context(), a, &w.delivery)
	if err != nil {
		s.failWith(w, r, err)
		return
	}
	serveBytes(w, r, b.contentType(a), forever, data)
}

// contentType is that of media of a rendition.
func (b *broadcast) contentType(a *fold.Address) []string {
	if now := b.view.rendition(a.Rendition); now != nil && now.Info.Kind == media.Audio {
		return typeAudio
	}
	return typeVideo
}
