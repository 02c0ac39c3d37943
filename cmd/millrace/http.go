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

	"millrace/internal/gate"
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

// The rest of what a server for the world grants. Which connections go when there
// are too many is the gate's to say.
const (
	// headLimit is how long a request's head may take, and a TLS handshake: enough
	// for a phone that has just found its network again.
	headLimit = 10 * time.Second
	// headSize is for what browsers send, with long cookies of other services of
	// the same host; Go grants 4 KiB more.
	headSize = 16 << 10
	// idleLimit keeps a connection between the requests of a player that pauses, and
	// that of a proxy (nginx keeps its own for 60 s).
	idleLimit = 2 * time.Minute
	// streams of one HTTP/2 connection: a player has some 8 requests at a time, a
	// proxy in front carries many players on one connection.
	streams = 128
	// uploads is how much of requests' bodies may be on the way on an HTTP/2
	// connection: as little as HTTP/2 allows, since viewers send none. Go's default
	// would keep 1 MB for each connection.
	uploads = 64 << 10
	// frameSize is the largest HTTP/2 frame that is read, the least that HTTP/2
	// allows: a connection keeps a buffer of the largest frame that came.
	frameSize = 16 << 10
	// pingAfter is how long an HTTP/2 client may be silent before it is asked whether
	// it is there, and then how long it may take to answer: a phone that lost its
	// network would hold its streams for as long as TCP tries.
	pingAfter = 15 * time.Second
)

// newPublicServer returns a server for the world: HTTP/1.1 and HTTP/2, over TLS
// or without.
func newPublicServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           limitStalls(strictTransport(h), stallLimit),
		ReadHeaderTimeout: headLimit,
		IdleTimeout:       idleLimit,
		MaxHeaderBytes:    headSize,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what clients do wrong
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          streams,
			MaxReceiveBufferPerConnection: uploads,
			MaxReceiveBufferPerStream:     uploads,
			MaxReadFrameSize:              frameSize,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingAfter,
			WriteByteTimeout:              stallLimit,
		},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// strictTransport has browsers that came by HTTPS come by it ever after (HSTS, RFC
// 6797), where it has the usual port. Elsewhere it would do harm: a browser that
// was told so on host:8443 asks for TLS on each port of the host, and plain HTTP
// on :8080, or what else runs on localhost, is lost to it for half a year.
func strictTransport(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && usualPort(r.Host) {
			w.Header()["Strict-Transport-Security"] = halfAYear
		}
		next.ServeHTTP(w, r)
	})
}

// halfAYear is how long a browser remembers it, in seconds, since its last answer.
var halfAYear = []string{"max-age=15768000"}

// usualPort reports whether a host as a browser names it is without a port or with
// that of HTTPS.
func usualPort(host string) bool {
	_, port, err := net.SplitHostPort(host)
	return err != nil || port == "443"
}

// serveHTTP serves, with TLS if the server has a TLSConfig, until ctx ends.
// Then it goes on for drain, but tells clients to connect elsewhere, and at
// last gives requests under way the time of finish to end.
func serveHTTP(s *http.Server, l net.Listener, drain, finish time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		s.Handler = closeConnections(ctx, s.Handler)
		gate.Watch(s)
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
