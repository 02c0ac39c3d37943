package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// TestHostile does to the RTMP port what nobody should, and checks that each
// finds its limit while the broadcast of another channel isn't touched.
func TestHostile(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t, "--ladder", "none")
	calm := s.PublishClip(t, s.Channel("calm"), longClip)
	r := hls.Follow(t, s.Playlist("calm"), false)
	s.AwaitLive("calm", "")
	before := measure(s)
	// Alone: who makes room for others here are the others' connections, too.
	t.Run("idle", func(t *testing.T) { idleConnections(t, s.In(t)) })
	s.SideBySide(t, map[string]func(*testing.T, *harness.Server){
		"drip":       drip,
		"flood":      flood,
		"wrong keys": wrongKeys,
	})
	if !calm.Running() {
		t.Error("the calm broadcast ended before the attacks did: make it longer")
	}
	harness.Eventually(t, 20*time.Second, func() error {
		if n := s.Metric("millrace_ingest_connections", ""); n != 1 {
			return fmt.Errorf("%v connections are left", n)
		}
		return nil
	})
	after := measure(s)
	t.Logf("before: %s; after: %s", before, after)
	if after.heap > before.heap+100 {
		t.Errorf("the heap grew from %.0f to %.0f MiB", before.heap, after.heap)
	}
	if after.goroutines > before.goroutines+100 {
		t.Errorf("%v goroutines, %v before", after.goroutines, before.goroutines)
	}
	calm.End()
	r.Wait(30 * time.Second)
	if d := r.Verify(); d != 0 {
		t.Errorf("the calm broadcast has %d discontinuities", d)
	}
	if text := s.Log.String(); strings.Contains(text, "panic") {
		t.Errorf("a panic:\n%s", text)
	}
}

// usage is what a server needs at one moment.
type usage struct{ heap, resident, cpu, goroutines float64 }

func (u usage) String() string {
	return fmt.Sprintf("heap %.0f MiB, resident %.0f MiB, CPU time %.1f s, %.0f goroutines", u.heap, u.resident, u.cpu, u.goroutines)
}

func measure(s *harness.Server) usage {
	hls.Get(s.T, "http://"+s.Ops+"/debug/pprof/heap?gc=1") // collects first
	return usage{
		s.Metric("go_memstats_heap_alloc_bytes", "") / (1 << 20), s.Metric("process_resident_memory_bytes", "") / (1 << 20),
		s.Metric("process_cpu_seconds_total", ""), s.Metric("go_goroutines", ""),
	}
}

// dialFrom connects from another address of this machine.
func dialFrom(ctx context.Context, from, to string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	return d.DialContext(ctx, "tcp", to)
}

// hungUp waits until the server has closed a connection, and returns how long that took.
func hungUp(conn net.Conn, limit time.Duration) (time.Duration, error) {
	began := time.Now()
	_ = conn.SetReadDeadline(began.Add(limit)) // Read says it if this fails
	buf := make([]byte, 4096)
	for {
		_, err := conn.Read(buf)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return 0, fmt.Errorf("the connection is still open after %v", limit)
		}
		if err != nil {
			return time.Since(began), nil
		}
	}
}

// trickle sends a byte each second until the connection is closed.
func trickle(conn net.Conn, data []byte, stop <-chan struct{}) {
	for i := 0; ; i++ {
		if _, err := conn.Write(data[i%len(data) : i%len(data)+1]); err != nil {
			return
		}
		select {
		case <-time.After(time.Second):
		case <-stop:
			return
		}
	}
}

// drip sends a byte a second: in the handshake, before it publishes, and in the
// middle of a frame. Half an opening and a silent end are as bad.
func drip(t *testing.T, s *harness.Server) {
	key := s.Channel("drip")
	shakes := func(t *testing.T) net.Conn {
		e, err := harness.DialEncoder(s.RTMP)
		if err != nil {
			t.Fatal(err)
		}
		return e.Conn
	}
	drops := make(map[string]func(*testing.T, *harness.Server))
	for _, tt := range []struct {
		name  string
		limit time.Duration
		open  func(t *testing.T) (net.Conn, <-chan struct{})
		drip  []byte
	}{
		{"in the handshake", 14 * time.Second, func(t *testing.T) (net.Conn, <-chan struct{}) {
			conn, err := net.Dial("tcp", s.RTMP)
			if err != nil {
				t.Fatal(err)
			}
			return conn, nil
		}, []byte{3}},
		{"half open", 14 * time.Second, func(t *testing.T) (net.Conn, <-chan struct{}) {
			conn, err := net.Dial("tcp", s.RTMP)
			if err != nil {
				t.Fatal(err)
			}
			return conn, nil
		}, nil},
		{"before publishing", 20 * time.Second, func(t *testing.T) (net.Conn, <-chan struct{}) {
			return shakes(t), nil
		}, []byte{3, 0, 0, 0, 0, 0xfa, 0, 20, 0, 0, 0, 0}}, // a long command
		{"in a frame", 36 * time.Second, func(t *testing.T) (net.Conn, <-chan struct{}) {
			e, err := harness.DialEncoder(s.RTMP)
			if err == nil {
				err = e.Publish(key)
			}
			if err == nil { // a frame of 60,000 bytes begins
				_, err = e.Conn.Write([]byte{6, 0, 0, 0, 0, 0xea, 0x60, 9, 1, 0, 0, 0})
			}
			if err != nil {
				t.Fatal(err)
			}
			return e.Conn, e.Gone
		}, []byte{0x17}},
	} {
		drops[tt.name] = func(t *testing.T, _ *harness.Server) {
			conn, gone := tt.open(t)
			defer conn.Close()
			stop := make(chan struct{})
			var dripping sync.WaitGroup
			defer dripping.Wait()
			defer close(stop)
			if tt.drip != nil {
				dripping.Go(func() { trickle(conn, tt.drip, stop) })
			}
			began := time.Now()
			if gone == nil {
				if _, err := hungUp(conn, tt.limit); err != nil {
					t.Error(err)
				}
			} else {
				select {
				case <-gone:
				case <-time.After(tt.limit):
					t.Errorf("the connection is still open after %v", tt.limit)
				}
			}
			t.Logf("ended after %v", time.Since(began).Round(100*time.Millisecond))
		}
	}
	s.SideBySide(t, drops)
}

