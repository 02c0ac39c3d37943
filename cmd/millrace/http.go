package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// stallPiece and stallLimit cut off a reader who is slower than 3 kB/s:
	// every piece of an answer must be taken within the limit. An answer may wait
	// as long as it likes before its first byte (blocking playlist reload).
	stallPiece = 64 << 10
	stallLimit = 20 * time.Second
	// largeShare is how many stall limits a whole answer may take after the first: 100 s. So the
	// larger it is, the faster it must be taken, and what it holds in memory is soon let go of: a
	// segment of 10 MB at 100 kB/s. One of 2 MB at 20 kB/s leaves room for a phone with 300 kb/s.
	largeShare = 5
	// bodyLimit is how long a request's body may take.
	bodyLimit = 15 * time.Second
)

// newPublicServer returns a server for the world: HTTP/1.1 and HTTP/2, over TLS
// or without.
func newPublicServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           limitStalls(h, stallLimit),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what clients do wrong
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 128,
			SendPingTimeout:      15 * time.Second,
			PingTimeout:          15 * time.Second,
			WriteByteTimeout:     stallLimit,
		},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// serveHTTP serves, with TLS if the server has a TLSConfig, until ctx ends.
// Then it goes on for drain, but tells clients to connect elsewhere, and at
// last gives requests under way the time of finish to end.
func serveHTTP(s *http.Server, l net.Listener, drain, finish time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		s.Handler = closeConnections(ctx, s.Handler)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			<-ctx.Done()
			time.Sleep(drain) // a second signal ends the process
			limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), finish)
			defer cancel()
			if s.Shutdown(limit) != nil {
				_ = s.Close() // what is left are readers who wait or are slow
			}
		}()
		var err error
		if s.TLSConfig != nil {
			err = s.ServeTLS(l, "", "")
		} else {
			err = s.Serve(l)
		}
		if errors.Is(err, http.ErrServerClosed) {
			<-stop
			return nil
		}
		return err
	}
}

// closeConnections closes a connection after the answer to a request that came
// after ctx's end. A load balancer that keeps connections to this process then
// opens new ones elsewhere, and no request is lost.
func closeConnections(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			w.Header().Set("Connection", "close") // in HTTP/2: GOAWAY
		}
		next.ServeHTTP(w, r)
	})
}

// limitStalls gives each piece of an answer a deadline, and the request's body one.
func limitStalls(next http.Handler, limit time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if r.Body != nil && r.Body != http.NoBody {
			_ = rc.SetReadDeadline(time.Now().Add(bodyLimit))
		}
		next.ServeHTTP(&patientWriter{ResponseWriter: w, rc: rc, limit: limit}, r)
	})
}

// patientWriter writes an answer in pieces, each with a deadline.
type patientWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration

	// Owned by the handler: when the answer began, its size where it says so, and how
	// much of it was taken.
	began      time.Time
	size, sent int64

	// mu guards until, the deadline that the handler set, and the connection's.
	mu    sync.Mutex
	until time.Time
}

// extend gives the next n bytes their deadline.
func (w *patientWriter) extend(n int) {
	now := time.Now()
	if w.began.IsZero() {
		w.began = now
		w.size, _ = strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64) // else 0
	}
	deadline := now.Add(w.limit)
	if w.size > stallPiece*largeShare {
		share := float64(w.sent+int64(n)) / float64(w.size)
		due := w.began.Add(w.limit + time.Duration(share*largeShare*float64(w.limit)))
		deadline = earlier(deadline, due)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.until.IsZero() {
		deadline = earlier(deadline, w.until)
	}
	_ = w.rc.SetWriteDeadline(deadline)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// SetWriteDeadline is for http.ResponseController: no piece gets more time than until t.
// Another goroutine than the handler's may call it while that writes.
func (w *patientWriter) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = t
	return w.rc.SetWriteDeadline(t)
}

// WriteHeader sends the head of the answer.
func (w *patientWriter) WriteHeader(status int) {
	w.extend(0)
	w.ResponseWriter.WriteHeader(status)
}

// Write sends p piece by piece.
func (w *patientWriter) Write(p []byte) (n int, err error) {
	for {
		piece := p[n:min(n+stallPiece, len(p))]
		w.extend(len(piece))
		m, err := w.ResponseWriter.Write(piece)
		n += m
		w.sent += int64(m)
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// Flush is for handlers that ask for http.Flusher.
func (w *patientWriter) Flush() {
	w.extend(0)
	_ = w.rc.Flush()
}

// Unwrap is for http.ResponseController.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
