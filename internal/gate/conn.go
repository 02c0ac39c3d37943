package gate

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
)

// Conn is a connection that came through a Gate. Its methods may be called
// from any goroutine, and those that say what it does also on nil.
type Conn struct {
	net.Conn
	gate     *Gate
	listener *listener
	source   netip.Prefix

	// Guarded by the gate's mu. Idle connections are in two lists, busy ones in
	// their source's only.
	from     *source // nil: it is off the books
	busy     bool
	inGate   *list.Element
	inSource *list.Element
}

// Of returns the Conn that c is, or wraps as TLS does; nil if it came through no Gate.
func Of(c net.Conn) *Conn {
	for {
		switch inner := c.(type) {
		case *Conn:
			return inner
		case interface{ NetConn() net.Conn }:
			c = inner.NetConn()
		default:
			return nil
		}
	}
}

// Busy says that a request runs on the connection, or a broadcast.
func (c *Conn) Busy() { c.become(true) }

// Idle says that nothing runs on the connection any more.
func (c *Conn) Idle() { c.become(false) }

func (c *Conn) become(busy bool) {
	if c == nil {
		return
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.from == nil {
		return
	}
	c.unlist()
	if c.busy = busy; busy {
		c.inSource = c.from.busy.PushBack(c)
	} else {
		c.inGate, c.inSource = c.gate.idle.PushBack(c), c.from.idle.PushBack(c)
	}
}

// again says that one more request runs on a busy connection.
func (c *Conn) again() {
	if c == nil {
		return
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.from != nil && c.busy {
		c.from.busy.MoveToBack(c.inSource)
	}
}

// unlist takes the connection out of the lists that it is in. The caller holds mu.
func (c *Conn) unlist() {
	if c.busy {
		c.from.busy.Remove(c.inSource)
		return
	}
	c.gate.idle.Remove(c.inGate)
	c.from.idle.Remove(c.inSource)
}

// end closes the connection because there are too many; it is off the books.
func (c *Conn) end(reason string) {
	c.listener.closed.WithLabelValues(reason).Inc()
	_ = c.Conn.Close() // whoever uses it finds out
}

// Close closes the connection.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.gate.leave(c)
	return err
}

// NetConn is the connection below: who reads and writes the socket itself (chat) finds it there, and closes this one.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// CloseWrite says that nothing more will be sent.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Watch has the Conns of s busy while a request runs on them: not while its
// header is read, and not while an HTTP/2 connection has no open stream. It is
// called before s serves.
func Watch(s *http.Server) {
	s.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateActive:
			Of(c).Busy()
		case http.StateIdle:
			Of(c).Idle()
		}
	}
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, Of(c))
	}
	next := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*Conn); ok {
			c.again() // HTTP/2 tells ConnState of the first stream only
		}
		next.ServeHTTP(w, r)
	})
}

// connKey is where a request's context has its *Conn.
type connKey struct{}
