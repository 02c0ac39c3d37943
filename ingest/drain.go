package ingest

import (
	"context"
	"net"
	"slices"
	"time"
)

// door is a listener that can stop to accept while its connections go on.
type door struct {
	net.Listener
	closing context.Context // its end: accept nothing more
	serving context.Context // its end: the connections are over too
}

// Accept returns no error of a listener that was closed before the
// connections' time has come: it would end them.
func (d door) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil && d.closing.Err() != nil {
		<-d.serving.Done()
	}
	return c, err
}

// drain takes no more publishers, leaves those that are connected the time
// that they may have, and ends them: their broadcasts wait for them, here after
// a restart or at another ingest. It returns when workers have stored what
// was published, or have had long enough for it.
func (s *Service) drain(failed context.Context) {
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	for _, l := range s.listeners() {
		_ = l.Close()
	}
	s.cfg.Log.Info("taking no more publishers", "drain", s.cfg.Drain)
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	over := time.NewTimer(s.cfg.Drain)
	defer over.Stop()
	for waiting := s.publishing(); waiting; waiting = waiting && s.publishing() {
		select {
		case <-tick.C:
		case <-over.C:
			waiting = false
		case <-failed.Done():
			waiting = false
		}
	}
	for _, b := range s.all() {
		b.stop()
	}
	s.running.Wait()
}

func (s *Service) publishing() bool {
	return slices.ContainsFunc(s.all(), (*broadcast).publishing)
}

// listeners are those that encoders connect to.
func (s *Service) listeners() (list []net.Listener) {
	for _, l := range []net.Listener{s.cfg.RTMP, s.cfg.RTMPS} {
		if l != nil {
			list = append(list, l)
		}
	}
	return list
}
