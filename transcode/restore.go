package transcode

import (
	"context"
	"log/slog"
	"time"

	"millrace/internal/index"
)

// maxRestore bounds what is read of an earlier worker's index, in entries.
const maxRestore = 20000

// restore tells the publication what earlier workers made. Without Redis it
// goes on without: edges remember.
func (s *Service) restore(ctx context.Context, broadcast string, pub *publication, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	messages, err := s.cfg.Redis.XRevRangeN(ctx, index.StreamKey(broadcast), "+", "-", maxRestore).Result()
	if err != nil {
		log.Warn("the index of earlier workers can't be read", "err", err)
		return
	}
	entries := make([]index.Entry, 0, len(messages))
	for i := len(messages) - 1; i >= 0; i-- {
		doc, _ := messages[i].Values[index.Field].(string)
		e, err := index.Parse([]byte(doc))
		if err != nil {
			log.Warn("an index entry can't be read", "id", messages[i].ID, "err", err)
			continue
		}
		entries = append(entries, e)
	}
	pub.restore(entries)
}
