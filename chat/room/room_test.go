package room

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// lines is a format whose frames are lines.
func lines() *Format { return &Format{Name: "lines"} }

// stage is a running hub with a listener.
type stage struct {
	*Hub
	t        *testing.T
	listener net.Listener
}

func start(t *testing.T, c Config) *stage {
	t.Helper()
	c.Metrics = prometheus.NewRegistry()
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = h.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = l.Close()
	})
	return &stage{h, t, l}
}

// front notes what the engine tells it.
type front struct {
	receive func(c *Conn, p []byte) error
	closed  chan Reason
}

func (f *front) Receive(c *Conn, p []byte) error {
	if f.receive != nil {
		return f.receive(c, p)
	}
	return nil
}
func (f *front) Gap(r *Room, missed uint64, newest string) []byte {
	return fmt.Appendf(nil, "gap %s %d %s\n", r.Name(), missed, newest)
}
func (f *front) Goodbye(why Reason) []byte  { return []byte("bye " + why.Name + "\n") }
func (f *front) Closed(c *Conn, why Reason) { f.closed <- why }

// client is the other end of a connection.
type client struct {
	net.Conn
	t     *testing.T
	lines *bufio.Scanner
	conn  *Conn
	front *front
}

func (s *stage) connect(f *Format, receive func(c *Conn, p []byte) error) *client {
	s.t.Helper()
	there, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	here, err := s.listener.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	return s.attach(here, there, f, receive)
}

func (s *stage) attach(here, there net.Conn, f *Format, receive func(c *Conn, p []byte) error) *client {
	s.t.Helper()
	_ = there.SetDeadline(time.Now().Add(20 * time.Second))
	s.t.Cleanup(func() { _ = there.Close() })
	fr := &front{receive: receive, closed: make(chan Reason, 1)}
	c, err := s.Attach(here, Options{Format: f, Handler: fr})
	if err != nil {
		s.t.Fatal(err)
	}
	return &client{there, s.t, bufio.NewScanner(there), c, fr}
}

// expect reads lines and compares them.
func (c *client) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if !c.lines.Scan() {
			c.t.Fatalf("connection ended (%v), want line %q", c.lines.Err(), w)
		}
		if got := c.lines.Text(); got != w {
			c.t.Fatalf("got line %q, want %q", got, w)
		}
	}
}

// ends reads to the end and returns why the engine closed the connection.
func (c *client) ends() Reason {
	c.t.Helper()
	for c.lines.Scan() {
	}
	_ = c.Close()
	select {
	case why := <-c.front.closed:
		return why
	case <-time.After(20 * time.Second):
		c.t.Fatal("Closed wasn't called")
		return Reason{}
	}
}

func entry(id int) Entry {
	return Entry{ID: fmt.Sprintf("%d-0", id), Encode: func(f *Format) []byte { return fmt.Appendf(nil, "%s %d\n", f.Name, id) }}
}

