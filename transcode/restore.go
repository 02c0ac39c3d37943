package transcode

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/transcode/storage"
)

const (
	// maxRestore bounds what is read of an earlier worker's index, in entries.
	maxRestore = 20000
	// headEntries is how many of the oldest entries are looked at first: the
	// settings stand there until the stream is trimmed.
	headEntries = 4
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
		for i := len(entries) - 1; i >= 0; i-- {
			if e := entries[i]; e.Type == index.TypeBroadcast {
				about.set(e.Broadcast.Renditions)
				return
			}
		}
	}
	key := index.StreamKey(broadcast)
	head, err := s.cfg.Redis.XRangeN(ctx, key, "-", "+", headEntries).Result()
	if err == nil {
		note(parseIndex(head, log))
		head, err = s.cfg.Redis.XRevRangeN(ctx, key, "+", "-", maxRestore).Result()
	}
	if err != nil {
		log.Warn("the index of earlier workers can't be read", "err", err)
		return
	}
	slices.Reverse(head)
	entries := parseIndex(head, log)
	note(entries)
	pub.Restore(entries)
}

func parseIndex(messages []redis.XMessage, log *slog.Logger) []index.Entry {
	entries := make([]index.Entry, 0, len(messages))
	for _, m := range messages {
		doc, _ := m.Values[index.Field].(string)
		e, err := index.Parse([]byte(doc))
		if err != nil {
			log.Warn("an index entry can't be read", "id", m.ID, "err", err)
			continue
		}
		entries = append(entries, e)
	}
	return entries
}
