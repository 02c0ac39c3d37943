package room

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says what a Hub may hold. Zero values are the defaults given.
type Config struct {
	// Formats are all that connections may have; at least one.
	Formats []*Format
	// MaxConns is how many connections there may be: 100,000.
	MaxConns int
	// LogEntries and LogBytes bound the log of a room: 512 entries, 1 MiB. TotalLogBytes bounds all of them
	// together: 256 MiB; above it each keeps its newest 16 entries.
	LogEntries, LogBytes, TotalLogBytes int
	// MaxOwn is how many bytes may wait for one connection alone: 64 KiB. TotalOwn is how many may wait for all
	// connections together, with what is half written: 128 MiB.
	MaxOwn, TotalOwn int
	// Rest is how long a room rests after a pass, for each connection that was written to: 40 us, which is some times what a
	// write costs; at most MaxRest: 200 ms. So a room of 100 gets what is new at once or 4 ms later, and one of 5,000 in which
	// much is said gets it five times a second, many entries in one write.
	Rest, MaxRest time.Duration
	// Workers is how many goroutines write: half of GOMAXPROCS, so that reading, and what else the process does, has the
	// other half at any time.
	Workers int
	// SlowAfter is how long a connection may be behind: 30 s.
	SlowAfter time.Duration
	// Drain is how long Run gives connections at its end to take what waits for them and the goodbye: 5 s.
	Drain time.Duration
	// Compare orders ids: by default as those of Redis streams.
	Compare func(a, b string) int
	// Metrics is where the hub's metrics are registered.
	Metrics prometheus.Registerer
}

// withDefaults is c with its zero values replaced.
func (c Config) withDefaults() Config {
	c.MaxConns = cmp.Or(c.MaxConns, 100_000)
	c.LogEntries = cmp.Or(c.LogEntries, 512)
	c.LogBytes = cmp.Or(c.LogBytes, 1<<20)
	c.TotalLogBytes = cmp.Or(c.TotalLogBytes, 256<<20)
	c.MaxOwn = cmp.Or(c.MaxOwn, 64<<10)
	c.TotalOwn = cmp.Or(c.TotalOwn, 128<<20)
	c.Rest = cmp.Or(c.Rest, 40*time.Microsecond)
	c.MaxRest = cmp.Or(c.MaxRest, 200*time.Millisecond)
	c.Workers = cmp.Or(c.Workers, max(1, runtime.GOMAXPROCS(0)/2))
	c.SlowAfter = cmp.Or(c.SlowAfter, 30*time.Second)
	c.Drain = cmp.Or(c.Drain, 5*time.Second)
	if c.Compare == nil {
		c.Compare = compareIDs
	}
	return c
}

// Hub holds the rooms and connections of a process.
type Hub struct {
	Config
	metrics *metrics
	turns   turns
	logs    budget // bytes of all logs
	held    budget // bytes that wait for connections
	sweep   sweep
	now     atomic.Uint32 // seconds since the hub was made, and one
	group   sync.WaitGroup
	ids     atomic.Uint64

	mu    sync.Mutex
	rooms map[string]*Room

	// gate lets nobody in once Run is ending.
	gate   sync.Mutex
	conns  int
	ending bool
}

// New makes a hub. Nothing is sent before Run.
func New(c Config) (*Hub, error) {
	if len(c.Formats) == 0 || len(c.Formats) > maxFormats {
		return nil, fmt.Errorf("room: %d formats: there must be 1 to %d", len(c.Formats), maxFormats)
	}
	if c.Metrics == nil {
		return nil, errors.New("room: Metrics is missing")
	}
	h := &Hub{Config: c.withDefaults(), rooms: make(map[string]*Room)}
	h.metrics = newMetrics(h)
	for i, f := range h.Formats {
		f.index, f.metrics = i, h.metrics.of(f)
	}
	h.logs.max, h.held.max = int64(h.TotalLogBytes), int64(h.TotalOwn)
	h.turns.rest, h.turns.maxRest = h.Rest, h.MaxRest
	h.turns.ready = sync.NewCond(&h.turns.mu)
	h.now.Store(1)
	return h, nil
}