// idleConnections opens 2,000 connections that say nothing, from 100 addresses,
// and checks that a new encoder gets in all the same.
func idleConnections(t *testing.T, s *harness.Server) {
	key := s.Channel("late")
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close() // the server may have been first
		}
	}()
	for i := range 2000 {
		c, err := dialFrom(t.Context(), fmt.Sprintf("127.0.1.%d", 1+i%100), s.RTMP)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	most := s.Metric("millrace_ingest_connections", "")
	began := time.Now()
	e, err := harness.DialEncoder(s.RTMP)
	if err == nil {
		defer e.Close()
		err = e.Publish(key)
	}
	if err != nil {
		t.Errorf("an encoder that comes after %d idle connections: %v", len(conns), err)
	}
	t.Logf("%v connections are held of %d; the next encoder published after %v; %s", most, len(conns), time.Since(began).Round(time.Millisecond), measure(s))
	if most > 2000 {
		t.Errorf("%v connections are held", most)
	}
	harness.Eventually(t, 10*time.Second, func() error { // those that made room are gone, and counted
		held, made := s.Metric("millrace_ingest_connections", ""), s.Metric("millrace_connections_closed_total", `listener="rtmp",reason="made_room"`)
		if held > 1000 || made < 500 {
			return fmt.Errorf("%v connections are held, %v made room", held, made)
		}
		return nil
	})
	// One address gets no more than its share.
	var open atomic.Int32
	var group sync.WaitGroup
	for range 60 {
		c, err := dialFrom(t.Context(), "127.0.2.1", s.RTMP)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		group.Go(func() {
			if _, err := hungUp(c, 3*time.Second); err != nil {
				open.Add(1)
			}
		})
	}
	group.Wait()
	if n := open.Load(); n > 32 {
		t.Errorf("one address has %d connections", n)
	}
}

// flood publishes 200 Mb/s in frames of 833 kB until it is told to stop.
func flood(t *testing.T, s *harness.Server) {
	e, err := harness.DialEncoder(s.RTMP)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Publish(s.Channel("flood")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	frame := make([]byte, 200_000_000/8/30)
	copy(frame, []byte{0x17, 1, 0, 0, 0, 0, 0x0c, 0xb7, 0x30, 0x65})
	err = errors.Join(e.Video(0, append([]byte{0x17, 0, 0, 0, 0}, harness.AVCRecord...)), e.Audio(0, []byte{0xaf, 0, 0x11, 0x90}))
	var worst usage
	for i := 0; err == nil && time.Since(began) < 20*time.Second; i++ {
		if frame[0], frame[9] = 0x27, 0x41; i%60 == 0 {
			frame[0], frame[9] = 0x17, 0x65
			if u := measure(s); u.resident > worst.resident {
				worst = u
			}
		}
		err = e.Video(uint32(i*1000/30), frame)
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / 30)))
	}
	if err := e.Await("More than 80 Mb/s arrive: lower the bitrate", 5*time.Second); err != nil {
		t.Error(err)
	}
	t.Logf("told after %v; at most %s", time.Since(began).Round(100*time.Millisecond), worst)
	harness.Eventually(t, 10*time.Second, func() error { // counted when the connection has ended
		if n := s.Metric("millrace_ingest_connections_refused_total", `reason="bitrate"`); n != 1 {
			return fmt.Errorf("%v were refused for their bitrate", n)
		}
		return nil
	})
}

// wrongKeys tries keys as fast as it can for a while.
func wrongKeys(t *testing.T, s *harness.Server) {
	const lasts = 5 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	before := measure(s)
	var tries, heard atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for ctx.Err() == nil {
				tries.Add(1)
				if wrongKey(ctx, s.RTMP) {
					heard.Add(1)
				}
			}
		})
	}
	group.Wait()
	after := measure(s)
	t.Logf("%d tries, %d looked at; CPU time of the server %.2f s", tries.Load(), heard.Load(), after.cpu-before.cpu)
	if n := heard.Load(); n == 0 || n > 100+10*(5+2) {
		t.Errorf("%d keys were tried in %v", n, lasts)
	}
}

// wrongKey tries one key, and reports whether the server looked at it.
func wrongKey(ctx context.Context, address string) bool {
	conn, err := dialFrom(ctx, "127.0.3.1", address)
	if err != nil {
		return false
	}
	e, err := harness.ShakeHands(conn)
	if err != nil {
		return false
	}
	defer e.Close()
	return e.Publish("live_wrong") == nil && strings.Contains(e.Said(), "Denied")
}
