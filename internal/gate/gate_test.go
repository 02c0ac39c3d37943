package gate

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// patience bounds the wait for what must happen, a moment that for what must not.
const (
	patience = 10 * time.Second
	aMoment  = 50 * time.Millisecond
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is an HTTP server behind a gate. A request for /wait is answered when
// release is closed, any other at once.
type site struct {
	t        *testing.T
	gate     *Gate
	registry *prometheus.Registry
	address  string
	waiting  atomic.Int32 // requests for /wait
	release  chan struct{}
}

func serveSite(t *testing.T, cfg Config, secure bool) *site {
	t.Helper()
	s := &site{t: t, registry: prometheus.NewRegistry(), release: make(chan struct{})}
	cfg.Metrics, cfg.Log = NewMetrics(s.registry), slog.New(slog.DiscardHandler)
	s.gate = New(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(s.serve), Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	Watch(server)
	serve := server.Serve
	if secure {
		borrowed := httptest.NewTLSServer(nil) // for its certificate
		server.TLSConfig = &tls.Config{Certificates: borrowed.TLS.Certificates}
		borrowed.Close()
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	done := make(chan error, 1)
	go func() { done <- serve(s.gate.Listen(l, "site")) }()
	t.Cleanup(func() {
		close(s.release)
		_ = server.Close()
		<-done
	})
	return s
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/wait" {
		s.waiting.Add(1)
		defer s.waiting.Add(-1)
		select {
		case <-s.release:
		case <-r.Context().Done():
		}
	}
	_, _ = io.WriteString(w, "here")
}

// visitor is a connection to a site.
type visitor struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// dial connects from an address, 127.0.0.1 and up.
func (s *site) dial(from string) *visitor {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(context.Background(), "tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return &visitor{Conn: c, t: s.t, r: bufio.NewReader(c)}
}

// get asks for a path and reads the answer.
func (v *visitor) get(path string) error {
	v.ask(path)
	_ = v.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(v.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func (v *visitor) ask(path string) {
	_, _ = fmt.Fprintf(v, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path) // who asks in vain finds out when it reads
}

// gone waits until the site has closed the connection.
func (v *visitor) gone() {
	v.t.Helper()
	_ = v.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, v.r); err != nil && isTimeout(err) {
		v.t.Error("the connection wasn't closed")
	}
}

// stays checks that the site doesn't close the connection.
func (v *visitor) stays() {
	v.t.Helper()
	_ = v.SetReadDeadline(time.Now().Add(aMoment))
	if _, err := v.r.Peek(1); !isTimeout(err) {
		v.t.Errorf("the connection was closed: %v", err)
	}
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

// counts waits until a metric has a value.
func (s *site) counts(name, reason string, want float64) {
	s.t.Helper()
	var got float64
	s.until(func() bool { got = value(s.t, s.registry, name, reason); return got == want }, func() string {
		return fmt.Sprintf("%s of %q is %v, want %v", name, reason, got, want)
	})
}

// idles waits until so many connections are idle.
func (s *site) idles(want int) {
	s.t.Helper()
	s.until(func() bool {
		s.gate.mu.Lock()
		defer s.gate.mu.Unlock()
		return s.gate.idle.Len() == want
	}, func() string { return fmt.Sprintf("not %d connections are idle", want) })
}

func (s *site) until(ok func() bool, what func() string) {
	s.t.Helper()
	limit, tick := time.After(patience), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit:
			s.t.Fatal(what())
		case <-tick.C:
		}
	}
}

func value(t *testing.T, r *prometheus.Registry, name, reason string) (sum float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (reason == "" || strings.Contains(m.String(), `"`+reason+`"`)) {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// What holds a connection open and asks nothing makes room: a keep-alive, half a
// header, an HTTP/2 connection without a stream, silence, half a TLS handshake.
func TestIdleMakesRoom(t *testing.T) {
	for name, idle := range map[string]func(*visitor) error{
		"keep-alive":      func(v *visitor) error { return v.get("/") },
		"half a header":   func(v *visitor) error { _, err := v.Write([]byte("GET / HTTP/1.1\r\nHost:")); return err },
		"a second header": func(v *visitor) error { err := v.get("/"); _, _ = v.Write([]byte("GET / HT")); return err },
		"silence":         func(*visitor) error { return nil },
		"HTTP/2, no stream": func(v *visitor) error {
			_, err := v.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveSite(t, Config{Total: 4, PerSource: 2}, false)
			busy := s.dial("127.0.0.1")
			busy.ask("/wait")
			s.until(func() bool { return s.waiting.Load() == 1 }, func() string { return "no request arrived" })
			var held []*visitor
			for i := range 3 {
				v := s.dial(fmt.Sprintf("127.0.0.%d", 2+i))
				if err := idle(v); err != nil {
					t.Fatal(err)
				}
				held = append(held, v)
				s.idles(1 + i)
			}
			if err := s.dial("127.0.0.9").get("/"); err != nil {
				t.Errorf("a newcomer got no answer: %v", err)
			}
			held[0].gone()
			busy.stays()
			s.counts("millrace_connections_closed_total", madeRoom, 1)
			s.counts("millrace_connections", "", 4)
		})
	}
}

func TestHalfAHandshakeMakesRoom(t *testing.T) {
	s := serveSite(t, Config{Total: 2}, true)
	half := []*visitor{s.dial("127.0.0.2"), s.dial("127.0.0.3")}
	for _, v := range half {
		if _, err := v.Write([]byte{22, 3, 1, 2, 0, 1}); err != nil {
			t.Fatal(err)
		}
	}
	s.counts("millrace_connections", "", 2)
	c := tls.Client(s.dial("127.0.0.4"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if doc, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(doc), "here") {
		t.Errorf("answer over TLS: %q, %v", doc, err)
	}
	half[0].gone()
	half[1].stays()
}

// A source over its bound costs itself a connection and nobody else: an idle one,
// or else that with the oldest request.
func TestSourceOverItsBound(t *testing.T) {
	s := serveSite(t, Config{Total: 10, PerSource: 2}, false)
	neighbour := s.dial("127.0.0.2")
	if err := neighbour.get("/"); err != nil {
		t.Fatal(err)
	}
	first := s.dial("127.0.0.3")
	first.ask("/wait")
	s.until(func() bool { return s.waiting.Load() == 1 }, func() string { return "no request arrived" })
	idle := s.dial("127.0.0.3")
	if err := idle.get("/"); err != nil {
		t.Fatal(err)
	}
	s.idles(2)
	second := s.dial("127.0.0.3")
	second.ask("/wait")
	idle.gone()
	s.counts("millrace_connections_closed_total", madeRoomSource, 1)
	s.until(func() bool { return s.waiting.Load() == 2 }, func() string { return "no second request arrived" })
	first.stays()

	if err := s.dial("127.0.0.3").get("/"); err != nil {
		t.Errorf("a newcomer of the same address got no answer: %v", err)
	}
	first.gone()
	second.stays()
	neighbour.stays()
	s.counts("millrace_connections_closed_total", sourceFull, 1)
}

// Where busy connections are spared, the newcomer goes.
func TestBusyIsSpared(t *testing.T) {
	s := serveSite(t, Config{Total: 4, PerSource: 1, Spare: true}, false)
	busy := s.dial("127.0.0.2")
	busy.ask("/wait")
	s.until(func() bool { return s.waiting.Load() == 1 }, func() string { return "no request arrived" })
	s.dial("127.0.0.2").gone()
	busy.stays()
	s.counts("millrace_connections_closed_total", sourceFull, 1)
}

// Nobody's running request is ended for another address.
func TestAllAreBusy(t *testing.T) {
	s := serveSite(t, Config{Total: 2}, false)
	var busy []*visitor
	for i := range 2 {
		v := s.dial(fmt.Sprintf("127.0.0.%d", 2+i))
		v.ask("/wait")
		busy = append(busy, v)
	}
	s.until(func() bool { return s.waiting.Load() == 2 }, func() string { return "not all requests arrived" })
	s.dial("127.0.0.4").gone()
	for _, v := range busy {
		v.stays()
	}
	s.counts("millrace_connections_closed_total", full, 1)
}

// Behind a proxy that is trusted may be as many as fit; its neighbour is bounded.
func TestTrustedProxies(t *testing.T) {
	s := serveSite(t, Config{Total: 10, PerSource: 1, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}, false)
	var all []*visitor
	for range 5 {
		v := s.dial("127.0.0.2")
		if err := v.get("/"); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	for _, v := range all {
		v.stays()
	}
	one := s.dial("127.0.0.3")
	if err := one.get("/"); err != nil {
		t.Fatal(err)
	}
	s.idles(6)
	s.dial("127.0.0.3")
	one.gone()
}

// An HTTP/2 connection counts as recent by its newest request, though it is never
// without one.
func TestNewestRequestCounts(t *testing.T) {
	g := New(Config{Total: 3, Metrics: NewMetrics(nil), Log: slog.New(slog.DiscardHandler)})
	l := g.Listen(nil, "x").(*listener)
	var conns []*Conn
	for range 3 {
		theirs, ours := net.Pipe()
		t.Cleanup(func() { _ = theirs.Close() })
		c := g.admit(ours, l)
		c.Busy()
		conns = append(conns, c)
	}
	conns[0].again()
	g.mu.Lock()
	defer g.mu.Unlock()
	if goes := first(&conns[0].from.busy); goes != conns[1] {
		t.Error("the connection with the newest request would go first")
	}
}

// Accept goes on when there are no descriptors, closes what is idle for them, and
// ends with Close.
func TestAcceptSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Total: 10, Metrics: NewMetrics(nil), Log: slog.New(slog.DiscardHandler)})
		inner := &scripted{script: make(chan any, 10)}
		l := g.Listen(inner, "x")
		theirs, ours := net.Pipe()
		inner.script <- ours
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			inner.script <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
		}
		_, later := net.Pipe()
		inner.script <- later
		began := time.Now()
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != (5+10+20)*time.Millisecond {
			t.Errorf("three errors took %v", took)
		}
		if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the idle connection wasn't closed: %v", err)
		}
		inner.script <- syscall.ENOMEM
		go func() { _ = l.Close() }()
		if _, err := l.Accept(); err != net.ErrClosed {
			t.Errorf("Accept of a closed listener says %v", err)
		}
	})
}

