package rtmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	gortmp "github.com/yutopp/go-rtmp"

	"millrace/internal/gate"
	"millrace/internal/rate"
)

const (
	// The most connections at a time: in all, and of one address.
	defaultConnections = 1000
	defaultPerAddress  = 32

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

// entrance is the listener that go-rtmp sees: only connections within the limits come through, and
// its Accept fails only for good.
type entrance struct {
	net.Listener
	server *Server
	gortmp *gortmp.Server
	ctx    context.Context // Serve's: Accept takes none

	failure error          // owned by Accept's goroutine
	open    sync.WaitGroup // a count for each connection, and one for who waits to shut the entrance
}

// Accept returns the next connection, an *connection, that is within the limits.
func (e *entrance) Accept() (net.Conn, error) {
	pause := minAcceptPause
	for {
		raw, err := e.Listener.Accept()
		if err == nil {
			pause = minAcceptPause
			if conn := e.admit(raw); conn != nil {
				return conn, nil
			}
			continue
		}
		if e.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			// Out of file descriptors, most likely: it passes when connections end.
			e.server.metrics.refused.WithLabelValues("accept_failed").Inc()
			e.server.warn("can't accept an RTMP connection", err.Error())
			select {
			case <-e.ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, maxAcceptPause)
			continue
		}
		if e.ctx.Err() == nil {
			e.failure = fmt.Errorf("accept RTMP connections on %s: %w", e.Addr(), err)
		}
		_ = e.gortmp.Close() // or go-rtmp would call Accept for ever
		return nil, err
	}
}

// admit makes a connection of raw, or closes it and returns nil if there are too many.
func (e *entrance) admit(raw net.Conn) *connection {
	s := e.server
	address := gate.SourceOf(raw)
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
	case e.ctx.Err() != nil:
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
	c := newConnection(e, raw)
	s.conns[c] = struct{}{}
	from.open++
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
	address := gate.SourceOf(c.Conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.leaving {
		s.leaving--
	}
	s.addresses[address].open--
	s.metrics.connections.Dec()
	e.open.Done()
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
