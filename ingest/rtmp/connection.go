package rtmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gortmp "github.com/yutopp/go-rtmp"

	"millrace/ingest/front"
	"millrace/internal/rate"
)

// How long an encoder that was told why it is refused has to read it and to hang up.
const lingerTimeout = time.Second

// Why this front refuses by itself.
const (
	publishTimeout front.Reason = "publish_timeout"
	publishedTwice front.Reason = "published_twice"
	unknownApp     front.Reason = "unknown_app"
	noKey          front.Reason = "no_key"
	play           front.Reason = "play"
	internalError  front.Reason = "internal_error"
)

// status is the code of NetStream's onStatus by which encoders know a refusal.
func status(r *front.Refusal) string {
	switch {
	case r.Reason == play:
		return "NetStream.Play.Failed"
	case r.Kind == front.Denied:
		return "NetStream.Publish.Denied"
	case r.Kind == front.Busy:
		return "NetStream.Publish.BadName"
	}
	return "NetStream.Publish.Failed"
}

// connection is one encoder's connection. It is the net.Conn that go-rtmp accepts, the stream that
// it reads and writes (through the filter), and the handler that it calls.
//
// go-rtmp calls the handler, at the end OnClose, and then Close from one goroutine: the
// connection's.
type connection struct {
	net.Conn              // the raw connection
	gortmp.DefaultHandler // for what needs no answer

	entrance *entrance
	filter   *filter
	ctx      context.Context // ends with the connection; kept here since go-rtmp's callbacks take none
	cancel   context.CancelFunc
	silence  *time.Timer // ends a connection that doesn't publish
	started  time.Time

	received atomic.Int64 // bytes

	// owned by the connection's goroutine
	flow         rate.Bucket // of bytes
	control      *gortmp.Conn
	app          string
	encoder      string
	demux        *demuxer // nil unless it publishes
	unpublished  bool     // the encoder said that it was done
	lastMetadata []byte
	cause        error  // what is behind the refusal, or a fault of ours
	library      string // what go-rtmp said of the end

	mu      sync.Mutex     // guards what follows
	refusal *front.Refusal // why it is ended from this side: the first reason counts
}

func newConnection(e *entrance, raw net.Conn) *connection {
	c := &connection{Conn: raw, entrance: e, started: time.Now()}
	cfg, metrics := &e.server.cfg, &e.server.metrics
	c.ctx, c.cancel = context.WithCancel(e.ctx)
	c.filter = newFilter(countedConn{raw, func(n int) {
		c.received.Add(int64(n))
		metrics.received.Add(float64(n))
		c.bound(n)
	}}, cfg.Filter, e.server.drop)
	c.silence = time.AfterFunc(cfg.PublishTimeout, func() {
		c.end(front.Refusal{
			Kind: front.Failed, Reason: publishTimeout,
			Text: fmt.Sprintf("Nothing was published for %v.", cfg.PublishTimeout),
		})
	})
	return c
}

// bound ends a connection that sends more than any broadcast needs.
func (c *connection) bound(n int) {
	limit := float64(c.entrance.server.cfg.MaxBitrate) / 8
	if c.flow.Add(float64(n), rate.Limit{PerSecond: limit, Size: front.BitrateSpan * limit}, time.Now()) {
		c.end(*front.TooMuch(c.entrance.server.cfg.MaxBitrate))
	}
}

// slow waits while the publisher is ahead of its time: it can't send meanwhile.
func (c *connection) slow() {
	d := c.demux.pub.Pace()
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ctx.Done():
	}
}

// countedConn tells count of each read.
type countedConn struct {
	net.Conn
	count func(n int)
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.count(n)
	return n, err
}

func (c *connection) Read(p []byte) (int, error)  { return c.filter.Read(p) }
func (c *connection) Write(p []byte) (int, error) { return c.filter.Write(p) }