func TestEverybodyGetsEntries(t *testing.T) {
	text, other := lines(), &Format{Name: "other"}
	s := start(t, Config{Formats: []*Format{text, other}})
	r := s.Open("r", "0-0")
	var all []*client
	for i := range 300 { // more than two sections
		f := text
		if i%3 == 0 {
			f = other
		}
		c := s.connect(f, nil)
		if err := r.Join(c.conn, Live()); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for i := 1; i <= 50; i++ {
		r.Publish(entry(i))
	}
	for _, c := range all {
		for i := 1; i <= 50; i++ {
			c.expect(fmt.Sprintf("%s %d", c.conn.Format().Name, i))
		}
	}
}

func TestJoin(t *testing.T) {
	f := lines()
	s := start(t, Config{Formats: []*Format{f}, LogEntries: 10})
	r := s.Open("r", "5-0")
	for i := 6; i <= 9; i++ {
		r.Publish(entry(i))
	}
	for name, test := range map[string]struct {
		from From
		want []int
		err  error
	}{
		"live":                       {from: Live(), want: []int{}},
		"last two":                   {from: Last(2), want: []int{8, 9}},
		"more than there are":        {from: Last(100), want: []int{6, 7, 8, 9}},
		"after one":                  {from: After("7-0"), want: []int{8, 9}},
		"after one between":          {from: After("7-5"), want: []int{8, 9}},
		"after the base":             {from: After("5-0"), want: []int{6, 7, 8, 9}},
		"after the newest":           {from: After("9-0"), want: []int{}},
		"after one that isn't to be": {from: After("10-0"), want: []int{}},
		"after one before the base":  {from: After("4-9"), err: ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.connect(f, nil)
			c.t = t
			if err := r.Join(c.conn, test.from); !errors.Is(err, test.err) {
				t.Fatalf("Join: %v, want %v", err, test.err)
			}
			if test.err != nil {
				if r.Leave(c.conn) {
					t.Fatal("it is in the room after an error")
				}
				return
			}
			for _, id := range test.want {
				c.expect(fmt.Sprintf("lines %d", id))
			}
			if err := r.Join(c.conn, test.from); !errors.Is(err, ErrJoined) {
				t.Fatalf("Join once more: %v", err)
			}
			if !r.Leave(c.conn) {
				t.Fatal("it isn't in the room")
			}
			c.conn.Close(Reason{Name: "test"})
			c.expect("bye test")
		})
	}
}

func TestOwnFramesKeepTheirOrder(t *testing.T) {
	f := lines()
	s := start(t, Config{Formats: []*Format{f}})
	r := s.Open("r", "0-0")
	r.Publish(entry(1))
	release := make(chan struct{})
	defer close(release)
	c := s.connect(f, func(c *Conn, p []byte) error {
		for _, line := range strings.Fields(string(p)) {
			c.Send([]byte("re " + line + "\n"))
		}
		err := r.Join(c, After("0-0"))
		<-release
		return err
	})
	_, _ = c.Write([]byte("a b\n"))
	c.expect("re a", "re b", "lines 1") // while the front is at work
}

func TestSkipOwn(t *testing.T) {
	f := &Format{Name: "lines", SkipOwn: true}
	each := &Format{Name: "each", Each: func(c *Conn, e Entry) []byte { return fmt.Appendf(nil, "%s for %d\n", e.ID, c.ID()) }}
	s := start(t, Config{Formats: []*Format{f, each}})
	r := s.Open("r", "0-0")
	a, b, c := s.connect(f, nil), s.connect(f, nil), s.connect(each, nil)
	for _, one := range []*client{a, b, c} {
		if err := r.Join(one.conn, Live()); err != nil {
			t.Fatal(err)
		}
	}
	own := entry(1)
	own.Origin = a.conn.ID()
	r.Publish(own)
	r.Publish(entry(2))
	a.expect("lines 2")
	b.expect("lines 1", "lines 2")
	c.expect(fmt.Sprintf("1-0 for %d", c.conn.ID()), fmt.Sprintf("2-0 for %d", c.conn.ID()))
}

// A reader that stops is told of what it missed when it goes on, and the others don't notice.
func TestSlowReaderSkips(t *testing.T) {
	f := lines()
	s := start(t, Config{Formats: []*Format{f}, LogEntries: 8})
	r := s.Open("r", "0-0")
	slow, quick := s.connect(f, nil), s.connect(f, nil)
	for _, one := range []*client{slow, quick} {
		if err := r.Join(one.conn, Live()); err != nil {
			t.Fatal(err)
		}
	}
	quick.lines.Buffer(nil, 1<<20)
	slow.lines.Buffer(nil, 1<<20)
	long := bytes.Repeat([]byte("x"), 200<<10)
	last := 0
	for range 200 { // until the kernel's buffers are full, and then more than the log holds
		last++
		id := last
		r.Publish(Entry{ID: fmt.Sprintf("%d-0", id), Encode: func(*Format) []byte { return fmt.Appendf(nil, "%d %s\n", id, long) }})
		if !quick.lines.Scan() || !strings.HasPrefix(quick.lines.Text(), fmt.Sprint(id, " ")) {
			t.Fatalf("the quick reader got %.20q", quick.lines.Text())
		}
	}
	next := 1
	for slow.lines.Scan() {
		line := slow.lines.Text()
		if strings.HasPrefix(line, "gap") {
			if want := fmt.Sprintf("gap r %d %d-0", last+1-next, last); line != want {
				t.Fatalf("got %q, want %q", line, want)
			}
			break
		}
		if !strings.HasPrefix(line, fmt.Sprint(next, " ")) || len(line) < len(long) {
			t.Fatalf("got %.20q, %d bytes", line, len(line))
		}
		next++
	}
	r.Publish(entry(last + 1))
	slow.expect(fmt.Sprintf("lines %d", last+1))
	if why := func() Reason { slow.conn.Close(Reason{Name: "test"}); return slow.ends() }(); why.Name != "test" {
		t.Errorf("closed because of %v", why)
	}
}

