// Package rtmp is the RTMP front: it takes encoders' connections, within limits,
// speaks RTMP and RTMPS with them, and writes what they publish to the rest of
// ingest, which it knows by package front only.
package rtmp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

const (
	// The pause after an Accept that failed, doubled each time.
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second

	// The burst and the rate of [connects].
	connectBurst = 100
	connectRate  = 10

	// Addresses that are remembered only for their newest connections.
	maxIdleAddresses = 10_000
)

// connects bounds the new connections of one address: so many at once, then so many a second. A
// stream key can't be guessed, but each try costs a look at Redis.
var connects = rate.Limit{PerSecond: connectRate, Size: connectBurst}

// Config is what the RTMP front is made of. Zero values are the defaults.
type Config struct {
	Publishers front.Publishers      // required
	Log        *slog.Logger          // required
	Metrics    prometheus.Registerer // nil: metrics are kept, but not registered

	MaxConnections           int           // 0: 1,000
	MaxConnectionsPerAddress int           // of an IPv4 address or an IPv6 /64; 0: 32
	MaxBitrate               int           // bits a second of one connection, on average over 10 s; 0: 80 Mb/s
	PublishTimeout           time.Duration // for which a connection may live without publishing; 0: 15 s
	Filter                   FilterConfig  // what one encoder may send
}

// Server is the RTMP front: it takes encoders' connections, speaks RTMP with them, and hands
// what they publish to the Publishers.
type Server struct {
	cfg     Config
	log     *slog.Logger
	metrics metrics
	// warnings are those that encoders can cause as often as they like.
	warnings sparselog.Limiter

	mu        sync.Mutex // guards what follows
	conns     map[*connection]struct{}
	leaving   int // of conns, those that were cut to make room
	addresses map[netip.Prefix]*callers
}

// callers are the connections of one address.
type callers struct {
	open   int
	recent rate.Bucket // of new ones
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
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, 1000)
	cfg.MaxConnectionsPerAddress = cmp.Or(cfg.MaxConnectionsPerAddress, 32)
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
				Help: "RTMP messages that were left out because nothing here understands them, by reason.",
			}, []string{"reason"}),
			received: factory.NewCounter(prometheus.CounterOpts{
				Name: "millrace_ingest_received_bytes_total",
				Help: "Bytes received on RTMP connections.",
			}),
		},
		conns:     map[*connection]struct{}{},
		addresses: map[netip.Prefix]*callers{},
	}
}

// Serve takes connections from l, which it closes, until ctx ends; then it cuts those that are
// left. It returns when all of them have ended: nil after ctx ended, an error if l was closed by
// somebody else. A TLS listener makes it RTMPS. It may be called for several listeners at a time;
// the limits hold for all of them together.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	library := gortmp.NewServer(&gortmp.ServerConfig{OnConnect: func(c net.Conn) (io.ReadWriteCloser, *gortmp.ConnConfig) {
		conn := c.(*connection)
		return conn, conn.libraryConfig()
	}})
	g := &gate{Listener: l, server: s, gortmp: library, ctx: ctx}
	g.open.Go(func() {
		<-ctx.Done()
		g.shut()
	})
	_ = library.Serve(g) // says only that the gate was shut; why is in g.failure
	cancel()
	g.open.Wait()
	return g.failure
}

// gate is the listener that go-rtmp sees: only connections within the limits come through, and
// its Accept fails only for good.
type gate struct {
	net.Listener
	server *Server
	gortmp *gortmp.Server
	ctx    context.Context // Serve's: Accept takes none

	failure error          // owned by Accept's goroutine
	open    sync.WaitGroup // a count for each connection, and one for who waits to shut the gate
}

// Accept returns the next connection, an *connection, that is within the limits.
func (g *gate) Accept() (net.Conn, error) {
	pause := minAcceptPause
	for {
		raw, err := g.Listener.Accept()
		if err == nil {
			pause = minAcceptPause
			if conn := g.admit(raw); conn != nil {
				return conn, nil
			}
			continue
		}
		if g.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			// Out of file descriptors, most likely: it passes when connections end.
			g.server.metrics.refused.WithLabelValues("accept_failed").Inc()
			g.server.warn("can't accept an RTMP connection", err.Error())
			select {
			case <-g.ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, maxAcceptPause)
			continue
		}
		if g.ctx.Err() == nil {
			g.failure = fmt.Errorf("accept RTMP connections on %s: %w", g.Addr(), err)
		}
		_ = g.gortmp.Close() // or go-rtmp would call Accept for ever
		return nil, err
	}
}

// admit makes a connection of raw, or closes it and returns nil if there are too many.
func (g *gate) admit(raw net.Conn) *connection {
	s := g.server
	address := addressOf(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	from := s.addresses[address]
	if from == nil {
		if len(s.addresses) >= maxIdleAddresses {
			s.forgetAddresses(now)
		}
		from = &callers{}
		s.addresses[address] = from
	}
	reason := ""
	switch {
	case g.ctx.Err() != nil:
		reason = "shutting_down"
	case from.open >= s.cfg.MaxConnectionsPerAddress:
		reason = "too_many_from_address"
	case !from.recent.Take(1, connects, now):
		reason = "too_often_from_address"
	case len(s.conns)-s.leaving >= s.cfg.MaxConnections && !s.makeRoom():
		reason = "too_many_connections"
	}
	if reason != "" {
		s.metrics.refused.WithLabelValues(reason).Inc()
		_ = raw.Close() // nothing was said on it yet
		return nil
	}
	c := newConnection(g, raw)
	s.conns[c] = struct{}{}
	from.open++
	s.metrics.connections.Inc()
	g.open.Add(1)
	return c
}

// shut stops accepting, and cuts the gate's connections.
func (g *gate) shut() {
	_ = g.Listener.Close() // it is closed already, or is now
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	for c := range g.server.conns {
		if c.gate == g {
			c.cut()
		}
	}
}

// forget takes a connection that has ended off the books.
func (g *gate) forget(c *connection) {
	s := g.server
	address := addressOf(c.Conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.leaving {
		s.leaving--
	}
	s.addresses[address].open--
	s.metrics.connections.Dec()
	g.open.Done()
}

// makeRoom cuts the oldest connection that doesn't publish: who only holds connections open keeps
// no publisher out. It reports whether there was one. The caller holds mu.
func (s *Server) makeRoom() bool {
	if s.leaving >= s.cfg.MaxConnections {
		return false // they take their time to end
	}
	var oldest *connection
	for c := range s.conns {
		if !c.leaving && !c.publishing.Load() && (oldest == nil || c.started.Before(oldest.started)) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	oldest.leaving = true
	s.leaving++
	s.metrics.refused.WithLabelValues("made_room").Inc()
	oldest.cut()
	return true
}

// forgetAddresses makes room among the addresses that have no connection: first those that may
// connect as often as ever, then, in a flood from everywhere, all. The caller holds mu.
func (s *Server) forgetAddresses(now time.Time) {
	for address, c := range s.addresses {
		if c.open == 0 && c.recent.Empty(connects, now) {
			delete(s.addresses, address)
		}
	}
	if len(s.addresses) < maxIdleAddresses {
		return
	}
	for address, c := range s.addresses {
		if c.open == 0 {
			delete(s.addresses, address)
		}
	}
}

// addressOf is what the limit per address counts: an IPv4 address, or the /64 that one subscriber
// of IPv6 has.
func addressOf(c net.Conn) netip.Prefix {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := ap.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // bits fit the address
	return p
}
