package room

import (
	"sync"
	"time"
)

const (
	// buckets are parts of all connections; one is swept each sweepEvery, so each connection is looked at once a second.
	buckets    = 16
	sweepEvery = time.Second / buckets
	// lingerSeconds is how long the other end may take to close its end, after the goodbye.
	lingerSeconds = 2
)

// sweep holds all connections, and looks at each of them once a second: so no connection needs a timer.
type sweep [buckets]bucket

type bucket struct {
	mu    sync.Mutex
	conns []*Conn
}

func (s *sweep) add(c *Conn) {
	b := &s[c.id%buckets]
	b.mu.Lock()
	defer b.mu.Unlock()
	c.bucket, c.at = b, len(b.conns)
	b.conns = append(b.conns, c)
}

func (s *sweep) remove(c *Conn) {
	b := c.bucket
	b.mu.Lock()
	defer b.mu.Unlock()
	last := len(b.conns) - 1
	b.conns[c.at] = b.conns[last]
	b.conns[c.at].at = c.at
	b.conns[last] = nil
	b.conns = b.conns[:last]
}

// each calls fn with every connection.
func (s *sweep) each(fn func(c *Conn)) {
	for i := range s {
		s[i].each(fn)
	}
}

func (b *bucket) each(fn func(c *Conn)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		fn(c)
	}
}

// sweepUntil sweeps until stop is closed.
func (h *Hub) sweepUntil(stop <-chan struct{}) {
	began := time.Now()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		h.now.Store(uint32(time.Since(began)/time.Second) + 1)
		h.sweep[i%buckets].each((*Conn).look)
	}
}

// look pings, keeps alive or closes a connection for which it is time.
func (c *Conn) look() {
	now := c.hub.now.Load()
	if ping := c.inspect(now); ping != nil {
		c.Send(ping(c))
	}
}

// inspect closes what has to be closed, and returns what makes the frames that are due.
func (c *Conn) inspect(now uint32) (due func(*Conn) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.liveness
	received := c.received.Load()
	passed := func(since uint32, limit time.Duration) bool {
		return limit > 0 && now > since && time.Duration(now-since)*time.Second >= limit
	}
	switch {
	case c.state == closed:
	case c.state == closing:
		if now > c.until {
			c.shut()
		}
	case c.late != 0 && passed(c.late, c.hub.SlowAfter):
		c.close(Slow)
	case l == nil:
	case passed(received, l.DeadAfter):
		c.close(Silent)
	case l.Ping != nil && passed(max(received, c.pinged), l.PingAfter):
		c.pinged = now
		return l.Ping
	case l.Keepalive != nil && passed(c.written, l.KeepaliveAfter):
		return l.Keepalive
	}
	return nil
}
