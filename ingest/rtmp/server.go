// Package rtmp is the RTMP front: it takes encoders' connections, within limits,
// speaks RTMP and RTMPS with them, and writes what they publish to the rest of
// ingest, which it knows by package front only.
package rtmp

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	gortmp "github.com/yutopp/go-rtmp"

	"millrace/ingest/front"
	"millrace/internal/rate"
	"millrace/internal/sparselog"
)

// Config is what the RTMP front is made of. Zero values are the defaults.
type Config struct {
	Publishers front.Publishers      // required
	Log        *slog.Logger          // required
	Metrics    prometheus.Registerer // nil: metrics are kept, but not registered

	MaxBitrate     int           // bits a second of one connection, on average over 10 s; 0: 80 Mb/s
	PublishTimeout time.Duration // for which a connection may live without publishing; 0: 15 s
	Filter         FilterConfig  // what one encoder may send
}

// Server is the RTMP front: it takes encoders' connections, speaks RTMP with them, and hands
// what they publish to the Publishers.
type Server struct {
	cfg     Config
	log     *slog.Logger
	metrics metrics
	// warnings are those that encoders can cause as often as they like.
	warnings sparselog.Limiter

	mu     sync.Mutex // guards what follows
	conns  map[*connection]struct{}
	recent map[netip.Prefix]*rate.Bucket // of each address's new connections
}

type metrics struct {
	connections prometheus.Gauge
	refused     *prometheus.CounterVec
	rejects     *prometheus.CounterVec
	dropped     *prometheus.CounterVec
	received    prometheus.Counter
}

// New makes a server. It does no I/O.
func New(cfg Config) *Server {
	cfg.MaxBitrate = cmp.Or(cfg.MaxBitrate, front.MaxBitrate)
	cfg.PublishTimeout = cmp.Or(cfg.PublishTimeout, 15*time.Second)
	cfg.Filter = cfg.Filter.withDefaults()
	factory := promauto.With(cfg.Metrics)
	return &Server{
		cfg: cfg,
		log: cfg.Log,
		metrics: metrics{
			connections: factory.NewGauge(prometheus.GaugeOpts{
				Name: "millrace_ingest_connections",
				Help: "RTMP connections that are open.",
			}),
			refused: factory.NewCounterVec(prometheus.CounterOpts{
				Name: "millrace_ingest_connections_refused_total",
				Help: "RTMP connections that were not taken, and publishers that were refused or ended, by reason.",
			}, []string{"reason"}),
			rejects: factory.NewCounterVec(prometheus.CounterOpts{
				Name: "millrace_ingest_filter_rejects_total",
				Help: "RTMP connections that ended because of what they sent, by reason.",
			}, []string{"reason"}),
			dropped: factory.NewCounterVec(prometheus.CounterOpts{
				Name: "millrace_ingest_filter_dropped_total",
				Help: "RTMP messages, or parts of them, that were left out because nothing here understands or wants them, by reason.",
			}, []string{"reason"}),
			received: factory.NewCounter(prometheus.CounterOpts{
				Name: "millrace_ingest_received_bytes_total",
				Help: "Bytes received on RTMP connections.",
			}),
		},
		conns:  map[*connection]struct{}{},
		recent: map[netip.Prefix]*rate.Bucket{},
	}
}

// drop counts what is left out of what an encoder sends.
func (s *Server) drop(reason string) { s.metrics.dropped.WithLabelValues(reason).Inc() }

// Serve takes connections from l, which it closes, until ctx ends; then it cuts those that are
// left. It returns when all of them have ended: nil after ctx ended, an error if l was closed by
// somebody else. A TLS listener makes it RTMPS. It may be called for several listeners at a time.
// How many connections there may be is l's to say: behind a gate, those that publish are busy.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	library := gortmp.NewServer(&gortmp.ServerConfig{OnConnect: func(c net.Conn) (io.ReadWriteCloser, *gortmp.ConnConfig) {
		conn := c.(*connection)
		return conn, conn.libraryConfig()
	}})
	e := &entrance{Listener: l, server: s, gortmp: library, ctx: ctx}
	e.open.Go(func() {
		<-ctx.Done()
		e.shut()
	})
	_ = library.Serve(e) // says only that the entrance was shut; why is in e.failure
	cancel()
	e.open.Wait()
	return e.failure
}
