package rtmp

import (
	"bytes"
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
	"github.com/yutopp/go-rtmp/message"

	"millrace/ingest/front"
	"millrace/internal/rate"
)

const (
	appLive = "live" // the only app that there is

	// How long an encoder that was told why it is refused has to read it and to hang up.
	lingerTimeout = time.Second

	// An answer to an encoder's ping waits this long for the one before it.
	pongTimeout = time.Second
)

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

	gate    *gate
	filter  *filter
	ctx     context.Context // ends with the connection; kept here since go-rtmp's callbacks take none
	cancel  context.CancelFunc
	silence *time.Timer // ends a connection that doesn't publish
	started time.Time

	received   atomic.Int64 // bytes
	publishing atomic.Bool
	leaving    bool // it was cut to make room; guarded by the server's mu

	// owned by the connection's goroutine
	flow         rate.Bucket // of bytes
	control      *gortmp.Conn
	app          string
	encoder      string
	pub          publication // nil unless it publishes
	unpublished  bool        // the encoder said that it was done
	lastMetadata []byte
	cause        error  // what is behind the refusal, or a fault of ours
	library      string // what go-rtmp said of the end

	mu      sync.Mutex     // guards what follows
	refusal *front.Refusal // why it is ended from this side: the first reason counts
}

func newConnection(g *gate, raw net.Conn) *connection {
	c := &connection{Conn: raw, gate: g, started: time.Now()}
	cfg, metrics := &g.server.cfg, &g.server.metrics
	c.ctx, c.cancel = context.WithCancel(g.ctx)
	c.filter = newFilter(countedConn{raw, func(n int) {
		c.received.Add(int64(n))
		metrics.received.Add(float64(n))
		c.bound(n)
	}}, cfg.Filter, func(reason string) {
		metrics.dropped.WithLabelValues(reason).Inc()
	})
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
	limit := float64(c.gate.server.cfg.MaxBitrate) / 8
	if c.flow.Add(float64(n), rate.Limit{PerSecond: limit, Size: front.BitrateSpan * limit}, time.Now()) {
		c.end(*front.TooMuch(c.gate.server.cfg.MaxBitrate))
	}
}

