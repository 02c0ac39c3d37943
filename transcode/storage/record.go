package storage

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
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
	// maxRewrite is how many of a broadcast's entries are written again when
	// Redis has lost them.
	maxRewrite = maxWaiting / 2
	// recordBatch is how many are written at a time.
	recordBatch = 256
	// recordTimeout bounds one write.
	recordTimeout = 3 * time.Second
	// recordTail is how many entries of a broadcast are kept after they were
	// written: more than a Redis with a replica or a log loses.
	recordTail = 64
	// recordCheck is a recorder's check.
	recordCheck = 5 * time.Second
	// countIdle is how long a broadcast's count outlives its last entry.
	countIdle = 30 * time.Minute
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

//go:embed record.lua
var recordSource string

// countsKey holds how many entries each writer has put into a broadcast's index.
func countsKey(broadcast string) string { return "millrace:broadcast:{" + broadcast + "}:written" }

// recorderConfig is what a recorder needs; all of it is required but Check.
type recorderConfig struct {
	Redis redis.UniversalClient
	// Expire is how long an index outlives its last entry.
	Expire time.Duration
	// Check is how often Redis is asked whether it has all of it still; 0: each 5 s.
	Check   time.Duration
	Log     *slog.Logger
	Metrics *metrics
	// Written is called for each entry that is in Redis; Again asks for all of a
	// broadcast's, since Redis has lost them. Both are called by run.
	Written func(broadcast string, e index.Entry)
	Again   func(broadcast string)
}

// recorder writes index entries to Redis, behind everybody's back: it keeps
// what can't be written yet, in bounds.
//
// Entries are numbered, and the number of the last one stands in Redis beside
// them. So one whose answer was lost is not written twice, and when Redis has
// lost some that it had acknowledged (by a failover, or a restart without its
// log) the number shows it: they are written again.
type recorder struct {
	recorderConfig

	mu      sync.Mutex
	changed chan struct{}
	queue   []pending
	counts  map[string]*count
	// rewrite holds broadcasts to ask again for, checked is when Redis was asked last.
	rewrite map[string]struct{}
	checked time.Time
	// ended and active are notes for the sweep that aren't written yet; noted
	// is when a broadcast's activity was noted last.
	ended, active, noted map[string]time.Time
}

// pending is an entry on its way to Redis.
type pending struct {
	count  *count
	entry  index.Entry
	doc    []byte
	number uint64
	// length is the index's, in entries.
	length int
}

// count numbers what this process writes of one broadcast.
type count struct {
	broadcast string
	// writer names it in Redis, and no other one before or after it.
	writer string
	// added is the last entry's number, acknowledged the last one's in Redis.
	added, acknowledged uint64
	// tail are the newest that were acknowledged.
	tail []pending
	used time.Time
}

func newRecorder(c recorderConfig) *recorder {
	c.Check = cmp.Or(c.Check, recordCheck)
	return &recorder{
		recorderConfig: c, changed: make(chan struct{}),
		counts: map[string]*count{}, rewrite: map[string]struct{}{},
		ended: map[string]time.Time{}, active: map[string]time.Time{}, noted: map[string]time.Time{},
	}
}

