package ingest

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace/ingest/timeline"
	"millrace/internal/media"
	"millrace/internal/relay"
)

// relayStall is how long a relay reader may take nothing before it is cut.
const relayStall = 10 * time.Second

// serveRelay answers GET /relay/{broadcast}.flv?from={sequence}.
func (s *Service) serveRelay(w http.ResponseWriter, r *http.Request) {
	id, flv := strings.CutSuffix(r.PathValue("file"), ".flv")
	b := s.broadcastByID(id)
	if !flv || b == nil {
		http.Error(w, "this ingest has no such broadcast", http.StatusNotFound)
		return
	}
	var from uint64
	newest := !r.URL.Query().Has("from")
	if !newest {
		n, err := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64)
		if err != nil {
			http.Error(w, "from must be a media sequence number", http.StatusBadRequest)
			return
		}
		from = n
	}
	preamble, number, oldest, ok := b.log.From(from, newest)
	if !ok {
		w.Header().Set(relay.OldestHeader, strconv.FormatUint(oldest, 10))
		http.Error(w, "the log no longer reaches back to that segment", http.StatusGone)
		return
	}
	s.metrics.relayReaders.Inc()
	defer s.metrics.relayReaders.Dec()
	w.Header().Set("Content-Type", relay.ContentType)
	out := bufio.NewWriterSize(w, 64<<10)
	control := http.NewResponseController(w)
	// An error of a write shows at the flush below.
	_, _ = out.Write(media.FLVHeader(true, true))
	for _, tag := range preamble {
		_, _ = out.Write(tag)
	}
	buf := make([][]byte, 0, timeline.MaxBatch)
	for done := false; ; {
		tags, changed, lost, ended := b.log.Read(number, buf)
		if lost {
			s.metrics.relayLost.Inc()
			return
		}
		// Not every connection knows deadlines; one that doesn't goes without.
		_ = control.SetWriteDeadline(time.Now().Add(relayStall))
		for _, tag := range tags {
			_, _ = out.Write(tag)
		}
		number += uint64(len(tags))
		if len(tags) == timeline.MaxBatch {
			continue
		}
		if out.Flush() != nil || control.Flush() != nil || ended {
			return
		}
		if len(tags) > 0 {
			continue
		}
		if done {
			return
		}
		// Over HTTP/2 a deadline ends the answer even while nothing is written.
		_ = control.SetWriteDeadline(time.Time{})
		select {
		case <-changed:
		case <-b.done:
			done = true // what came last, such as the end mark, is still sent
		case <-r.Context().Done():
			return
		}
	}
}
