// Package ingest takes what streamers publish, makes it the log of a broadcast
// (access units with exact times, and cut marks), keeps that log in memory,
// relays it to whoever reads it, and says which worker works on it.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"millrace/internal/jobs"
)

// Config is what ingest needs. A zero value takes the default named beside it.
type Config struct {
	Redis redis.UniversalClient
	// RTMP is the listener for encoders; RTMPS the one with TLS, or nil.
	RTMP, RTMPS net.Listener
	// Advertise is the base URL under which workers reach Private.
	Advertise string
	// Grace is how long a broadcast waits for a publisher whose connection was lost; 0: 60 s.
	Grace time.Duration
	// LogBytes bounds one broadcast's log in memory; 0: 64 MiB. It is bounded to 40 s anyway.
	LogBytes   int
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Service is the ingest service.
type Service struct {
	cfg     Config
	metrics metrics
	rtmp    *rtmpServer
	begins  singleflight.Group // by channel

	mu         sync.Mutex // guards what follows
	ctx        context.Context
	running    sync.WaitGroup
	broadcasts map[string]*broadcast // by id, until their workers are done
	channels   map[string]*broadcast // by channel, until their end
}

// New makes a service. It does no I/O.
func New(c Config) (*Service, error) {
	if c.Grace == 0 {
		c.Grace = 60 * time.Second
	}
	if c.Redis == nil || c.RTMP == nil || c.Advertise == "" {
		return nil, errors.New("ingest: Redis, an RTMP listener and an address to advertise are needed")
	}
	if c.Grace < 0 {
		return nil, fmt.Errorf("ingest: a grace period of %s makes no sense; set --grace to 0 or more", c.Grace)
	}
	s := &Service{
		cfg: c, metrics: newMetrics(c.Registerer),
		broadcasts: map[string]*broadcast{}, channels: map[string]*broadcast{},
	}
	promauto.With(c.Registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_ingest_log_bytes", Help: "Bytes held in the logs of all broadcasts.",
	}, s.logBytes)
	promauto.With(c.Registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_ingest_broadcasts_reconnecting", Help: "Broadcasts that wait for their publisher to come back.",
	}, s.reconnecting)
	s.rtmp = newRTMPServer(rtmpConfig{Publishers: s, Log: c.Log, Metrics: c.Registerer})
	return s, nil
}

// Run serves until ctx ends, then ends every broadcast and returns when all
// that it started has ended.
func (s *Service) Run(ctx context.Context) error {
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.mu.Lock()
	s.ctx = live
	s.mu.Unlock()
	if err := s.makeGroup(ctx); err != nil {
		s.cfg.Log.Warn("the queue of jobs isn't ready yet", "err", err)
	}

	g, gctx := errgroup.WithContext(ctx)
	for _, l := range []net.Listener{s.cfg.RTMP, s.cfg.RTMPS} {
		if l != nil {
			g.Go(func() error { return s.rtmp.Serve(gctx, l) })
		}
	}
	err := g.Wait()
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	stop() // each broadcast ends itself
	s.running.Wait()
	return err
}

// makeGroup makes the consumer group that workers read jobs from.
func (s *Service) makeGroup(ctx context.Context) error {
	err := s.cfg.Redis.XGroupCreateMkStream(ctx, jobs.Stream, jobs.Group, "0").Err()
	if err != nil && !redis.HasErrorPrefix(err, "BUSYGROUP") {
		return fmt.Errorf("create consumer group %s: %w", jobs.Group, err)
	}
	return nil
}

// Private serves relay and claims; the caller guards it.
func (s *Service) Private() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /relay/{file}", s.serveRelay)
	mux.HandleFunc("POST /claim/{broadcast}/{slot}", s.serveClaim)
	return mux
}

func (s *Service) broadcastByID(id string) *broadcast {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broadcasts[id]
}

func (s *Service) logBytes() float64 {
	total := 0
	for _, b := range s.all() {
		total += b.log.size()
	}
	return float64(total)
}

func (s *Service) reconnecting() float64 {
	n := 0
	for _, b := range s.all() {
		if b.reconnecting() {
			n++
		}
	}
	return float64(n)
}

func (s *Service) all() []*broadcast {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.broadcasts))
}