// Run sends what is published, until ctx ends. Then it says goodbye to all connections (Drained), takes no new ones, and
// returns when all have ended or the time of Config.Drain is over and they were cut off.
func (h *Hub) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range h.Workers {
		workers.Go((&worker{hub: h}).run)
	}
	stop := make(chan struct{})
	var sweeper sync.WaitGroup
	sweeper.Go(func() { h.sweepUntil(stop) })

	<-ctx.Done()
	h.gate.Lock()
	h.ending = true
	h.gate.Unlock()
	h.sweep.each(func(c *Conn) { c.Close(Drained) })
	over := time.AfterFunc(h.Drain, func() {
		h.sweep.each(func(c *Conn) {
			c.mu.Lock()
			c.shut()
			c.mu.Unlock()
		})
	})
	h.group.Wait()
	over.Stop()
	close(stop)
	sweeper.Wait()
	h.turns.close()
	workers.Wait()
	return nil
}

// Open returns the room of that name. A new one's log is empty and begins behind the entry with the id base: an
// entry that a reader has seen, if it comes after that one, needs no history.
func (h *Hub) Open(name, base string) *Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[name]
	if r == nil {
		r = &Room{hub: h, name: name, log: log{
			maxEntries: h.LogEntries, maxBytes: h.LogBytes, compare: h.Compare, total: &h.logs, base: base,
		}}
		h.rooms[name] = r
	}
	return r
}

// Room returns the room of that name, nil if there is none.
func (h *Hub) Room(name string) *Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rooms[name]
}

// ErrFull is returned by Attach when there are too many connections, or Run has ended.
var ErrFull = errors.New("no more connections are taken")

// Attach makes conn a connection of the hub, which then reads it, writes it and closes it. A websocket's handshake is over
// by then; that of TLS is made by the connection's goroutine if it wasn't yet. After an error conn is still the caller's.
func (h *Hub) Attach(conn net.Conn, o Options) (*Conn, error) {
	h.gate.Lock()
	if h.ending || h.conns >= h.MaxConns {
		h.gate.Unlock()
		h.metrics.refused.Inc()
		return nil, ErrFull
	}
	h.conns++
	c := &Conn{hub: h, id: h.ids.Add(1), handler: o.Handler, liveness: o.Liveness, wire: newWire(conn)}
	c.format.Store(o.Format)
	now := h.now.Load()
	c.received.Store(now)
	c.written = now
	h.sweep.add(c)
	h.group.Add(1)
	h.gate.Unlock()
	o.Format.metrics.connections.Inc()
	go c.run(o.Opened, o.Buffered)
	return c, nil
}

// run reads the connection until it ends.
func (c *Conn) run(opened func(*Conn), buffered []byte) {
	defer c.hub.group.Done()
	defer c.end()
	if c.wire.shake() != nil {
		return
	}
	if opened != nil {
		opened(c)
	}
	if len(buffered) > 0 {
		c.receive(buffered)
	}
	_ = c.wire.read(c.receive) // however it ends, the connection does
}

// receive gives the front what has arrived.
func (c *Conn) receive(p []byte) {
	c.received.Store(c.hub.now.Load())
	c.mu.Lock()
	ending := c.state >= closing
	c.corked = true
	c.mu.Unlock()
	var err error
	if !ending { // else it is read until the other end has closed, and thrown away
		err = c.handler.Receive(c, p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	if c.state == open {
		c.flush()
	}
	if err != nil {
		var why Reason
		if !errors.As(err, &why) {
			why = Reason{Name: Protocol.Name, Text: err.Error()}
		}
		c.close(why)
	}
}

// end takes a connection whose socket has ended out of everything.
func (c *Conn) end() {
	h := c.hub
	c.mu.Lock()
	if c.state < closing {
		c.why = Left
	}
	c.shut()
	h.held.add(-len(c.own))
	c.own = nil
	rooms, why := c.rooms, c.why
	c.rooms = nil
	c.mu.Unlock()
	for _, m := range rooms {
		m.end(c)
	}
	h.sweep.remove(c)
	h.gate.Lock()
	h.conns--
	h.gate.Unlock()
	c.Format().metrics.connections.Dec()
	h.metrics.closed.WithLabelValues(c.Format().Name, why.Name).Inc()
	c.handler.Closed(c, why)
}
