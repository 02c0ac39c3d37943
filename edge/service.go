// Package edge serves viewers. It follows the workers of each broadcast that
// somebody watches, folds what they say into state, renders HLS playlists from
// it, and serves media from a bounded cache that reads workers' windows and S3.
// It holds nothing that can be lost.
package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"millrace/internal/objects"
	"millrace/internal/private"
	"millrace/internal/sparselog"
)

// The defaults of Config.
const (
	defaultCacheBytes = 256 << 20
	defaultDVRWindow  = 10 * time.Minute
)

const (
	// maxChannels bounds the channels that are followed; one that nobody asked for
	// within idleAfter makes room for another one.
	maxChannels = 4096
	idleAfter   = 15 * time.Second
	// maxLookups bounds the channels that are looked up at once, maxAbsent those that are
	// remembered as not live for absentFor.
	maxLookups = 1024
	maxAbsent  = 4096
	absentFor  = 500 * time.Millisecond
)

// Config is what an edge needs.
type Config struct {
	// ID names this edge among others.
	ID    string
	Redis redis.UniversalClient
	// Bucket is where segments lie.
	Bucket *objects.Bucket
	// Peers are the workers, whose private listeners are asked, and the other edges.
	Peers *private.Peers
	// CacheBytes bounds the media held in memory; 0 means 256 MiB.
	CacheBytes int64
	// DVRWindow is how far back live playlists reach; 0 means 10 minutes.
	DVRWindow time.Duration
	// PublicURL is the base URL at which players reach this edge, for the lists
	// that edges give of each other; empty: this edge isn't in them.
	PublicURL string
	// TrustedProxies may say in X-Forwarded-For who a viewer is.
	TrustedProxies []netip.Prefix
	Log            *slog.Logger
	Registerer     prometheus.Registerer
}

// Validate names the field that is wrong and the fix.
func (c *Config) Validate() error {
	switch {
	case c.ID == "":
		return errors.New("edge: ID is empty; give each edge a name of its own")
	case c.Redis == nil:
		return errors.New("edge: Redis is missing; pass a client")
	case c.Bucket == nil:
		return errors.New("edge: Bucket is missing; open one with objects.Open")
	case c.Peers == nil:
		return errors.New("edge: Peers is missing; make it with private.New")
	case c.CacheBytes < 0:
		return fmt.Errorf("edge: CacheBytes is %d; use 0 for the default or a positive number", c.CacheBytes)
	case c.PublicURL != "" && !isBase(c.PublicURL):
		return fmt.Errorf("edge: PublicURL %q can't stand in playlists; use a URL such as https://edge1.example", c.PublicURL)
	case c.DVRWindow < 0:
		return fmt.Errorf("edge: DVRWindow is %s; use 0 for the default or a positive duration", c.DVRWindow)
	}
	return nil
}

// Service is an edge. Its handler may be used by many goroutines.
type Service struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	cache    *cache
	client   *http.Client
	callers  *callers
	audience *audience
	waiters  *waiters
	edges    *edges
	guesses  guesses
	// fetchFaults logs failed fetches.
	fetchFaults sparselog.Limiter
	// silentFor is how long nothing new may come before nothing is expected.
	silentFor time.Duration
	// partPatience is how long a listed part that no source has is asked for again.
	partPatience time.Duration
	// work takes what a request starts but doesn't own; Run does it.
	work chan func(context.Context)
	// stopped is closed when Run's context ends.
	stopped chan struct{}

	// mu guards the fields below: channels are those that there are, lookups those of which
	// that isn't known yet, absent why others aren't there.
	mu       sync.Mutex
	channels map[string]*channel
	lookups  map[string]*channel
	absent   *lately[string, error]
}

// New builds a Service; it does no I/O.
func New(cfg Config) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = defaultCacheBytes
	}
	if cfg.DVRWindow == 0 {
		cfg.DVRWindow = defaultDVRWindow
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	m := newMetrics(cfg.Registerer)
	s := &Service{
		cfg: cfg, log: cfg.Log, metrics: m,
		client:   cfg.Peers.Client(),
		callers:  newCallers(cfg.TrustedProxies, m),
		audience: newAudience(m),
		waiters:  &waiters{metrics: m},
		edges:    &edges{},
		work:     make(chan func(context.Context)),
		stopped:  make(chan struct{}),

		silentFor: silentFor, partPatience: partPatience,
		channels: make(map[string]*channel), lookups: make(map[string]*channel), absent: newLately[string, error](maxAbsent),
	}
	s.cache = newCache(cfg.CacheBytes, s.spawn, m)
	if cfg.PublicURL != "" {
		s.edges.self = newPathway(cfg.PublicURL)
	}
	return s, nil
}