func TestReset(t *testing.T) {
	f := lines()
	s := start(t, Config{Formats: []*Format{f}})
	r := s.Open("r", "0-0")
	c := s.connect(f, nil)
	if err := r.Join(c.conn, Live()); err != nil {
		t.Fatal(err)
	}
	r.Publish(entry(1))
	c.expect("lines 1")
	r.Reset("5-0")
	c.expect("gap r 1 5-0")
	r.Publish(entry(6))
	c.expect("lines 6")
	if newest := r.Newest(); newest != "6-0" {
		t.Errorf("the newest is %s", newest)
	}
}

func TestCloseSaysWhy(t *testing.T) {
	f := lines()
	s := start(t, Config{Formats: []*Format{f}})
	failed := s.connect(f, func(*Conn, []byte) error { return errors.New("nonsense") })
	_, _ = failed.Write([]byte("x"))
	failed.expect("bye protocol")
	if why := failed.ends(); why.Name != "protocol" || why.Text != "nonsense" {
		t.Errorf("closed because of %v", why)
	}
	left := s.connect(f, nil)
	if err := s.Open("r", "").Join(left.conn, Live()); err != nil {
		t.Fatal(err)
	}
	_ = left.Close()
	if why := left.ends(); why != Left {
		t.Errorf("closed because of %v", why)
	}
	if s.Room("r").Size() != 0 || !s.Room("r").Remove() || s.Room("r") != nil {
		t.Error("the room isn't empty")
	}
	flooded := s.connect(f, nil)
	for flooded.conn.Send(bytes.Repeat([]byte("x"), 32<<10)) {
	}
	if why := flooded.ends(); why != Flooded {
		t.Errorf("closed because of %v", why)
	}
}

func TestDrain(t *testing.T) {
	f := lines()
	s := start(t, Config{Formats: []*Format{f}})
	ctx, cancel := context.WithCancel(t.Context())
	h, err := New(Config{Formats: []*Format{{Name: "lines"}}, Metrics: prometheus.NewRegistry(), Drain: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	s.Hub = h
	good, deaf := s.connect(h.Formats[0], nil), s.connect(h.Formats[0], nil)
	cancel()
	good.expect("bye drained")
	if why := good.ends(); why != Drained {
		t.Errorf("closed because of %v", why)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if why := deaf.ends(); why != Drained {
		t.Errorf("closed because of %v", why)
	}
	if _, err := h.Attach(nil, Options{}); !errors.Is(err, ErrFull) {
		t.Errorf("Attach after the end: %v", err)
	}
}

// A connection in a wrapper is read and written at its socket, and closed by the wrapper.
func TestSocketBelowWrappers(t *testing.T) {
	f := lines()
	s := start(t, Config{Formats: []*Format{f}})
	there, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err := s.listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	w := &wrapper{Conn: here, closed: make(chan struct{})}
	c := s.attach(w, there, f, nil)
	if c.conn.wire.raw == nil {
		t.Error("the socket wasn't found")
	}
	_ = c.Close()
	if why := c.ends(); why != Left {
		t.Errorf("closed because of %v", why)
	}
	<-w.closed
}

type wrapper struct {
	net.Conn
	closed chan struct{}
}

func (w *wrapper) NetConn() net.Conn { return w.Conn }
func (w *wrapper) Close() error      { close(w.closed); return w.Conn.Close() }