// add takes an entry; it doesn't block.
func (r *recorder) add(broadcast string, e index.Entry, length int) {
	doc, err := json.Marshal(e)
	if err != nil {
		r.Metrics.indexDropped.WithLabelValues("not encodable").Inc()
		r.Log.Error("an index entry can't be encoded", "broadcast", broadcast, "err", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts[broadcast]
	if c == nil {
		c = &count{broadcast: broadcast, writer: rand.Text()}
		r.counts[broadcast] = c
	}
	c.used = time.Now()
	r.addLocked(pending{count: c, entry: e, doc: doc, length: length})
}

func (r *recorder) addLocked(e pending) {
	e.count.added++
	e.number = e.count.added
	r.queue = append(r.queue, e)
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
func (r *recorder) noteEnd(broadcast string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended[broadcast] = at
	r.wakeLocked()
}

// forget says that a broadcast's entries can't be asked for again.
func (r *recorder) forget(broadcast string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.counts, broadcast)
	delete(r.rewrite, broadcast)
}

// run writes until ctx ends, then tries for as long as drain lasts.
func (r *recorder) run(ctx context.Context, drain time.Duration) {
	tick := time.NewTicker(r.Check)
	defer tick.Stop()
	pause := firstRetry
	for ctx.Err() == nil {
		r.askAgain()
		changed, idle := r.state()
		if idle {
			select {
			case <-ctx.Done():
				continue
			case <-changed:
				continue
			case <-tick.C: // a flush of nothing only looks
			}
		}
		if err := r.flush(ctx); err == nil {
			pause = firstRetry
			continue
		} else if ctx.Err() == nil {
			r.Metrics.indexErrors.Inc()
			r.Log.Warn("the index can't be written to Redis: it is kept and written later", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastRecordRetry)
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	for {
		r.askAgain()
		if _, idle := r.state(); idle {
			return
		}
		if err := r.flush(patience); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.Metrics.indexDropped.WithLabelValues(dropShutdown).Add(float64(len(r.queue)))
			return
		}
	}
}

// lastRecordRetry is the longest pause between tries: what waits for Redis is
// small, and what waits for it is told soon after its return.
const lastRecordRetry = time.Second

// askAgain asks for the entries of one broadcast that Redis has lost, when
// there is room for them.
func (r *recorder) askAgain() {
	r.mu.Lock()
	broadcast, found := "", false
	if len(r.queue) <= maxWaiting/4 {
		for broadcast = range r.rewrite {
			found = true
			delete(r.rewrite, broadcast)
			break
		}
	}
	r.mu.Unlock()
	if found {
		r.Again(broadcast)
	}
}

func (r *recorder) state() (changed chan struct{}, idle bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed, len(r.queue)+len(r.ended)+len(r.active)+len(r.rewrite) == 0
}

// batch is what is written of one broadcast at a time; nothing only looks.
type batch struct {
	count   *count
	entries []pending
	cmd     *redis.Cmd
}

// flush writes one batch of each broadcast, and keeps what could not be written.
func (r *recorder) flush(ctx context.Context) error {
	batches, ended, active := r.takeBatches(time.Now())
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	_, err := r.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, b := range batches {
			args := []any{b.count.writer, 0, r.Expire.Milliseconds(), 0}
			for _, e := range b.entries {
				args = append(args, e.doc)
			}
			if len(b.entries) > 0 {
				args[1], args[3] = b.entries[len(b.entries)-1].length, b.entries[0].number
			}
			b.cmd = p.Eval(ctx, recordSource, []string{index.StreamKey(b.count.broadcast), countsKey(b.count.broadcast)}, args...)
		}
		for b, at := range active {
			p.ZAddGT(ctx, activeKey, redis.Z{Score: float64(at.UnixMilli()), Member: b})
		}
		for b, at := range ended {
			p.ZAddNX(ctx, endedKey, redis.Z{Score: float64(at.UnixMilli()), Member: b})
		}
		return nil
	})
	failed := r.acknowledge(batches)
	for _, b := range batches {
		if b.cmd.Err() == nil {
			for _, e := range b.entries {
				r.Written(b.count.broadcast, e.entry)
			}
		}
	}
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(failed, r.queue...)
	r.trimLocked()
	for b, at := range ended {
		if _, newer := r.ended[b]; !newer {
			r.ended[b] = at
		}
	}
	for b, at := range active {
		if r.active[b].Before(at) {
			r.active[b] = at
		}
	}
	return fmt.Errorf("write %d index entries: %w", len(failed), err)
}

// takeBatches takes the oldest of the queue, by broadcast. When it is time it
// adds a look at all others.
func (r *recorder) takeBatches(now time.Time) (batches []*batch, ended, active map[string]time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.queue), recordBatch)
	of := map[*count]*batch{}
	for _, e := range r.queue[:n] {
		b := of[e.count]
		if b == nil {
			b = &batch{count: e.count}
			of[e.count] = b
			batches = append(batches, b)
		}
		b.entries = append(b.entries, e)
	}
	r.queue = r.queue[n:]
	if now.Sub(r.checked) >= r.Check/2 {
		r.checked = now
		for broadcast, c := range r.counts {
			switch {
			case now.Sub(c.used) > countIdle:
				delete(r.counts, broadcast)
			case of[c] == nil && c.acknowledged > 0:
				batches = append(batches, &batch{count: c})
			}
		}
	}
	ended, active = r.ended, r.active
	r.ended, r.active = map[string]time.Time{}, map[string]time.Time{}
	return batches, ended, active
}

// acknowledge notes what is in Redis now, and returns what isn't. It sees to it that
// what Redis has lost is written again.
func (r *recorder) acknowledge(batches []*batch) (failed []pending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range batches {
		c := b.count
		found, err := b.cmd.Uint64()
		if err != nil {
			failed = append(failed, b.entries...)
			continue
		}
		known, tail := c.acknowledged, c.tail
		c.acknowledged = found
		if n := len(b.entries); n > 0 {
			c.acknowledged = max(found, b.entries[n-1].number)
			c.tail = append(c.tail, b.entries...)
		}
		if found < known {
			r.lostLocked(c, tail, found, known)
		}
		if over := len(c.tail) - recordTail; over > 0 {
			c.tail = append([]pending(nil), c.tail[over:]...)
		}
	}
	return failed
}

// lostLocked sees to it that the entries after found are written again: from
// the tail when it reaches back to them, else all that the broadcast's catalogue has.
func (r *recorder) lostLocked(c *count, tail []pending, found, known uint64) {
	r.Metrics.indexLost.Add(float64(known - found))
	r.Log.Warn("Redis has lost index entries that it had acknowledged: they are written again",
		"broadcast", c.broadcast, "entries", known-found)
	if len(tail) == 0 || tail[0].number > found+1 {
		r.rewrite[c.broadcast] = struct{}{}
		r.active[c.broadcast] = time.Now()
		r.wakeLocked()
		return
	}
	for _, e := range tail {
		if e.number > found {
			r.addLocked(e)
		}
	}
}

// trimLocked drops the oldest beyond the bound. What was dropped is asked for
// when there is room again.
func (r *recorder) trimLocked() {
	over := len(r.queue) - maxWaiting
	if over <= 0 {
		return
	}
	for _, e := range r.queue[:over] {
		r.rewrite[e.count.broadcast] = struct{}{}
	}
	r.queue = append([]pending(nil), r.queue[over:]...)
	r.Metrics.indexDropped.WithLabelValues("queue full").Add(float64(over))
}

func (r *recorder) wakeLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}
