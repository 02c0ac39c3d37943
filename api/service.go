// Package api serves what isn't video: the HTTP API for machines under
// /api/v1, the pages for people, and the channels with their stream keys,
// whose hashes it keeps in Redis for ingest. It is not on the way of a frame:
// while it is away, every live picture goes on.
package api

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/api/store"
	"millrace/internal/sparselog"
)

// Config is what api needs. All fields without a default are required.
type Config struct {
	Redis redis.UniversalClient
	Store *store.Store
	// Web is the built front end: index.html and assets/. Without index.html
	// every page says how to build it.
	Web fs.FS
	// ListAll shows the channels without a broadcast to everybody too, in the list of
	// channels; else that has the live ones only. Each by its name is shown anyway.
	ListAll bool
	// Log defaults to none.
	Log *slog.Logger
	// Registerer gets the metrics; nil means nobody does.
	Registerer prometheus.Registerer
}

// Validate names what is missing.
func (c Config) Validate() error {
	switch {
	case c.Redis == nil:
		return errors.New("api: Config.Redis is missing")
	case c.Store == nil:
		return errors.New("api: Config.Store is missing")
	case c.Web == nil:
		return errors.New("api: Config.Web is missing")
	}
	return nil
}

// Service is the api service. It is safe for concurrent use.
type Service struct {
	log     *slog.Logger
	redis   redis.UniversalClient
	store   *store.Store
	metrics *metrics
	handler http.Handler
	faults  sparselog.Limiter
}

// New builds the service; it does no I/O.
func New(c Config) (*Service, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	s := &Service{log: c.Log, redis: c.Redis, store: c.Store, metrics: newMetrics(c.Registerer)}
	channels := newChannels(c.Redis, c.Store, c.ListAll)
	pages, err := newPages(c.Web, channels)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", s.routes(channels))
	mux.Handle("/", s.metrics.count("page", pages))
	s.handler = mux
	return s, nil
}

// Run keeps the stream keys in Redis equal to those in SQL until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	s.followKeys(ctx)
	return nil
}

// Handler serves /api/, /assets/ and the pages.
func (s *Service) Handler() http.Handler { return s.handler }
