package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
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