// slow waits while the publisher is ahead of its time: it can't send meanwhile.
func (c *connection) slow() {
	d := c.pub.Pace()
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

// OnServe comes after the handshake.
func (c *connection) OnServe(conn *gortmp.Conn) { c.control = conn }

// OnConnect takes down what the encoder says of itself. The app is checked in OnPublish, whose
// refusals encoders show.
func (c *connection) OnConnect(_ uint32, cmd *message.NetConnectionConnect) error {
	c.app = cmd.Command.App
	c.encoder = clip(cmd.Command.FlashVer, 100)
	c.filter.answerConnect()
	return nil
}

// OnPublish asks publishers whether they take the broadcast.
func (c *connection) OnPublish(_ *gortmp.StreamContext, _ uint32, cmd *message.NetStreamPublish) error {
	app, key := publishTarget(c.app, cmd.PublishingName)
	switch {
	case c.pub != nil:
		return c.refuse(&front.Refusal{Kind: front.Busy, Reason: publishedTwice, Text: "This connection publishes already."})
	case app != appLive:
		return c.refuse(&front.Refusal{
			Kind: front.Denied, Reason: unknownApp,
			// It isn't named: some encoders send the key in its place.
			Text: "The server's address must end in /" + appLive + ", and the stream key stand in its own field.",
		})
	case key == "":
		return c.refuse(&front.Refusal{Kind: front.Denied, Reason: noKey, Text: "The stream key is missing."})
	}
	pub, err := c.gate.server.cfg.Publishers.Publish(c.ctx, front.Request{
		Key:     key,
		Remote:  c.RemoteAddr().String(),
		Encoder: c.encoder,
		End:     c.end,
	})
	if err != nil {
		return c.refuse(err)
	}
	of, ok := pub.(publication)
	if !ok {
		of = &tags{Publication: pub}
	}
	c.pub, c.unpublished = of, false
	c.publishing.Store(true)
	c.silence.Stop()
	return nil
}

// publishTarget finds the app and the stream key. Servers' addresses are typed with a slash or a
// query at their end, encoders add a query to the key (OBS: ?clientConfigId=), and some put the
// key into the app's path.
func publishTarget(app, name string) (target, key string) {
	app, _, _ = strings.Cut(app, "?")
	target, inPath, _ := strings.Cut(strings.Trim(app, "/"), "/")
	key, _, _ = strings.Cut(name, "?")
	if key = strings.Trim(key, "/ "); key == "" {
		key = inPath
	}
	return target, key
}

// OnPlay refuses: viewers watch by HTTP.
func (c *connection) OnPlay(*gortmp.StreamContext, uint32, *message.NetStreamPlay) error {
	return c.refuse(&front.Refusal{Kind: front.Failed, Reason: play, Text: "Broadcasts are not served by RTMP: open the channel's page, or its HLS address."})
}

// OnSetDataFrame passes on metadata that is new. GStreamer repeats it dozens of times.
func (c *connection) OnSetDataFrame(_ uint32, data *message.NetStreamSetDataFrame) error {
	if c.pub == nil || bytes.Equal(data.Payload, c.lastMetadata) {
		return nil
	}
	values, err := readAMF(data.Payload)
	if err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	m, ok := argument(values, 1).(map[string]any)
	if !ok {
		return nil
	}
	c.lastMetadata = data.Payload // go-rtmp made it for this call
	if name, ok := m["encoder"].(string); ok {
		c.encoder = clip(name, 100)
	}
	c.pub.Metadata(m)
	return nil
}

// OnAudio passes an audio tag's body on.
func (c *connection) OnAudio(timestamp uint32, body io.Reader) error {
	if c.pub == nil {
		return nil // after FCUnpublish
	}
	payload, err := c.payload(body)
	if err == nil {
		err = c.pub.Audio(timestamp, payload)
		c.slow()
	}
	return c.refuse(err)
}

// OnVideo passes a video tag's body on.
func (c *connection) OnVideo(timestamp uint32, body io.Reader) error {
	if c.pub == nil {
		return nil // after FCUnpublish
	}
	payload, err := c.payload(body)
	if err == nil {
		err = c.pub.Video(timestamp, payload)
		c.slow()
	}
	return c.refuse(err)
}

// payload copies a message's body, whose size the filter knows: go-rtmp handles each message
// before it reads the next one.
func (c *connection) payload(body io.Reader) ([]byte, error) {
	b := make([]byte, c.filter.size)
	if _, err := io.ReadFull(body, b); err != nil {
		return nil, fmt.Errorf("take a message of %d bytes over from go-rtmp: %w", len(b), err)
	}
	return b, nil
}

// OnFCUnpublish ends the publication: "closeStream" comes here, too (see sanitizer.rewrite).
func (c *connection) OnFCUnpublish(uint32, *message.NetStreamFCUnpublish) error {
	c.unpublish(true)
	return nil
}

// OnDeleteStream ends the publication.
func (c *connection) OnDeleteStream(uint32, *message.NetStreamDeleteStream) error {
	c.unpublish(true)
	return nil
}

// OnUnknownMessage answers pings, which go-rtmp decodes but doesn't answer: "The client MUST
// respond with PingResponse" (RTMP section 7.1.7) holds for clients only, but some of them ask, too.
func (c *connection) OnUnknownMessage(_ uint32, msg message.Message) error {
	control, ok := msg.(*message.UserCtrl)
	if !ok {
		return nil
	}
	ping, ok := control.Event.(*message.UserCtrlEventPingRequest)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, pongTimeout)
	defer cancel()
	err := c.control.Write(ctx, chunksControl, 0, &gortmp.ChunkMessage{
		StreamID: controlStream,
		Message:  &message.UserCtrl{Event: &message.UserCtrlEventPingResponse{Timestamp: ping.Timestamp}},
	})
	if err != nil {
		return fmt.Errorf("answer a ping: %w", err)
	}
	return nil
}

// OnClose ends the publication, if the encoder didn't.
func (c *connection) OnClose() {
	defer func() {
		if r := recover(); r != nil { // go-rtmp wouldn't
			c.cause = fmt.Errorf("panic at the end of a publication: %v", r)
		}
	}()
	c.unpublish(false)
}

func (c *connection) unpublish(clean bool) {
	if c.pub == nil {
		return
	}
	pub := c.pub
	c.pub, c.lastMetadata, c.unpublished = nil, nil, clean
	c.publishing.Store(false)
	c.silence.Reset(c.gate.server.cfg.PublishTimeout) // it may publish anew
	pub.End(clean)
}

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
	c.gate.forget(c)
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
	s := c.gate.server
	var reason, detail string
	switch {
	case refusal != nil:
		s.metrics.refused.WithLabelValues(string(refusal.Reason)).Inc()
		reason, detail = string(refusal.Reason), refusal.Text
	case reject != nil:
		s.metrics.rejects.WithLabelValues(reject.reason).Inc()
		reason, detail = reject.reason, reject.message
	case c.gate.ctx.Err() != nil:
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
