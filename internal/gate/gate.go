package gate

import (
	"container/list"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"millrace/internal/sparselog"
)

// The reasons of millrace_connections_closed_total.
const (
	madeRoom       = "made_room"             // it was idle, and all listeners of the gate together had too many
	madeRoomSource = "made_room_for_address" // it was idle, and its address had too many
	sourceFull     = "too_many_from_address" // its address had too many and none was idle
	full           = "too_many_connections"  // it was new, and none of all was idle
	starved        = "accept_failed"         // it was idle, and the next one couldn't be taken
)

// Config says what a Gate lets through.
type Config struct {
	// Total is the most connections at a time, of all its listeners; required.
	Total int
	// PerSource is the most of one Source; 0 means Total.
	PerSource int
	// Trusted are proxies, behind each of which are many people: PerSource isn't
	// for them.
	Trusted []netip.Prefix
	// Spare keeps busy connections: where a source is over its bound and has no
	// idle one, the new one is refused instead of the oldest busy one closed.
	Spare bool
	// Yields, which may be nil, closes an idle connection of its own where this gate
	// has none and there are no file descriptors for a new one.
	Yields *Gate
	// Metrics is required, and may be shared by gates.
	Metrics *Metrics
	Log     *slog.Logger // required
}

// Gate bounds the connections of listeners, together and by where they come
// from. A connection is idle until Busy is called, and again after Idle; the
// one that has been idle for the longest makes room for a new one. It is safe
// for concurrent use.
type Gate struct {
	cfg      Config
	warnings sparselog.Limiter

	mu      sync.Mutex // guards what follows, and what the Conns say of it
	open    int
	idle    list.List // of *Conn, the longest idle first
	sources map[netip.Prefix]*source
}

// source is who connects from one address.
type source struct {
	open int
	// idle are the longest idle first, busy those whose newest request is the oldest.
	idle, busy list.List
}

// Metrics count connections by listener.
type Metrics struct {
	connections *prometheus.GaugeVec
	closed      *prometheus.CounterVec
}

// NewMetrics registers the metrics; with nil they are kept only.
func NewMetrics(r prometheus.Registerer) *Metrics {
	factory := promauto.With(r)
	return &Metrics{
		connections: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_connections",
			Help: "Connections that are open, by listener.",
		}, []string{"listener"}),
		closed: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_connections_closed_total",
			Help: "Connections that were closed, or not taken, because there were too many, by listener and reason.",
		}, []string{"listener", "reason"}),
	}
}

// New makes a gate.
func New(cfg Config) *Gate {
	if cfg.PerSource == 0 {
		cfg.PerSource = cfg.Total
	}
	return &Gate{cfg: cfg, sources: map[netip.Prefix]*source{}}
}

// admit makes a Conn of raw, or closes it and returns nil when there are too many.
func (g *Gate) admit(raw net.Conn, l *listener) *Conn {
	address := addressOf(raw)
	c := &Conn{Conn: raw, gate: g, listener: l, source: Source(address)}
	trusted := g.trusts(address)
	if trusted { // it has no neighbours in its /64
		c.source = netip.PrefixFrom(address, address.BitLen())
	}
	g.mu.Lock()
	s := g.sources[c.source]
	if s == nil {
		s = &source{}
		g.sources[c.source] = s
	}
	goes, reason := g.makeRoom(s, trusted)
	if reason == "" || goes != nil {
		g.enter(c, s)
	} else if s.open == 0 {
		delete(g.sources, c.source)
	}
	if goes != nil {
		g.leave(goes)
	}
	g.mu.Unlock()

	if reason == sourceFull || reason == madeRoomSource {
		g.warnings.Log(g.cfg.Log, slog.LevelWarn, "one address has as many connections as it may: if it is a proxy, name it with --trusted-proxies",
			"listener", l.name, "address", c.source, "connections", g.cfg.PerSource)
	}
	switch {
	case goes != nil:
		goes.end(reason)
	case reason != "":
		l.closed.WithLabelValues(reason).Inc()
		_ = raw.Close() // nothing was said on it yet
		return nil
	}
	return c
}

// makeRoom names the connection that goes when one more of s comes, and why.
// With a reason and no connection the new one must go; with neither there is
// room. The caller holds mu.
func (g *Gate) makeRoom(s *source, trusted bool) (goes *Conn, reason string) {
	switch {
	case !trusted && s.open >= g.cfg.PerSource:
		if goes = first(&s.idle); goes != nil {
			return goes, madeRoomSource
		}
		if !g.cfg.Spare {
			goes = first(&s.busy)
		}
		return goes, sourceFull
	case g.open >= g.cfg.Total:
		if goes = first(&g.idle); goes != nil {
			return goes, madeRoom
		}
		return nil, full
	}
	return nil, ""
}

// shed closes the connection that has been idle for the longest, here or at the
// gate that yields: its descriptor is what the next one needs.
func (g *Gate) shed() {
	g.mu.Lock()
	c := first(&g.idle)
	if c != nil {
		g.leave(c)
	}
	g.mu.Unlock()
	switch {
	case c != nil:
		c.end(starved)
	case g.cfg.Yields != nil:
		g.cfg.Yields.shed()
	}
}

func (g *Gate) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(g.cfg.Trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// enter puts a new connection on the books, as an idle one. The caller holds mu.
func (g *Gate) enter(c *Conn, s *source) {
	g.open++
	s.open++
	c.from = s
	c.inGate, c.inSource = g.idle.PushBack(c), s.idle.PushBack(c)
	c.listener.open.Inc()
}

// leave takes a connection off the books, if it is on them. The caller holds mu.
func (g *Gate) leave(c *Conn) {
	if c.from == nil {
		return
	}
	c.unlist()
	g.open--
	if c.from.open--; c.from.open == 0 {
		delete(g.sources, c.source)
	}
	c.from = nil
	c.listener.open.Dec()
}

func first(l *list.List) *Conn {
	if e := l.Front(); e != nil {
		return e.Value.(*Conn)
	}
	return nil
}
