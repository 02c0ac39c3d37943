package gate

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The pause after an Accept that failed, doubled each time.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// listener gives a listener's connections that come through the gate. Its Accept
// fails only when it is closed: what else can go wrong passes.
type listener struct {
	net.Listener
	gate   *Gate
	name   string
	open   prometheus.Gauge
	closed *prometheus.CounterVec // by reason

	once sync.Once
	shut chan struct{} // closed by Close
}

// Listen puts the gate before l. The name is what metrics and logs call it.
func (g *Gate) Listen(l net.Listener, name string) net.Listener {
	by := prometheus.Labels{"listener": name}
	closed := g.cfg.Metrics.closed.MustCurryWith(by)
	for _, reason := range []string{madeRoom, madeRoomSource, sourceFull, full, starved} {
		closed.WithLabelValues(reason) // a rate needs a first value
	}
	return &listener{
		Listener: l, gate: g, name: name, shut: make(chan struct{}),
		open: g.cfg.Metrics.connections.With(by), closed: closed,
	}
}

// Accept returns the next connection that comes through the gate, a *Conn.
func (l *listener) Accept() (net.Conn, error) {
	pause := minAcceptPause
	for {
		raw, err := l.Listener.Accept()
		if err == nil {
			pause = minAcceptPause
			if c := l.gate.admit(raw, l); c != nil {
				return c, nil
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		// Out of file descriptors or memory, most likely.
		l.gate.shed()
		l.gate.warnings.Warn(l.gate.cfg.Log, "can't accept a connection: raise the limit on open files", err, "listener", l.name)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.shut:
			timer.Stop()
			return nil, net.ErrClosed
		}
		pause = min(2*pause, maxAcceptPause)
	}
}

// Close closes the listener. Its connections go on.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.shut) })
	return l.Listener.Close()
}
