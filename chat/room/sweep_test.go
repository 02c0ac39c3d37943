package room

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// piped is a connection over a pipe, which takes nothing until it is read, in a bubble with its own clock.
func piped(t *testing.T, c Config, l *Liveness, test func(h *Hub, c *Conn, there net.Conn, closed <-chan Reason)) {
	synctest.Test(t, func(t *testing.T) {
		f := lines()
		c.Formats, c.Metrics = []*Format{f}, prometheus.NewRegistry()
		h, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = h.Run(ctx) })
		here, there := net.Pipe()
		fr := &front{closed: make(chan Reason, 1)}
		conn, err := h.Attach(here, Options{Format: f, Handler: fr, Liveness: l})
		if err != nil {
			t.Fatal(err)
		}
		test(h, conn, there, fr.closed)
		_ = there.Close()
		cancel()
		running.Wait()
	})
}

// about checks that something took a time, to two seconds.
func about(t *testing.T, began time.Time, want time.Duration) {
	t.Helper()
	if took := time.Since(began); took < want-time.Second || took > want+2*time.Second {
		t.Errorf("after %v, want %v", took, want)
	}
}

func TestSilentConnectionIsPingedThenClosed(t *testing.T) {
	l := &Liveness{PingAfter: 20 * time.Second, DeadAfter: 50 * time.Second, Ping: func(*Conn) []byte { return []byte("ping\n") }}
	piped(t, Config{}, l, func(_ *Hub, _ *Conn, there net.Conn, closed <-chan Reason) {
		began := time.Now()
		buf := make([]byte, 100)
		for _, want := range []time.Duration{20 * time.Second, 40 * time.Second} {
			n, err := there.Read(buf)
			if err != nil || string(buf[:n]) != "ping\n" {
				t.Fatalf("got %q, %v", buf[:n], err)
			}
			about(t, began, want)
		}
		if _, err := there.Write([]byte("pong")); err != nil { // it lives
			t.Fatal(err)
		}
		began = time.Now()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		if why := <-closed; why != Silent {
			t.Errorf("closed because of %v", why)
		}
		about(t, began, 50*time.Second)
	})
}

func TestKeepalive(t *testing.T) {
	l := &Liveness{KeepaliveAfter: 10 * time.Second, Keepalive: func(*Conn) []byte { return []byte("keepalive\n") }}
	piped(t, Config{}, l, func(_ *Hub, c *Conn, there net.Conn, _ <-chan Reason) {
		began := time.Now()
		buf := make([]byte, 100)
		for i := range 3 {
			n, err := there.Read(buf)
			if err != nil || string(buf[:n]) != "keepalive\n" {
				t.Fatalf("got %q, %v", buf[:n], err)
			}
			about(t, began, time.Duration(i+1)*10*time.Second)
			if i == 1 { // what is written counts
				time.Sleep(5 * time.Second) // in a bubble
				began = began.Add(5 * time.Second)
				c.Send([]byte("x"))
				if _, err := there.Read(buf); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// A reader that takes nothing for too long is closed, and its goroutine ends.
func TestSlowReaderIsClosed(t *testing.T) {
	piped(t, Config{SlowAfter: 15 * time.Second}, nil, func(h *Hub, c *Conn, there net.Conn, closed <-chan Reason) {
		r := h.Open("r", "0-0")
		if err := r.Join(c, Live()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // in a bubble
		began := time.Now()
		r.Publish(entry(1))
		if why := <-closed; why != Slow {
			t.Errorf("closed because of %v", why)
		}
		about(t, began, 15*time.Second+lingerSeconds*time.Second)
		if used := h.held.used.Load(); used != 0 {
			synctest.Wait()
			if used = h.held.used.Load(); used != 0 {
				t.Errorf("%d bytes still count as held", used)
			}
		}
	})
}

// One that doesn't take what was sent to it alone is closed as well.
func TestSlowReaderOfItsOwnFramesIsClosed(t *testing.T) {
	piped(t, Config{SlowAfter: 15 * time.Second}, nil, func(_ *Hub, c *Conn, _ net.Conn, closed <-chan Reason) {
		began := time.Now()
		c.Send([]byte("x"))
		if why := <-closed; why != Slow {
			t.Errorf("closed because of %v", why)
		}
		about(t, began, 15*time.Second+lingerSeconds*time.Second)
	})
}
