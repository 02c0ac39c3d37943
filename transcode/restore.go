package transcode

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"millrace/internal/index"
	"millrace/transcode/storage"
)

const (
	// maxRestore bounds what is read of an earlier worker's index, in entries.
	maxRestore = 20000
	// earlierPatience is how long the first segment waits for what earlier
	// workers announced.
	earlierPatience = 150 * time.Millisecond
)

// earlier is what earlier workers announced of a broadcast: players know those
// renditions. Its zero value isn't usable; safe for concurrent use.
type earlier struct {
	once       sync.Once
	known      chan struct{} // closed once renditions is set
	renditions []index.Rendition
}

func newEarlier() *earlier { return &earlier{known: make(chan struct{})} }

func (e *earlier) set(renditions []index.Rendition) {
	e.once.Do(func() {
		e.renditions = renditions
		close(e.known)
	})
}

// get waits for the renditions; empty when they aren't known.
func (e *earlier) get() []index.Rendition {
	patience := time.NewTimer(earlierPatience)
	defer patience.Stop()
	select {
	case <-e.known:
		return e.renditions
	case <-patience.C:
		return nil
	}
}

// restore tells the publication, and what is waiting for it, what earlier
// workers made. Without Redis it goes on without: edges remember.
func (s *Service) restore(ctx context.Context, broadcast string, pub *storage.Writer, about *earlier, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	defer about.set(nil)
	note := func(entries []index.Entry) {
		for _, e := range slices.Backward(entries) {
			if e.Type == index.TypeBroadcast {
				about.set(e.Broadcast.Renditions)
				return
			}
		}
	}
	r := index.Reader{DB: s.cfg.Redis, Broadcast: broadcast, Malformed: func(id string, err error) {
		log.Warn("an index entry can't be read", "id", id, "err", err)
	}}
	entries, err := r.Head(ctx)
	if err == nil {
		note(entries)
		entries, err = r.Tail(ctx, 0, maxRestore)
	}
	if err != nil {
		log.Warn("the index of earlier workers can't be read", "err", err)
		return
	}
	note(entries)
	pub.Restore(entries)
}
