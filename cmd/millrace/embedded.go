package main

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/objects"
)

// redisReach is how long a Redis that the settings name may take to answer at
// the start.
const redisReach = 5 * time.Second

// startBacking starts the Redis and the S3 server that the settings don't name,
// and reaches those that they do.
func (p *process) startBacking(ctx context.Context) error {
	if err := p.startRedis(ctx); err != nil {
		return err
	}
	db, err := p.redis()
	if err != nil {
		return err
	}
	p.needs = append(p.needs, dependency{
		name: "redis", check: func(ctx context.Context) error { return db.Ping(ctx).Err() },
		// What is live goes on without Redis: edges that all turned unready at
		// once would take it from every viewer.
		optional: p.role == roleEdge,
	})
	if p.role.bucket() {
		if err := p.startBucket(ctx); err != nil {
			return err
		}
		p.needs = append(p.needs, dependency{name: "s3", check: p.bucket.Reach, optional: true}) // what is live goes on without
	}
	if !p.role.runs(roleAPI) {
		return nil
	}
	if p.store, err = openStore(ctx, p.settings); err != nil {
		return err
	}
	p.onClose = append(p.onClose, func() { _ = p.store.Close() })
	p.needs = append(p.needs, dependency{name: "database", check: p.store.Ping})
	if p.role == roleAll {
		p.demo, err = ensureDemo(ctx, p.store)
	}
	return err
}

func (p *process) startRedis(ctx context.Context) error {
	if p.settings.Redis != "" {
		p.openRedis = func() (redis.UniversalClient, error) { return openRedis(p.settings.Redis) }
		return reachRedis(ctx, p.openRedis)
	}
	r, err := newRedisChild(p.settings.Data, p.log)
	if err != nil {
		return err
	}
	ready := make(chan error, 1)
	p.layers.start(levelBacking, "redis-server", func(ctx context.Context) error { return r.Run(ctx, ready) })
	p.openRedis = func() (redis.UniversalClient, error) { return openSocket(r.socket), nil }
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reachRedis says plainly when a named Redis doesn't answer.
func reachRedis(ctx context.Context, open func() (redis.UniversalClient, error)) error {
	db, err := open()
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, redisReach)
	defer cancel()
	if err := db.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("the Redis that --redis names can't be reached: %w; check the URL, and that it runs", err)
	}
	return nil
}

func (p *process) startBucket(ctx context.Context) error {
	if p.settings.S3Bucket != "" {
		err := p.openBucket(ctx, objects.Config{
			Endpoint: p.settings.S3Endpoint, Bucket: p.settings.S3Bucket, Region: p.settings.S3Region,
			AccessKey: string(p.settings.S3AccessKey), SecretKey: string(p.settings.S3SecretKey),
		})
		if err != nil {
			return err
		}
		return p.bucket.Check(ctx)
	}
	s, err := newS3Server(p.settings.Data, p.shares.fetches+p.shares.stores, p.log)
	if err != nil {
		return err
	}
	p.storeDir = s.dir
	if err := p.openBucket(ctx, s.config()); err != nil {
		return err
	}
	p.layers.start(levelBacking, "S3 server", func(ctx context.Context) error {
		// The server would wait 5 s for a connection that was made and not used yet.
		defer context.AfterFunc(ctx, func() {
			p.bucket.CloseIdle()
			p.edgeBucket.CloseIdle()
		})()
		return s.Run(ctx)
	})
	// A stop must wait here too: the S3 server doesn't end when it is asked to
	// before it listens.
	if err := s.await(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return p.bucket.Create(ctx)
}

// openBucket opens the bucket twice, with connections of their own.
func (p *process) openBucket(ctx context.Context, c objects.Config) (err error) {
	c.Connections = p.shares.stores
	if p.bucket, err = objects.Open(ctx, c); err != nil {
		return err
	}
	c.Connections = p.shares.fetches
	p.edgeBucket, err = objects.Open(ctx, c)
	return err
}
