package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// stallPiece and stallLimit cut off a reader who is slower than 3 kB/s:
	// every piece of an answer must be taken within the limit. An answer may wait
	// as long as it likes before its first byte (blocking playlist reload).
	stallPiece = 64 << 10
	stallLimit = 20 * time.Second
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
}

// extend gives the next piece its deadline.
func (w *patientWriter) extend() { _ = w.rc.SetWriteDeadline(time.Now().Add(w.limit)) }

// WriteHeader sends the head of the answer.
func (w *patientWriter) WriteHeader(status int) {
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

// Write sends p piece by piece.
func (w *patientWriter) Write(p []byte) (n int, err error) {
	for {
		w.extend()
		m, err := w.ResponseWriter.Write(p[n:min(n+stallPiece, len(p))])
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// Flush is for handlers that ask for http.Flusher.
func (w *patientWriter) Flush() {
	w.extend()
	_ = w.rc.Flush()
}

// Unwrap is for http.ResponseController.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
