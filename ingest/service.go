// Package ingest takes what streamers publish, makes it the log of a broadcast
// (access units with exact times, and cut marks), keeps that log in memory,
// relays it to whoever reads it, and says which worker works on it.
package ingest

import (
	"cmp"
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

	"millrace/ingest/rtmp"
	"millrace/internal/jobs"
	"millrace/internal/private"
)

// maxRedundancy is how many workers may make a broadcast at a time.
const maxRedundancy = 2

// Config is what ingest needs. A zero value takes the default named beside it.
type Config struct {
	Redis redis.UniversalClient
	// RTMP is the listener for encoders; RTMPS the one with TLS, or nil.
	RTMP, RTMPS net.Listener
	// Peers are the other services. They reach Private at the address that it advertises.
	Peers *private.Peers
	// Grace is how long a broadcast waits for its publisher to come back; 0: 60 s.
	// A channel may have its own.
	Grace time.Duration
	// Redundancy is how many workers make each broadcast at a time, 1 or 2; 0: 1.
	// A channel may have its own.
	Redundancy int
	// MaxAhead is how far a publisher's timestamps may run ahead of the clock; then
	// it is slowed down. 0: 15 s.
	MaxAhead time.Duration
	// Drain is how long publishers may go on after Run's context has ended; 0: not at all.
	Drain time.Duration
	// Finish is how long workers may take to store what was published, once
	// the publishers are gone then; 0: 10 s.
	Finish time.Duration
	// LogBytes bounds one broadcast's log in memory; 0: 64 MiB. It is bounded to 40 s anyway.
	LogBytes   int
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Service is the ingest service.
type Service struct {
	cfg     Config
	metrics metrics
	rtmp    *rtmp.Server
	begins  singleflight.Group // by channel
	client  *http.Client       // asks other ingests and workers
	breaks  breaks

	mu         sync.Mutex      // guards what follows
	ctx        context.Context // nil: no broadcast may begin
	running    sync.WaitGroup
	broadcasts map[string]*broadcast // by id, until their workers are done
	channels   map[string]*broadcast // by channel, until their end
}

// New makes a service. It does no I/O.
func New(c Config) (*Service, error) {
	if c.Redis == nil || c.RTMP == nil || c.Peers == nil || c.Peers.Advertise() == "" {
		return nil, errors.New("ingest: Redis, an RTMP listener and peers with an address to advertise are needed")
	}
	switch {
	case c.Grace < 0:
		return nil, fmt.Errorf("ingest: a grace period of %s makes no sense; set --grace to more than 0", c.Grace)
	case c.Redundancy < 0 || c.Redundancy > maxRedundancy:
		return nil, fmt.Errorf("ingest: a broadcast can't have %d workers; set --redundancy to 1 or %d", c.Redundancy, maxRedundancy)
	case c.Drain < 0 || c.Finish < 0:
		return nil, fmt.Errorf("ingest: a drain of %s and %s makes no sense; set --drain to 0 or more", c.Drain, c.Finish)
	}
	c.Grace = cmp.Or(c.Grace, 60*time.Second)
	c.Redundancy = cmp.Or(c.Redundancy, 1)
	c.Finish = cmp.Or(c.Finish, 10*time.Second)
	c.MaxAhead = cmp.Or(c.MaxAhead, 15*time.Second)
	s := &Service{
		cfg: c, metrics: newMetrics(c.Registerer), client: c.Peers.Client(),
		broadcasts: map[string]*broadcast{}, channels: map[string]*broadcast{},
	}
	promauto.With(c.Registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_ingest_log_bytes", Help: "Bytes held in the logs of all broadcasts.",
	}, s.logBytes)
	promauto.With(c.Registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_ingest_broadcasts_reconnecting", Help: "Broadcasts that wait for their publisher to come back.",
	}, s.reconnecting)
	promauto.With(c.Registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_ingest_slots_unclaimed", Help: "Places for workers that no worker has.",
	}, func() float64 { slots, _ := s.unclaimed(); return float64(slots) })
	promauto.With(c.Registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_ingest_broadcasts_unclaimed", Help: "Broadcasts that no worker works on.",
	}, func() float64 { _, broadcasts := s.unclaimed(); return float64(broadcasts) })
	s.rtmp = rtmp.New(rtmp.Config{Publishers: s, Log: c.Log, Metrics: c.Registerer})
	return s, nil
}

// Run serves until ctx ends. Then it takes no more publishers, lets those that
// are connected go on for the drain, pauses every broadcast, waits for its
// workers, and returns when all that it started has ended.
func (s *Service) Run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.mu.Lock()
	s.ctx = live
	s.mu.Unlock()
	if err := s.makeGroup(ctx); err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("the queue of jobs isn't ready yet", "err", err)
	}

	g, serving := errgroup.WithContext(live)
	for _, l := range s.listeners() {
		g.Go(func() error {
			err := s.rtmp.Serve(serving, door{l, ctx, serving})
			if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
				return nil // drain closed it
			}
			return err
		})
	}
	g.Go(func() error {
		s.watchRights(serving)
		return nil
	})
	select {
	case <-ctx.Done():
	case <-serving.Done():
	}
	s.drain(serving)
	stop()
	return g.Wait()
}

// makeGroup makes the consumer group that workers read jobs from.
func (s *Service) makeGroup(ctx context.Context) error {
	err := s.cfg.Redis.XGroupCreateMkStream(ctx, jobs.Stream, jobs.Group, "0").Err()
	if err != nil && !redis.HasErrorPrefix(err, "BUSYGROUP") {
		return fmt.Errorf("create consumer group %s: %w", jobs.Group, err)
	}
	return nil
}

// Private adds the routes for other services to mux: relay, claims and releases.
// Whoever serves mux guards it.
func (s *Service) Private(mux *http.ServeMux) {
	mux.HandleFunc("GET /relay/{broadcast}", s.serveRelay)
	mux.HandleFunc("POST /claim/{broadcast}/{slot}", s.serveClaim)
	mux.HandleFunc("POST /release/{broadcast}", s.serveRelease)
	mux.HandleFunc("GET /sending/{broadcast}", s.serveSending)
}

func (s *Service) broadcastByID(id string) *broadcast {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broadcasts[id]
}

func (s *Service) logBytes() float64 {
	total := 0
	for _, b := range s.all() {
		total += b.log.Size()
	}
	return float64(total)
}

// unclaimed is how many slots lack a worker, and how many broadcasts have none at all.
func (s *Service) unclaimed() (slots, broadcasts int) {
	for _, b := range s.all() {
		n, alone := b.unclaimed()
		slots += n
		if alone {
			broadcasts++
		}
	}
	return slots, broadcasts
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
