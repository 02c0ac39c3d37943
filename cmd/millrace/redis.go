package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Redis that hangs, or that is no longer the master, is given up after so long
// and asked for anew: its Sentinels need a second or more to name another one.
const (
	redisDial    = time.Second
	redisAnswer  = time.Second
	redisRetries = 2
	// redisRetryPause is the longest pause before a retry.
	redisRetryPause = 200 * time.Millisecond
)

// openRedis returns a client of the Redis that a URL names. Times that the URL
// sets are left as they are.
func openRedis(rawURL string) (redis.UniversalClient, error) {
	if strings.Contains(rawURL, "master_name=") {
		o, err := redis.ParseFailoverURL(rawURL)
		if err != nil {
			return nil, badRedisURL(err)
		}
		o.ContextTimeoutEnabled, o.DialerRetries = true, 1
		tuneRedis(&o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.MaxRetryBackoff, &o.MaxRetries, &o.PoolSize)
		return redis.NewFailoverClient(o), nil
	}
	o, err := redis.ParseURL(rawURL)
	if err != nil {
		return nil, badRedisURL(err)
	}
	return newRedisClient(o), nil
}

func newRedisClient(o *redis.Options) *redis.Client {
	o.ContextTimeoutEnabled, o.DialerRetries = true, 1
	tuneRedis(&o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.MaxRetryBackoff, &o.MaxRetries, &o.PoolSize)
	return redis.NewClient(o)
}

// badRedisURL says what is wrong with a URL without showing it: it may hold a password.
func badRedisURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		// What it quotes of the URL may be a part of the password too.
		return errors.New("--redis is no URL; write redis://host:6379 or unix:///path, with / ? # % and @ in a password as %2F %3F %23 %25 %40")
	}
	return fmt.Errorf("--redis: %w; write redis://host:6379 or unix:///path", err)
}

// tuneRedis sets what a URL leaves open.
func tuneRedis(dial, read, write, pause *time.Duration, retries, connections *int) {
	*dial, *retries = cmp.Or(*dial, redisDial), cmp.Or(*retries, redisRetries)
	*connections = cmp.Or(*connections, redisConnections())
	*read, *write = cmp.Or(*read, redisAnswer), cmp.Or(*write, redisAnswer)
	*pause = cmp.Or(*pause, redisRetryPause)
}

// redisConnections bounds the connections of one client: ten for each core, as
// go-redis has it, but a process has some five clients, and on a machine of many
// cores the limit on open files may be small. 20 are enough for what waits.
func redisConnections() int {
	limit, err := descriptorLimit()
	if err != nil {
		limit = 1024 // what is usual where it can't be asked for
	}
	return min(10*runtime.GOMAXPROCS(0), max(20, divide(limit, 0).redis))
}

// openSocket returns a client of the redis-server on a Unix socket.
func openSocket(path string) redis.UniversalClient {
	return newRedisClient(&redis.Options{Network: "unix", Addr: path})
}

// pingSocket asks whether a redis-server answers on a Unix socket. It connects
// by hand first: a client whose connection is refused prints it, and leaves a
// goroutine for a second.
func pingSocket(ctx context.Context, path string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	_ = conn.Close()
	c := redis.NewClient(&redis.Options{
		Network: "unix", Addr: path, MaxRetries: -1, DialerRetries: 1, ReadTimeout: time.Second, ContextTimeoutEnabled: true,
	})
	defer c.Close()
	return c.Ping(ctx).Err()
}
