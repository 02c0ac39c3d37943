package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"
)

// serveStalls serves h with a limit on an unused port.
func serveStalls(t *testing.T, h http.HandlerFunc, limit time.Duration) string {
	t.Helper()
	s := httptest.NewServer(limitStalls(h, limit))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestReaderWhoTakesNothingIsCutOff(t *testing.T) {
	done := make(chan error, 1)
	address := serveStalls(t, func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for i := 0; i < 1000 && err == nil; i++ {
			_, err = w.Write(make([]byte, 1<<20))
		}
		done <- err
	}, 100*time.Millisecond)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler's write ended with %v, want a deadline", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the handler is still held up by a reader who takes nothing")
	}
}

func TestAnAnswerMayWaitBeforeItsFirstByte(t *testing.T) {
	const limit = 50 * time.Millisecond
	address := serveStalls(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			select {
			case <-time.After(4 * limit):
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "here")
	}, limit)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	br := bufio.NewReader(conn)
	for _, path := range []string{"/", "/wait", "/"} { // on one connection
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("GET %s: %v", path, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "here" {
			t.Errorf("GET %s = %q, %v", path, body, err)
		}
	}
}

// The larger an answer, the faster it must be taken: one piece within each limit isn't enough.
func TestLargeAnswerMustBeTakenInItsTime(t *testing.T) {
	const limit, size = 100 * time.Millisecond, 256 << 20
	done := make(chan error, 1)
	address := serveStalls(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, err := w.Write(make([]byte, size))
		done <- err
	}, limit)
	ask := func() net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return conn
	}
	go func(conn net.Conn) { // a tenth of what would be fast enough
		tick := time.NewTicker(limit / 10)
		defer tick.Stop()
		for piece := make([]byte, size/(largeShare*10)/10); ; <-tick.C {
			if _, err := io.ReadFull(conn, piece); err != nil {
				return
			}
		}
	}(ask())
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler's write ended with %v, want a deadline", err)
		}
	case <-time.After(3 * time.Second): // all of it takes 5 s
		t.Fatal("the handler is still held up by a reader who takes a tenth of what he should")
	}
}

// A handler's own deadline holds, whichever of its pieces is being sent.
func TestHandlerEndsItsAnswerEarly(t *testing.T) {
	done := make(chan error, 1)
	address := serveStalls(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		var err error
		for err == nil {
			_, err = w.Write(make([]byte, 1<<20))
		}
		done <- err
	}, time.Minute)
	resp, err := http.Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	go func() { _, _ = io.Copy(io.Discard, resp.Body) }()
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler's write ended with %v, want a deadline", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the handler's deadline was forgotten")
	}
}

// Browsers that came by HTTPS are told to come by it again, but only where that
// can't lead them to a port without TLS.
func TestStrictTransport(t *testing.T) {
	h := strictTransport(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct {
		url  string
		told bool
	}{
		{"https://example.org/", true},
		{"https://example.org:443/", true},
		{"https://example.org:8443/", false},
		{"https://[2001:db8::1]/", true},
		{"http://example.org/", false},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.url, nil))
		if got := w.Header().Get("Strict-Transport-Security"); (got != "") != c.told {
			t.Errorf("%s is told %q", c.url, got)
		}
	}
}

// What an HTTP/2 client may send without being read is little: viewers have no
// bodies to send.
func TestHTTP2Receives(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newPublicServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() {
		_ = s.Close()
		<-done
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	const settings, ping, windowUpdate = 4, 6, 8
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2Frame(settings, "") + http2Frame(ping, "12345678"))); err != nil {
		t.Fatal(err)
	}
	got, window := map[uint16]uint32{}, uint32(65_535) // the window that RFC 9113 begins with
	for kind := byte(0); kind != ping; {
		head := make([]byte, 9)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, body); err != nil {
			t.Fatal(err)
		}
		switch kind = head[3]; kind {
		case settings:
			for ; len(body) >= 6; body = body[6:] {
				got[binary.BigEndian.Uint16(body)] = binary.BigEndian.Uint32(body[2:])
			}
		case windowUpdate:
			window += binary.BigEndian.Uint32(body)
		}
	}
	const maxStreams, initialWindow, maxFrame = 3, 4, 5
	if got[maxStreams] != 128 || got[initialWindow] > 64<<10 || got[maxFrame] > 16<<10 || window > 64<<10 {
		t.Errorf("settings %v, and %d bytes of the connection; want 128 streams, 64 KiB, frames of 16 KiB", got, window)
	}
}

// http2Frame is one of HTTP/2's, of stream 0.
func http2Frame(kind byte, body string) string {
	return string([]byte{0, 0, byte(len(body)), kind, 0, 0, 0, 0, 0}) + body
}
