package edge

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/edge/fold"
	"millrace/internal/index"
	"millrace/internal/sparselog"
)

const (
	// redisTimeout bounds one read from Redis.
	redisTimeout = 2 * time.Second
	// indexPage and maxIndex bound the entries read from Redis at once and in all.
	indexPage = 1000
	maxIndex  = 10_000
)

// remember applies the head of the index stream in Redis, where the settings
// stand, and its tail, as far back as playlists reach. It returns the last id.
func (b *broadcast) remember(ctx context.Context) (last string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*redisTimeout)
	defer cancel()
	head, err := b.service.cfg.Redis.XRangeN(ctx, index.StreamKey(b.id), "-", "+", 32).Result()
	if err != nil {
		return "", fmt.Errorf("read index: %w", err)
	}
	tail, err := b.readTail(ctx)
	if err != nil {
		return "", err
	}
	if n := len(tail); n > 0 {
		last = tail[n-1].ID
	}
	entries := slices.DeleteFunc(b.parse(head), func(e index.Entry) bool {
		return e.Type != index.TypeBroadcast && e.Type != index.TypeInit
	})
	b.apply(append(entries, b.parse(tail)...))
	return last, nil
}

// readTail returns the entries in Redis that are as new as playlists reach back,
// the oldest first.
func (b *broadcast) readTail(ctx context.Context) ([]redis.XMessage, error) {
	var tail []redis.XMessage
	newest, until := int64(0), "+"
	for len(tail) < maxIndex {
		page, err := b.service.cfg.Redis.XRevRangeN(ctx, index.StreamKey(b.id), until, "-", indexPage).Result()
		if err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		tail = append(tail, page...)
		if len(page) < indexPage {
			break
		}
		if newest == 0 {
			newest = streamTime(page[0].ID)
		}
		oldest := page[len(page)-1].ID
		if newest-streamTime(oldest) > (b.service.cfg.DVRWindow + followFor).Milliseconds() {
			break
		}
		until = "(" + oldest
	}
	slices.Reverse(tail)
	return tail, nil
}

// memory is what a broadcast has read of its index in Redis.
type memory struct {
	// reading is set while it is being read.
	reading atomic.Bool

	// Owned by who has set reading.
	last   string // the id of the newest entry read
	faults sparselog.Limiter
}

// catchUp applies what came into Redis after what was read last: the way to go
// on while no worker can be reached.
func (b *broadcast) catchUp(ctx context.Context, m *memory) {
	if err := b.readAfter(ctx, m); err != nil && ctx.Err() == nil {
		b.service.metrics.redis.Inc()
		m.faults.Warn(b.log, "the index can't be read from Redis", err)
	}
}

func (b *broadcast) readAfter(ctx context.Context, m *memory) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	from := "-"
	if m.last != "" {
		from = "(" + m.last
	}
	page, err := b.service.cfg.Redis.XRangeN(ctx, index.StreamKey(b.id), from, "+", indexPage).Result()
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	if len(page) == 0 {
		return nil
	}
	m.last = page[len(page)-1].ID
	entries := b.parse(page)
	b.apply(entries)
	return nil
}

// parse decodes entries of the Redis stream; malformed ones are counted and left out.
func (b *broadcast) parse(messages []redis.XMessage) []index.Entry {
	entries := make([]index.Entry, 0, len(messages))
	for _, m := range messages {
		doc, _ := m.Values[index.Field].(string)
		e, err := index.Parse([]byte(doc))
		if err != nil {
			b.service.metrics.refused.WithLabelValues(string(fold.RefusedMalformed)).Inc()
			continue
		}
		entries = append(entries, e)
	}
	return entries
}

// streamTime returns the milliseconds in a Redis stream id.
func streamTime(id string) int64 {
	ms, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
