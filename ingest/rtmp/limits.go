package rtmp

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	gortmp "github.com/yutopp/go-rtmp"

	"millrace/internal/gate"
	"millrace/internal/rate"
)

const (
	// The burst and the rate of [connects].
	connectBurst = 100
	connectRate  = 10

	// Addresses whose newest connections are remembered.
	maxAddresses = 10_000
)

// connects bounds the new connections of one address: so many at once, then so many a second. A
// stream key can't be guessed, but each try costs a look at Redis.
var connects = rate.Limit{PerSecond: connectRate, Size: connectBurst}

// entrance is the listener that go-rtmp sees: only connections of who doesn't connect too often
// come through.
type entrance struct {
	net.Listener
	server *Server
	gortmp *gortmp.Server
	ctx    context.Context // Serve's: Accept takes none

	failure error          // owned by Accept's goroutine
	open    sync.WaitGroup // a count for each connection, and one for who waits to shut the entrance
}

// Accept returns the next connection, an *connection.
func (e *entrance) Accept() (net.Conn, error) {
	for {
		raw, err := e.Listener.Accept()
		if err == nil {
			if conn := e.admit(raw); conn != nil {
				return conn, nil
			}
			continue
		}
		if e.ctx.Err() == nil {
			e.failure = fmt.Errorf("accept RTMP connections on %s: %w", e.Addr(), err)
		}
		_ = e.gortmp.Close() // or go-rtmp would call Accept for ever
		return nil, err
	}
}

// admit makes a connection of raw, or closes it and returns nil if its address connects too often.
func (e *entrance) admit(raw net.Conn) *connection {
	s := e.server
	address := gate.SourceOf(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	recent := s.recent[address]
	if recent == nil {
		if len(s.recent) >= maxAddresses {
			s.forgetAddresses(now)
		}
		recent = &rate.Bucket{}
		s.recent[address] = recent
	}
	reason := ""
	switch {
	case e.ctx.Err() != nil:
		reason = "shutting_down"
	case !recent.Take(1, connects, now):
		reason = "too_often_from_address"
	}
	if reason != "" {
		s.metrics.refused.WithLabelValues(reason).Inc()
		_ = raw.Close() // nothing was said on it yet
		return nil
	}
	c := newConnection(e, raw)
	s.conns[c] = struct{}{}
	s.metrics.connections.Inc()
	e.open.Add(1)
	return c
}

// shut stops accepting, and cuts its connections.
func (e *entrance) shut() {
	_ = e.Listener.Close() // it is closed already, or is now
	e.server.mu.Lock()
	defer e.server.mu.Unlock()
	for c := range e.server.conns {
		if c.entrance == e {
			c.cut()
		}
	}
}

// forget takes a connection that has ended off the books.
func (e *entrance) forget(c *connection) {
	s := e.server
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.metrics.connections.Dec()
	e.open.Done()
}

// forgetAddresses makes room among the addresses: first those that may connect as often as ever
// go, then, in a flood from everywhere, all. The caller holds mu.
func (s *Server) forgetAddresses(now time.Time) {
	maps.DeleteFunc(s.recent, func(_ netip.Prefix, b *rate.Bucket) bool { return b.Empty(connects, now) })
	if len(s.recent) >= maxAddresses {
		clear(s.recent)
	}
}