// Where a gate has no idle connection, another one yields.
func TestAnotherGateYields(t *testing.T) {
	cfg := Config{Total: 10, Metrics: NewMetrics(nil), Log: slog.New(slog.DiscardHandler)}
	viewers := New(cfg)
	cfg.Yields = viewers
	operators := New(cfg)
	theirs, ours := net.Pipe()
	viewers.admit(ours, viewers.Listen(nil, "viewers").(*listener))
	inner := &scripted{script: make(chan any, 2)}
	_, later := net.Pipe()
	inner.script <- syscall.EMFILE
	inner.script <- later
	if _, err := operators.Listen(inner, "operators").Accept(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.SetDeadline(time.Now().Add(patience))
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the viewer's idle connection wasn't closed: %v", err)
	}
}

// scripted is a listener that gives what it is told to.
type scripted struct {
	net.Listener
	script chan any
}

func (s *scripted) Accept() (net.Conn, error) {
	switch next := (<-s.script).(type) {
	case net.Conn:
		return next, nil
	default:
		return nil, next.(error)
	}
}

func (s *scripted) Close() error { return nil }

// Connections that come and go leave nothing on the books.
func TestBooksAreClean(t *testing.T) {
	s := serveSite(t, Config{Total: 20, PerSource: 5}, false)
	var all []*visitor
	for i := range 300 {
		v := s.dial(fmt.Sprintf("127.0.0.%d", 2+i%10))
		switch i % 3 {
		case 0:
			_ = v.get("/") // another one may have taken its place already
		case 1:
			v.ask("/wait")
		}
		if i%2 == 0 {
			_ = v.Close()
		}
		all = append(all, v)
	}
	for _, v := range all {
		_ = v.Close() // some are closed
	}
	s.counts("millrace_connections", "", 0)
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if s.gate.open != 0 || len(s.gate.sources) != 0 || s.gate.idle.Len() != 0 {
		t.Errorf("%d connections, %d sources, %d idle are left on the books", s.gate.open, len(s.gate.sources), s.gate.idle.Len())
	}
}
