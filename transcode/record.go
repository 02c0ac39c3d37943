package transcode

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
)

// The bounds of what waits for Redis.
const (
	// maxWaiting is how many entries wait while Redis is away.
	maxWaiting = 10000
	// recordBatch is how many are written at a time.
	recordBatch = 256
	// recordTimeout bounds one write.
	recordTimeout = 3 * time.Second
	// activityInterval is how often a broadcast's activity is noted at most.
	activityInterval = time.Minute
)

// The sorted sets that the sweep works from.
const (
	// endedKey holds ended broadcasts by the time of their end, in Unix milliseconds.
	endedKey = "millrace:ended"
	// activeKey holds all broadcasts with objects by the time of their last activity.
	activeKey = "millrace:broadcasts"
)

// recorder writes index entries to Redis, behind everybody's back: it keeps
// what can't be written yet, in bounds, and drops the oldest beyond them. An
// entry whose answer is lost is written twice, which its readers fold away.
type recorder struct {
	db redis.UniversalClient
	// expire is how long an index outlives its last entry.
	expire  time.Duration
	log     *slog.Logger
	metrics *storageMetrics

	mu      sync.Mutex
	changed chan struct{}
	queue   []recorded
	// ended and active are notes for the sweep that aren't written yet; noted
	// is when a broadcast's activity was noted last.
	ended, active, noted map[string]time.Time
}

// recorded is an entry on its way to Redis.
type recorded struct {
	broadcast string
	doc       []byte
	// length is the index's, in entries.
	length int
}

func newRecorder(db redis.UniversalClient, expire time.Duration, log *slog.Logger, m *storageMetrics) *recorder {
	return &recorder{
		db: db, expire: expire, log: log, metrics: m, changed: make(chan struct{}),
		ended: map[string]time.Time{}, active: map[string]time.Time{}, noted: map[string]time.Time{},
	}
}

// add takes an entry; it doesn't block.
func (r *recorder) add(broadcast string, e index.Entry, length int) {
	doc, err := json.Marshal(e)
	if err != nil {
		r.metrics.indexDropped.WithLabelValues("not encodable").Inc()
		r.log.Error("an index entry can't be encoded", "broadcast", broadcast, "err", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(r.queue, recorded{broadcast, doc, length})
	r.trimLocked()
	r.wakeLocked()
}

// noteActivity keeps the sweep away from a broadcast; it doesn't block.
func (r *recorder) noteActivity(broadcast string) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.noted[broadcast]) < activityInterval {
		return
	}
	for b, at := range r.noted {
		if now.Sub(at) >= activityInterval {
			delete(r.noted, b)
		}
	}
	r.noted[broadcast], r.active[broadcast] = now, now
	r.wakeLocked()
}

// noteEnd starts a broadcast's retention; it doesn't block.
func (r *recorder) noteEnd(broadcast string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended[broadcast] = time.Now()
	r.wakeLocked()
}

// run writes until ctx ends, then tries for as long as drain lasts.
func (r *recorder) run(ctx context.Context, drain time.Duration) {
	pause := firstRetry
	for ctx.Err() == nil {
		changed, idle := r.state()
		if idle {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if err := r.flush(ctx); err == nil {
			pause = firstRetry
			continue
		} else if ctx.Err() == nil {
			r.metrics.indexErrors.Inc()
			r.log.Warn("the index can't be written to Redis: it is kept and written later", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastRetry)
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	for {
		if _, idle := r.state(); idle {
			return
		}
		if err := r.flush(patience); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.metrics.indexDropped.WithLabelValues(dropShutdown).Add(float64(len(r.queue)))
			return
		}
	}
}

func (r *recorder) state() (changed chan struct{}, idle bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed, len(r.queue)+len(r.ended)+len(r.active) == 0
}

// flush writes one batch, and keeps what could not be written.
func (r *recorder) flush(ctx context.Context) error {
	r.mu.Lock()
	n := min(len(r.queue), recordBatch)
	batch := r.queue[:n:n]
	r.queue = r.queue[n:]
	ended, active := r.ended, r.active
	r.ended, r.active = map[string]time.Time{}, map[string]time.Time{}
	r.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	cmds := make([]redis.Cmder, len(batch))
	_, err := r.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		touched := map[string]bool{}
		for i, e := range batch {
			cmds[i] = p.XAdd(ctx, &redis.XAddArgs{
				Stream: index.StreamKey(e.broadcast), MaxLen: int64(e.length), Approx: true, Values: []any{index.Field, e.doc},
			})
			touched[e.broadcast] = true
		}
		for b := range touched {
			p.PExpire(ctx, index.StreamKey(b), r.expire)
		}
		for b, at := range active {
			p.ZAddGT(ctx, activeKey, redis.Z{Score: float64(at.UnixMilli()), Member: b})
		}
		for b, at := range ended {
			p.ZAddNX(ctx, endedKey, redis.Z{Score: float64(at.UnixMilli()), Member: b})
		}
		return nil
	})
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var again []recorded
	for i, e := range batch {
		if cmds[i].Err() != nil {
			again = append(again, e)
		}
	}
	r.queue = append(again, r.queue...)
	r.trimLocked()
	for b, at := range ended {
		r.ended[b] = at
	}
	for b, at := range active {
		if r.active[b].Before(at) {
			r.active[b] = at
		}
	}
	return fmt.Errorf("write %d index entries: %w", len(batch), err)
}

func (r *recorder) trimLocked() {
	if over := len(r.queue) - maxWaiting; over > 0 {
		r.queue = append([]recorded(nil), r.queue[over:]...)
		r.metrics.indexDropped.WithLabelValues("queue full").Add(float64(over))
	}
}

func (r *recorder) wakeLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}
