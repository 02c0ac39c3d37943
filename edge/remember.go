package edge

import (
	"context"
	"sync/atomic"
	"time"

	"millrace/edge/fold"
	"millrace/internal/index"
	"millrace/internal/sparselog"
)

const (
	// redisTimeout bounds one read from Redis.
	redisTimeout = 2 * time.Second
	// maxIndex bounds the entries of a broadcast that are read from Redis.
	maxIndex = 10_000
)

// memory is what a broadcast has read of its index in Redis.
type memory struct {
	// reading is set while it is being read.
	reading atomic.Bool

	// Owned by who has set reading.
	index  index.Reader
	faults sparselog.Limiter
}

func (b *broadcast) newMemory() *memory {
	return &memory{index: index.Reader{
		DB: b.service.cfg.Redis, Broadcast: b.id,
		Malformed: func(string, error) {
			b.service.metrics.refused.WithLabelValues(string(fold.RefusedMalformed)).Inc()
		},
	}}
}

// remember applies the head of the index in Redis, where the settings stand, and
// its tail, as far back as playlists reach.
func (b *broadcast) remember(ctx context.Context, m *memory) error {
	ctx, cancel := context.WithTimeout(ctx, 2*redisTimeout)
	defer cancel()
	head, err := m.index.Head(ctx)
	if err != nil {
		return err
	}
	tail, err := m.index.Tail(ctx, b.service.cfg.DVRWindow+followFor, maxIndex)
	if err != nil {
		return err
	}
	b.apply(append(head, tail...))
	return nil
}

// catchUp applies what came into Redis after what was read last: the way to go
// on while no worker can be reached.
func (b *broadcast) catchUp(ctx context.Context, m *memory) {
	if err := b.readNext(ctx, m); err != nil && ctx.Err() == nil {
		b.service.metrics.redis.Inc()
		m.faults.Warn(b.log, "the index can't be read from Redis", err)
	}
}

func (b *broadcast) readNext(ctx context.Context, m *memory) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	entries, err := m.index.Next(ctx)
	if err == nil && len(entries) > 0 {
		b.apply(entries)
	}
	return err
}
