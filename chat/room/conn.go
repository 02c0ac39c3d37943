package room

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Handler is a front's part of a connection. The engine calls Receive and Closed from one goroutine,
// the connection's; Gap and Goodbye from any, holding locks: they must be quick, and call neither the
// Conn nor a Room.
type Handler interface {
	// Receive gets bytes that have arrived, in pieces as they come; p may be changed, and is the
	// engine's again when Receive returns. Frames that it sends go out when it has returned. While
	// it doesn't return, nothing more is read. An error ends the connection: a Reason as it is, any
	// other one as "protocol".
	Receive(c *Conn, p []byte) error
	// Gap makes the frames that tell the reader that it missed so many entries of r, and goes on
	// behind the entry with the id newest. nil for none.
	Gap(r *Room, missed uint64, newest string) []byte
	// Goodbye makes the last frames, which tell why the connection ends. nil for none.
	Goodbye(why Reason) []byte
	// Closed is the last call: the connection has ended and is in no room.
	Closed(c *Conn, why Reason)
}

// Reason is why a connection ends. The engine's own are those below; a front has its own besides.
type Reason struct {
	// Name is the label of metrics: one of few words.
	Name string
	// Code and Text are for the front: a websocket's close code and what it tells the reader.
	Code uint16
	Text string
}

// Error makes a Reason something that Handler.Receive returns.
func (r Reason) Error() string {
	if r.Text == "" {
		return r.Name
	}
	return r.Name + ": " + r.Text
}

// Reasons of the engine.
var (
	Left     = Reason{Name: "left"}     // the other end closed the connection, or it broke
	Slow     = Reason{Name: "slow"}     // it was behind for too long
	Flooded  = Reason{Name: "flooded"}  // too much was sent to it alone, for what it takes
	Memory   = Reason{Name: "memory"}   // all connections together hold too much
	Silent   = Reason{Name: "silent"}   // nothing came from it, no answer to pings either
	Protocol = Reason{Name: "protocol"} // Receive returned an error
	Drained  = Reason{Name: "drained"}  // this process is shutting down
)

// Liveness is what is sent when nothing else is, and when a connection counts as dead. Durations are
// kept to about a second. Zero durations: not at all. Connections may share one.
type Liveness struct {
	// Ping is sent when nothing arrived for PingAfter; when nothing did for DeadAfter, the connection is
	// closed as Silent.
	PingAfter, DeadAfter time.Duration
	Ping                 func(c *Conn) []byte
	// Keepalive is sent when nothing was written for KeepaliveAfter.
	KeepaliveAfter time.Duration
	Keepalive      func(c *Conn) []byte
}

// Options say what a connection is.
type Options struct {
	Format  *Format
	Handler Handler
	// Liveness may be nil: then a silent connection stays.
	Liveness *Liveness
	// Buffered is what was read from the connection already: Handler.Receive gets it first.
	Buffered []byte
	// Opened, if set, is called in the connection's goroutine before anything is received.
	Opened func(c *Conn)
}

// state is what a connection is at.
type state uint8

const (
	open    state = iota
	blocked       // the kernel takes no more: a goroutine waits until it does
	closing       // the last frames are written or being written; nothing is sent any more
	closed        // the socket is closed
)

// Conn is a connection. Its methods may be called by any goroutine.
type Conn struct {
	hub      *Hub
	id       uint64
	format   atomic.Pointer[Format]
	handler  Handler
	liveness *Liveness
	wire     wire

	// received is when bytes came last, in seconds of the hub's clock.
	received atomic.Uint32

	mu       sync.Mutex
	state    state
	draining bool   // a goroutine writes pending
	corked   bool   // Receive runs: what is sent is gathered in own
	behind   bool   // there are entries for it that it wasn't given since it was blocked
	why      Reason // from closing on
	pending  []byte // what the goroutine is writing
	own      []byte // what was sent to it alone and waits
	rooms    []membership
	written  uint32 // when bytes were written last, in seconds of the hub's clock
	pinged   uint32 // when it was pinged last
	late     uint32 // since when something waits for it to be taken, 0: nothing does
	until    uint32 // from closing on: when the socket is closed at the latest

	// guarded by the sweep's bucket
	bucket *bucket
	at     int
}

// ID is unique in the process and never 0.
func (c *Conn) ID() uint64 { return c.id }

// Format is the one that it was attached with, or that SetFormat gave it.
func (c *Conn) Format() *Format { return c.format.Load() }

// SetFormat gives a connection that is in no room another format, and reports whether it did: fronts whose
// clients say only after the handshake what they want need that.
func (c *Conn) SetFormat(f *Format) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rooms) > 0 || c.state >= closing {
		return false
	}
	if was := c.format.Swap(f); was != f {
		was.metrics.connections.Dec()
		f.metrics.connections.Inc()
	}
	return true
}

// RemoteAddr is the other end's address, or a proxy's in front of it.
func (c *Conn) RemoteAddr() net.Addr { return c.wire.conn.RemoteAddr() }