// Run follows broadcasts and fetches media for the handler until ctx ends. It
// returns when all that it started has ended. Call it once.
func (s *Service) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { close(s.stopped) })()
	var group errgroup.Group
	group.Go(func() error {
		s.audience.run(ctx, s.cfg.Redis, s.cfg.ID, s.log)
		return nil
	})
	group.Go(func() error {
		for {
			select {
			case job := <-s.work:
				group.Go(func() error {
					job(ctx)
					return nil
				})
			case <-ctx.Done():
				return nil
			}
		}
	})
	err := group.Wait()
	s.client.CloseIdleConnections()
	return err
}

var errStopped = errors.New("the edge is stopping")

// spawn has Run do a job, which must end when its context does.
func (s *Service) spawn(ctx context.Context, job func(context.Context)) error {
	select {
	case s.work <- job:
		return nil
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// channel returns the channel of that name, which is being looked up or
// followed from now on. by asks for it.
func (s *Service) channel(ctx context.Context, name string, by *caller) (*channel, error) {
	now := time.Now()
	s.mu.Lock()
	c, ok := s.channels[name], true
	if c == nil {
		c = s.lookups[name]
	}
	if c == nil {
		if err, known := s.absent.get(name, now); known {
			s.mu.Unlock()
			return nil, err
		}
		reason, refusal := "", error(nil)
		switch {
		case len(s.lookups) >= maxLookups:
			reason, refusal = "lookups", errCrowded
		case by != nil && !by.lookups.Take(1, lookupLimit, now):
			reason, refusal = "address_lookups", errGreedy
		}
		if refusal != nil {
			s.mu.Unlock()
			s.metrics.rejected.WithLabelValues(reason).Inc()
			return nil, refusal
		}
		ok = false
		c = newChannel(s, name, by)
		s.lookups[name] = c
	}
	c.asked.Store(now.UnixNano())
	s.mu.Unlock()
	if ok {
		return c, nil
	}
	if err := s.spawn(ctx, c.run); err != nil {
		s.drop(c, nil)
		c.show(nil, err, nil)
		return nil, err
	}
	return c, nil
}

// admit puts a channel that was looked up among those that are followed; stop
// ends that. Where there are too many, the one that nobody has asked for the longest makes room.
func (s *Service) admit(c *channel, stop context.CancelFunc) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.channels) >= maxChannels {
		idlest := c
		for _, other := range s.channels {
			if other.idle() > idlest.idle() {
				idlest = other
			}
		}
		if idlest.idle() < idleAfter {
			s.metrics.rejected.WithLabelValues("channels").Inc()
			return errCrowded
		}
		idlest.stop()
		delete(s.channels, idlest.name)
	}
	if c.by != nil {
		c.by.lookups.Return(1) // it wasn't for nothing
	}
	c.stop = stop
	delete(s.lookups, c.name)
	s.channels[c.name] = c
	s.metrics.channels.Set(float64(len(s.channels)))
	return nil
}

// drop forgets a channel; why, unless it is nil, is what requests are told for a moment.
func (s *Service) drop(c *channel, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lookups[c.name] == c {
		delete(s.lookups, c.name)
	}
	if s.channels[c.name] == c {
		delete(s.channels, c.name)
	}
	if why != nil {
		s.absent.put(c.name, why, time.Now().Add(absentFor))
	}
	s.metrics.channels.Set(float64(len(s.channels)))
}

// forget takes a channel out of the register unless somebody asked for it
// within idle.
func (s *Service) forget(c *channel, idle time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.idle() < idle {
		return false
	}
	if s.channels[c.name] == c {
		delete(s.channels, c.name)
	}
	s.metrics.channels.Set(float64(len(s.channels)))
	return true
}
