package storage

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"millrace/internal/index"
)

const (
	// readerLines is how many lines wait for one reader: half a minute of parts
	// of a broadcast with six renditions.
	readerLines = 512
	// writeTimeout bounds one write to a reader of the private listener.
	writeTimeout = 10 * time.Second
)

// feed hands each line to all readers of one broadcast. Its store's lock guards it.
type feed struct {
	readers map[*follower]struct{}
	closed  bool
}

// follower is one follow stream.
type follower struct {
	// lines is closed when no more will come.
	lines chan []byte
}

// send queues a line for every reader. One whose queue is full is cut off: it
// connects again and is told what exists. The number of those is returned.
func (f *feed) send(entries []index.Entry) (slow int, err error) {
	if len(f.readers) == 0 {
		return 0, nil
	}
	line, err := index.AppendLine(nil, entries)
	if err != nil {
		return 0, err
	}
	for r := range f.readers {
		select {
		case r.lines <- line:
		default:
			f.remove(r)
			slow++
		}
	}
	return slow, nil
}

func (f *feed) add() *follower {
	r := &follower{lines: make(chan []byte, readerLines)}
	if f.closed {
		close(r.lines)
		return r
	}
	f.readers[r] = struct{}{}
	return r
}

func (f *feed) remove(r *follower) {
	if _, ok := f.readers[r]; ok {
		delete(f.readers, r)
		close(r.lines)
	}
}

func (f *feed) close() {
	f.closed = true
	for r := range f.readers {
		f.remove(r)
	}
}

// follow subscribes to a broadcast; what exists already comes first.
func (b *broadcastStore) follow() ([][]index.Entry, *follower) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.catalogue.snapshot(), b.feed.add()
}

func (b *broadcastStore) unfollow(r *follower) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.feed.remove(r)
}

// serveFollow answers with a follow stream. It ends with the request, with the
// service, when the reader falls behind, or when the broadcast is forgotten.
func (s *Storage) serveFollow(w http.ResponseWriter, r *http.Request) {
	b := s.find(r.PathValue("broadcast"))
	if b == nil {
		http.Error(w, "this worker doesn't work on that broadcast", http.StatusNotFound)
		return
	}
	s.metrics.readers.Inc()
	defer s.metrics.readers.Dec()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	c := http.NewResponseController(w)
	err := b.stream(r.Context(), w, func() error {
		if err := c.Flush(); err != nil {
			return err
		}
		return extendDeadline(c)
	})
	if err != nil && r.Context().Err() == nil {
		s.Log.Debug("a reader of the follow stream went away", "broadcast", b.id, "err", err)
	}
}

// extendDeadline gives the next write some time. Not every ResponseWriter has deadlines.
func extendDeadline(c *http.ResponseController) error {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// stream writes what exists, then each line as it comes, and an empty one when
// there is none for a while. Each line is flushed.
func (b *broadcastStore) stream(ctx context.Context, w io.Writer, flush func() error) error {
	state, r := b.follow()
	defer b.unfollow(r)
	if state == nil {
		state = [][]index.Entry{nil}
	}
	for _, entries := range state {
		line, err := index.AppendLine(nil, entries)
		if err != nil {
			return err
		}
		if err := writeLine(w, line, flush); err != nil {
			return err
		}
	}
	heartbeat := time.NewTimer(index.Heartbeat)
	defer heartbeat.Stop()
	for {
		var line []byte
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.storage.stopped:
			return nil
		case next, ok := <-r.lines:
			if !ok {
				return nil
			}
			line = next
		case <-heartbeat.C:
			line = emptyLine
		}
		if err := writeLine(w, line, flush); err != nil {
			return err
		}
		heartbeat.Reset(index.Heartbeat)
	}
}

// emptyLine is a sign of life.
var emptyLine = []byte("[]\n")

func writeLine(w io.Writer, line []byte, flush func() error) error {
	if _, err := w.Write(line); err != nil {
		return err
	}
	return flush()
}