// refuse ends the connection because of err, which it returns: nil does nothing.
func (c *connection) refuse(err error) error {
	if err == nil {
		return nil
	}
	var r *front.Refusal
	if !errors.As(err, &r) {
		c.cause = err
		r = &front.Refusal{Kind: front.Failed, Reason: internalError, Text: "The server can't take the broadcast just now. Try again in a minute."}
	}
	c.end(*r)
	return err
}

// end has the connection's goroutine tell the encoder why and close the connection. It is safe
// from any goroutine, and doesn't wait.
func (c *connection) end(r front.Refusal) {
	c.mu.Lock()
	if c.refusal == nil {
		c.refusal = &r
	}
	c.mu.Unlock()
	c.filter.stop()
	c.cancel()
}

// cut ends the connection at once and without a word. It doesn't wait.
func (c *connection) cut() {
	c.filter.stop()
	raw := c.Conn
	if t, ok := raw.(interface{ NetConn() net.Conn }); ok {
		raw = t.NetConn() // TLS would say goodbye first, which can take long
	}
	_ = raw.Close() // it is closed already, or is now
}

// Close is go-rtmp's last call.
func (c *connection) Close() error {
	c.silence.Stop()
	c.filter.stop()
	c.mu.Lock()
	refusal := c.refusal
	c.mu.Unlock()

	var reject *filterError
	errors.As(c.filter.failure, &reject)
	switch {
	case refusal != nil:
		c.sayWhy(refusal)
	case reject != nil:
		c.sayWhy(&front.Refusal{Text: "The connection was ended: " + reject.message + "."})
	}
	_ = c.Conn.Close() // all that mattered was said
	c.cancel()
	c.report(refusal, reject)
	c.entrance.forget(c)
	return nil
}

// sayWhy tells the encoder why its connection ends, and gives it a moment to read that: closing
// a connection with unread input would reset it, and the encoder would see only the reset.
func (c *connection) sayWhy(r *front.Refusal) {
	said, err := c.filter.say(mediaStream, "onStatus", 0.0, nil,
		amfProperties{{"level", "error"}, {"code", status(r)}, {"description", r.Text}})
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !said || err != nil || !ok || half.CloseWrite() != nil {
		return
	}
	if c.Conn.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
		_, _ = io.Copy(io.Discard, c.Conn) // until the encoder hangs up, or the deadline
	}
}

// report counts and logs the connection's end: for debugging only if it never shook hands, as port
// scanners and load balancers do.
func (c *connection) report(refusal *front.Refusal, reject *filterError) {
	s := c.entrance.server
	var reason, detail string
	switch {
	case refusal != nil:
		s.metrics.refused.WithLabelValues(string(refusal.Reason)).Inc()
		reason, detail = string(refusal.Reason), refusal.Text
	case reject != nil:
		s.metrics.rejects.WithLabelValues(reject.reason).Inc()
		reason, detail = reject.reason, reject.message
	case c.entrance.ctx.Err() != nil:
		reason = "shutting_down"
	case c.unpublished:
		reason = "unpublished"
	case c.filter.failure == io.EOF:
		reason = "hung_up"
	case c.filter.failure != nil:
		reason, detail = "broken_off", c.filter.failure.Error()
	default:
		reason, detail = "protocol_error", c.library
	}
	args := []any{
		"remote", c.RemoteAddr().String(), "encoder", c.encoder, "reason", reason, "detail", detail,
		"received", c.received.Load(), "duration", time.Since(c.started).Round(time.Millisecond),
	}
	if len(c.filter.sanitizer.fourCCs) > 0 {
		args = append(args, "codecs", c.filter.sanitizer.fourCCs)
	}
	if c.cause != nil {
		args = append(args, "err", clip(c.cause.Error(), 500))
	}
	level := slog.LevelInfo
	if !c.filter.ready.Load() {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, "RTMP connection ended", args...)
}

// clip shortens s to n bytes, for a log line or an encoder's display.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
