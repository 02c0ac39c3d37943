package rtmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	gortmp "github.com/yutopp/go-rtmp"

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
