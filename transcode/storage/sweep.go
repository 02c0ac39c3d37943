package storage

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/internal/objects"
)

const (
	sweepInterval = time.Minute
	// sweepKey is the lock that one worker sweeps under.
	sweepKey = "millrace:sweep"
	// sweepTime bounds one pass; the lock outlives it.
	sweepTime = 45 * time.Second
	sweepLock = 60 * time.Second
	// sweepBroadcasts bounds the broadcasts of one pass, of each kind.
	sweepBroadcasts = 100
)

//go:embed unlock.lua
var unlockSource string

var unlockScript = redis.NewScript(unlockSource)

// sweeper deletes broadcasts whose retention is over: those that ended, and
// those that nobody ended but that have been silent for longer.
type sweeper struct {
	db                 redis.UniversalClient
	bucket             *objects.Bucket
	retention, silence time.Duration
	log                *slog.Logger
	metrics            *metrics
}

// run sweeps every minute until ctx ends.
func (s *sweeper) run(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := s.sweep(ctx, now); err != nil && ctx.Err() == nil {
				s.metrics.sweepErrors.Inc()
				s.log.Warn("old broadcasts can't be deleted: the next sweep tries again", "err", err)
			}
		}
	}
}

// sweep does one pass, unless another worker is at it.
func (s *sweeper) sweep(ctx context.Context, now time.Time) error {
	token := rand.Text()
	ok, err := s.db.SetNX(ctx, sweepKey, token, sweepLock).Result()
	if err != nil {
		return fmt.Errorf("take the sweep's lock: %w", err)
	}
	if !ok {
		return nil
	}
	defer func() {
		// Also when ctx has ended; if it fails, the lock runs out by itself.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := unlockScript.Run(ctx, s.db, []string{sweepKey}, token).Err(); err != nil {
			s.log.Debug("the sweep's lock can't be given back", "err", err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	// An ended broadcast stays among the active ones until it has been silent:
	// segments that come late from somebody's spool are deleted by that.
	if err := s.sweepSet(ctx, endedKey, now.Add(-s.retention)); err != nil {
		return err
	}
	return s.sweepSet(ctx, activeKey, now.Add(-s.silence))
}

// sweepSet deletes the broadcasts of a sorted set that stand before a time. One
// that can't be deleted doesn't keep the others.
func (s *sweeper) sweepSet(ctx context.Context, key string, before time.Time) error {
	ids, err := s.db.ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: key, Start: "-inf", Stop: strconv.FormatInt(before.UnixMilli(), 10), ByScore: true, Count: sweepBroadcasts,
	}).Result()
	if err != nil {
		return fmt.Errorf("list old broadcasts: %w", err)
	}
	var first error
	for _, id := range ids {
		if err := s.remove(ctx, key, id, deleteRetention); err != nil {
			if ctx.Err() != nil {
				return err
			}
			if first == nil {
				first = err
			}
		}
	}
	return first
}

// ended returns the broadcasts that have ended, and when: also those that nobody
// ended and that have been silent since a time.
func (s *sweeper) ended(ctx context.Context, silent time.Time) (map[string]time.Time, error) {
	ended := map[string]time.Time{}
	for key, before := range map[string]string{activeKey: strconv.FormatInt(silent.UnixMilli(), 10), endedKey: "+inf"} {
		found, err := s.db.ZRangeArgsWithScores(ctx, redis.ZRangeArgs{Key: key, Start: "-inf", Stop: before, ByScore: true}).Result()
		if err != nil {
			return nil, fmt.Errorf("list ended broadcasts: %w", err)
		}
		for _, z := range found {
			if id, ok := z.Member.(string); ok && id != "" {
				ended[id] = time.UnixMilli(int64(z.Score))
			}
		}
	}
	return ended, nil
}

// remove deletes a broadcast from S3, then from Redis.
func (s *sweeper) remove(ctx context.Context, key, id, why string) error {
	deleted := 0
	if id != "" {
		err := s.bucket.Survey(ctx, objects.Prefix(id), func(found []objects.Object) error {
			keys, bytes := make([]string, len(found)), int64(0)
			for i, o := range found {
				keys[i] = o.Key
				bytes += o.Size
			}
			if err := s.bucket.Delete(ctx, keys); err != nil {
				return err
			}
			deleted += len(keys)
			s.metrics.sweptObjects.Add(float64(len(keys)))
			s.metrics.deleted(why, len(keys), bytes)
			return nil
		})
		if err != nil {
			return fmt.Errorf("sweep broadcast %s: %w", id, err)
		}
	}
	if err := s.db.Del(ctx, index.StreamKey(id), countsKey(id)).Err(); err != nil {
		return fmt.Errorf("sweep broadcast %s: %w", id, err)
	}
	if err := s.db.HDel(ctx, holdingsKey, id).Err(); err != nil {
		return fmt.Errorf("sweep broadcast %s: %w", id, err)
	}
	if err := s.db.ZRem(ctx, key, id).Err(); err != nil {
		return fmt.Errorf("sweep broadcast %s: %w", id, err)
	}
	if deleted > 0 {
		s.metrics.sweptBroadcasts.Inc()
		s.log.Info("old broadcast deleted", "broadcast", id, "objects", deleted)
	}
	return nil
}