// Send sends frames to this connection alone, in order, before entries that come later. It doesn't wait. It reports
// whether they were taken: not if the connection is ending, or has so much waiting that it is closed now.
// frames must not change afterwards.
func (c *Conn) Send(frames []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state >= closing {
		return false
	}
	if c.state == open && !c.corked {
		c.write(frames)
		return c.state < closing
	}
	switch {
	case len(c.own)+len(frames) > c.hub.MaxOwn:
		c.close(Flooded)
		return false
	case c.hub.held.over():
		c.close(Memory)
		return false
	}
	c.hub.held.add(len(frames))
	c.own = append(c.own, frames...)
	return true
}

// Close ends the connection: it is sent what waits for it alone and the front's goodbye, and has two seconds to
// close its end. Only the first reason counts.
func (c *Conn) Close(why Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close(why)
}

// Hold counts n bytes more, or less, that a front holds for the connection: beginnings of messages. It reports false if all
// connections together hold too much: then this one should be ended, with Memory.
func (c *Conn) Hold(n int) bool {
	if n == 0 {
		return true
	}
	c.hub.held.add(n)
	return n < 0 || !c.hub.held.over()
}

// Rooms are those that it is in.
func (c *Conn) Rooms() []*Room {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*Room, len(c.rooms))
	for i, m := range c.rooms {
		list[i] = m.room
	}
	return list
}

// close begins the end. The caller holds mu.
func (c *Conn) close(why Reason) {
	if c.state >= closing {
		return
	}
	wasOpen := c.state == open
	c.state, c.why, c.until = closing, why, c.hub.now.Load()+lingerSeconds
	goodbye := c.handler.Goodbye(why)
	if why == Flooded || why == Memory { // what waits is what is too much
		c.hub.held.add(-len(c.own))
		c.own = nil
	}
	c.hub.held.add(len(goodbye))
	c.own = append(c.own, goodbye...)
	if wasOpen {
		c.flush()
	}
	if !c.draining {
		c.hangUp()
	}
}

// hangUp says to the other end that nothing more comes; when that closes its end too, or time is up, the socket is
// closed. The caller holds mu.
func (c *Conn) hangUp() {
	switch {
	case c.wire.waits():
		c.hub.group.Go(func() {
			if !c.wire.closeWrite() {
				c.mu.Lock()
				c.shut()
				c.mu.Unlock()
			}
		})
	case !c.wire.closeWrite():
		c.shut()
	}
}

// shut closes the socket; the connection's goroutine notices. The caller holds mu.
func (c *Conn) shut() {
	if c.state != closed {
		c.state = closed
		c.wire.close()
	}
}

// flush writes what waits for the connection alone. The caller holds mu.
func (c *Conn) flush() {
	if len(c.own) > 0 {
		own := c.own
		c.own = nil
		c.hub.held.add(-len(own))
		c.write(own)
	}
}

// write writes p, or lets a goroutine do so if the kernel doesn't take it at once. The caller holds mu;
// the connection isn't blocked.
func (c *Conn) write(p []byte) {
	if len(p) == 0 {
		return
	}
	n, err := c.wire.tryWrite(p)
	if err != nil {
		c.broken()
		return
	}
	c.wrote(n)
	if n < len(p) {
		c.block(p[n:])
	}
}

// wrote counts a write. The caller holds mu.
func (c *Conn) wrote(n int) {
	if n > 0 {
		c.written = c.hub.now.Load()
		c.hub.metrics.writes.Inc()
		c.hub.metrics.bytes.Add(float64(n))
	}
}

// broken notes that the connection can't be written to. The caller holds mu.
func (c *Conn) broken() {
	if c.state < closing {
		c.why = Left
	}
	c.shut()
}

// block lets a goroutine write rest, and whatever is sent until that is done. The caller holds mu.
func (c *Conn) block(rest []byte) {
	c.pending = rest
	c.hub.held.add(len(rest))
	if c.state == open {
		c.state = blocked
	}
	if c.late == 0 {
		c.late = c.hub.now.Load()
	}
	c.draining = true
	c.hub.group.Go(c.drain)
}

// drain writes what is pending and what waits, then lets the connection's rooms go on.
func (c *Conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.draining {
		p := c.pending
		c.mu.Unlock()
		err := c.wire.write(p)
		c.mu.Lock()
		c.hub.held.add(-len(p))
		c.pending = nil
		if err != nil {
			c.draining = false
			c.broken()
			return
		}
		c.wrote(len(p))
		c.pending, c.own = c.own, nil // stays counted
		c.draining = len(c.pending) > 0
	}
	switch c.state {
	case blocked:
		c.state = open
		if c.behind {
			c.behind = false
			for _, m := range c.rooms {
				c.hub.turns.wake(m.room, m.section)
			}
		} else {
			c.late = 0
		}
	case closing:
		c.hangUp()
	}
}
