package rtmp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	gortmp "github.com/yutopp/go-rtmp"
	"github.com/yutopp/go-rtmp/message"

	"millrace/ingest/front"
	"millrace/internal/gate"
)

// What go-rtmp calls, from the connection's goroutine.

const (
	appLive = "live" // the only app that there is

	// An answer waits this long for the one before it to be written.
	answerTimeout = time.Second
)

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
	case c.demux != nil:
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
	pub, err := c.entrance.server.cfg.Publishers.Publish(c.ctx, front.Request{
		Key:     key,
		Remote:  c.RemoteAddr().String(),
		Encoder: c.encoder,
		End:     c.end,
	})
	if err != nil {
		return c.refuse(err)
	}
	c.demux, c.unpublished = &demuxer{pub: pub, dropped: c.entrance.server.drop}, false
	gate.Of(c.Conn).Busy()
	c.silence.Stop()
	return nil
}

// OnPlay refuses: viewers watch by HTTP.
func (c *connection) OnPlay(*gortmp.StreamContext, uint32, *message.NetStreamPlay) error {
	return c.refuse(&front.Refusal{Kind: front.Failed, Reason: play, Text: "Broadcasts are not served by RTMP: open the channel's page, or its HLS address."})
}

// OnSetDataFrame passes on metadata that is new. GStreamer repeats it dozens of times.
func (c *connection) OnSetDataFrame(_ uint32, data *message.NetStreamSetDataFrame) error {
	if c.demux == nil || bytes.Equal(data.Payload, c.lastMetadata) {
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
	c.demux.metadata(m)
	return nil
}

// OnAudio passes an audio tag's body on.
func (c *connection) OnAudio(timestamp uint32, body io.Reader) error {
	if c.demux == nil {
		return nil // after FCUnpublish
	}
	payload, err := c.payload(body)
	if err == nil {
		err = c.demux.audio(timestamp, payload)
		c.slow()
	}
	return c.refuse(err)
}

// OnVideo passes a video tag's body on.
func (c *connection) OnVideo(timestamp uint32, body io.Reader) error {
	if c.demux == nil {
		return nil // after FCUnpublish
	}
	payload, err := c.payload(body)
	if err == nil {
		err = c.demux.video(timestamp, payload)
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
	ctx, cancel := context.WithTimeout(c.ctx, answerTimeout)
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
	if c.demux == nil {
		return
	}
	pub := c.demux.pub
	_ = c.demux.end() // whatever it says, the publisher is gone
	c.demux, c.lastMetadata, c.unpublished = nil, nil, clean
	gate.Of(c.Conn).Idle()
	c.silence.Reset(c.entrance.server.cfg.PublishTimeout) // it may publish anew
	pub.End(clean)
}
