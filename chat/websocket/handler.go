// Package websocket speaks RFC 6455 for chat's fronts: the handshake, frames, and messages found in the bytes of a
// connection of chat/room. It offers no extensions.
//
//	conn, protocol, buffered, err := websocket.Upgrade(w, r, "irc")
//	c, err := hub.Attach(conn, room.Options{Handler: websocket.NewHandler(session, 16<<10), Buffered: buffered, ...})
//	c.Send(websocket.AppendText(nil, text))
package websocket

import (
	"errors"
	"slices"
	"strings"

	"millrace/chat/room"
)

// Session is a front's part of a websocket connection: see room.Handler for when each is called and what it may do.
type Session interface {
	// Message gets a text message, valid UTF-8, or a binary one. payload is valid during the call. A room.Reason as the error
	// ends the connection.
	Message(c *room.Conn, binary bool, payload []byte) error
	// Gap makes the frames that tell of missed entries.
	Gap(r *room.Room, missed uint64, newest string) []byte
	// Goodbye makes frames to be sent before the close frame, nil for none, and the close frame's code and text for a reason
	// without a code: one of the engine's or of the front's.
	Goodbye(why room.Reason) (frames []byte, code uint16, text string)
	// Closed is the last call.
	Closed(c *room.Conn, why room.Reason)
}

// Handler makes a Session a room.Handler: it reads frames, answers pings and close frames, and refuses what RFC 6455
// doesn't allow, with the code that it asks for.
type Handler struct {
	session Session
	reader  Reader
	conn    *room.Conn // during Receive
}

// NewHandler returns the room.Handler of a session whose messages have at most max bytes.
func NewHandler(s Session, max int) *Handler { return &Handler{session: s, reader: Reader{Max: max}} }

// Receive reads frames.
func (h *Handler) Receive(c *room.Conn, p []byte) error {
	h.conn = c
	held := h.reader.Held()
	err := h.reader.Read(p, h.message, h.control)
	h.conn = nil
	if !c.Hold(h.reader.Held() - held) {
		return room.Memory
	}
	var bad *Error
	switch {
	case !errors.As(err, &bad):
		return err
	case bad.Left:
		return room.Reason{Name: room.Left.Name, Code: bad.Code}
	}
	return room.Reason{Name: room.Protocol.Name, Code: bad.Code, Text: bad.Text}
}

func (h *Handler) message(binary bool, payload []byte) error {
	return h.session.Message(h.conn, binary, payload)
}

func (h *Handler) control(ping bool, payload []byte) error {
	if ping {
		h.conn.Send(appendPong(nil, payload))
	}
	return nil
}

// Gap is the session's.
func (h *Handler) Gap(r *room.Room, missed uint64, newest string) []byte {
	return h.session.Gap(r, missed, newest)
}

// Goodbye is the session's frames and a close frame.
func (h *Handler) Goodbye(why room.Reason) []byte {
	if why.Name == room.Left.Name || why.Code != 0 && why.Name == room.Protocol.Name {
		return AppendClose(nil, why.Code, why.Text)
	}
	frames, code, text := h.session.Goodbye(why)
	if why.Code != 0 {
		code, text = why.Code, why.Text
	}
	return AppendClose(slices.Clip(frames), code, text)
}

// Closed gives back what the reader holds.
func (h *Handler) Closed(c *room.Conn, why room.Reason) {
	c.Hold(-h.reader.Held())
	h.session.Closed(c, why)
}

// hasToken reports whether a header's comma separated values have a token, in whatever case.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for one := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(one), token) {
				return true
			}
		}
	}
	return false
}
