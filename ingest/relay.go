package ingest

import (
	"bufio"
	"errors"
	"net/http"
	"strconv"
	"time"

	"millrace/ingest/timeline"
	"millrace/internal/relay"
)

// relayStall is how long a relay reader may take nothing before it is cut.
const relayStall = 10 * time.Second

// serveRelay answers GET /relay/{broadcast}?from={sequence}.
func (s *Service) serveRelay(w http.ResponseWriter, r *http.Request) {
	b := s.broadcastByID(r.PathValue("broadcast"))
	if b == nil {
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
	out := relayWriter{Writer: bufio.NewWriterSize(w, 64<<10), control: http.NewResponseController(w)}
	out.write([][]byte{relay.Header()})
	out.write(preamble)
	if out.follow(b, number, r.Context().Done()) {
		s.metrics.relayLost.Inc()
	}
}

// relayWriter sends a log to one reader.
type relayWriter struct {
	*bufio.Writer
	control *http.ResponseController
}

// write writes items. An error shows at the flush.
func (w *relayWriter) write(items [][]byte) {
	for _, item := range items {
		_, _ = w.Write(item)
	}
}

func (w *relayWriter) flush() error {
	return errors.Join(w.Flush(), w.control.Flush())
}

// follow sends the log from item number on until it ends, or its reader does. It
// reports whether the reader fell behind the log's oldest item.
func (w *relayWriter) follow(b *broadcast, number uint64, gone <-chan struct{}) (lost bool) {
	buf := make([][]byte, 0, timeline.MaxBatch)
	for done := false; ; {
		items, changed, lost, ended := b.log.Read(number, buf)
		if lost {
			return true
		}
		// Not every connection knows deadlines; one that doesn't goes without.
		_ = w.control.SetWriteDeadline(time.Now().Add(relayStall))
		w.write(items)
		number += uint64(len(items))
		if len(items) == timeline.MaxBatch {
			continue
		}
		if w.flush() != nil || ended {
			return false
		}
		if len(items) > 0 {
			continue
		}
		if done {
			return false
		}
		// Over HTTP/2 a deadline ends the answer even while nothing is written.
		_ = w.control.SetWriteDeadline(time.Time{})
		select {
		case <-changed:
		case <-b.done:
			done = true // what came last, such as the end mark, is still sent
		case <-gone:
			return false
		}
	}
}
