package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/api/store"
	"millrace/internal/credentials"
	"millrace/internal/session"
)

const (
	// keysEvery is how often the stream keys are copied to Redis at least.
	keysEvery = 30 * time.Second
	// watchEvery is how often Redis is asked who it is, to see that it came back.
	watchEvery = time.Second
)

// PublishKeys makes the channels in Redis, with their stream keys, equal to those in SQL.
func PublishKeys(ctx context.Context, st *store.Store, db redis.UniversalClient) error {
	all, err := st.Catalogue(ctx)
	for err == nil {
		if err = credentials.Replace(ctx, db, all); err != nil {
			break
		}
		// Somebody else may have changed SQL and copied it since it was read
		// here: then the older keys have just overwritten the newer.
		before := all.Version
		if all, err = st.Catalogue(ctx); err == nil && all.Version == before {
			return nil
		}
	}
	return fmt.Errorf("copy stream keys to Redis: %w", err)
}

// PublishTokens makes the tokens of chat in Redis equal to those in SQL.
func PublishTokens(ctx context.Context, st *store.Store, db redis.UniversalClient) error {
	tokens, err := st.Tokens(ctx)
	for err == nil {
		if err = session.Replace(ctx, db, tokens); err != nil {
			break
		}
		before := tokens // as in PublishKeys
		if tokens, err = st.Tokens(ctx); err == nil && maps.Equal(before, tokens) {
			return nil
		}
	}
	return fmt.Errorf("copy tokens to Redis: %w", err)
}

// followKeys copies the keys at the start, every keysEvery, and when Redis is
// another process than a second ago or answers again.
func (s *Service) followKeys(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var copied time.Time // zero: Redis may not have them
	var server string
	for {
		now, err := serverID(ctx, s.redis)
		if err != nil || now != server {
			copied = time.Time{}
		}
		server = now
		if err == nil && time.Since(copied) >= keysEvery {
			if err = errors.Join(PublishKeys(ctx, s.store, s.redis), PublishTokens(ctx, s.store, s.redis)); err == nil {
				copied = time.Now()
				s.metrics.keySyncs.WithLabelValues("ok").Inc()
			}
		}
		if err != nil && ctx.Err() == nil {
			s.metrics.keySyncs.WithLabelValues("failed").Inc()
			s.faults.Log(s.log, slog.LevelError, "keep stream keys in Redis", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// serverID names the Redis process that answers.
func serverID(ctx context.Context, db redis.UniversalClient) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	info, err := db.Info(ctx, "server").Result()
	if err != nil {
		return "", fmt.Errorf("ask Redis who it is: %w", err)
	}
	_, rest, _ := strings.Cut(info, "run_id:")
	id, _, _ := strings.Cut(rest, "\r\n")
	return id, nil
}
