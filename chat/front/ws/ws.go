// Package ws is the front of chat that pages use: JSON over websocket, at /chat/ws. docs/chat.md describes it.
package ws

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"millrace/chat/event"
	"millrace/chat/room"
	"millrace/chat/talk"
	"millrace/chat/websocket"
	"millrace/internal/rate"
	"millrace/internal/session"
)

const (
	// MaxMessage is the largest message of a client, in bytes.
	MaxMessage = 8 << 10
	// answerIn bounds how long one message of a client may take.
	answerIn = 10 * time.Second
	// maxRooms is how many rooms a connection may be in, and maxHistory how many events it may ask for.
	maxRooms, maxHistory = 20, 200
)

// messageLimit bounds the messages of a connection.
var messageLimit = rate.Limit{PerSecond: 10, Size: 100}

// Close codes of our own (RFC 6455, 7.4.2): clients come back after those below 4100, and not after the others.
const (
	CodeSlow    = 4000
	CodeSilent  = 4001
	CodeFlooded = 4100
)

// Name is that of the format.
const Name = "ws"

// NewFormat returns the format, and how events are encoded in it.
func NewFormat() (*room.Format, talk.Encode) { return &room.Format{Name: Name}, Encode }

// Event is how an event goes to a page.
type Event struct {
	Type string `json:"type"` // "event"
	Room string `json:"room"`
	*event.Event
	// Time is when it happened, in milliseconds since 1970.
	Time int64 `json:"time"`
}

// Encode makes the frame that tells of an event.
func Encode(name string, e *event.Event) []byte {
	return frame(Event{"event", name, e, e.ID.Time().UnixMilli()})
}

// frame makes a frame of a message to a client.
func frame(m any) []byte {
	doc, err := json.Marshal(m)
	if err != nil {
		panic(err) // these types always can
	}
	return websocket.AppendText(make([]byte, 0, len(doc)+4), doc)
}

// request is a message of a client. Type says which of the others it has.
type request struct {
	Type    string   `json:"type"`
	Token   string   `json:"token"`
	Room    string   `json:"room"`
	After   event.ID `json:"after"`
	History int      `json:"history"`
	Nonce   string   `json:"nonce"`
	Text    string   `json:"text"`
	Reply   event.ID `json:"reply"`
	talk.Action
}

// answer is a message to one client.
type answer struct {
	Type  string      `json:"type"`
	Room  string      `json:"room,omitempty"`
	Nonce string      `json:"nonce,omitempty"`
	ID    event.ID    `json:"id,omitempty"`
	You   *event.User `json:"you,omitempty"`
	// Settings are the room's, Role what the client's user is in it, Chatters how many connections are in it.
	Settings *event.Settings `json:"settings,omitempty"`
	Role     string          `json:"role,omitempty"`
	Chatters int             `json:"chatters,omitempty"`
	// Gap is set where something was missed that isn't kept any more.
	Gap  bool   `json:"gap,omitempty"`
	Code string `json:"code,omitempty"`
	Text string `json:"text,omitempty"`
	// Until is when to try it again, in milliseconds since 1970.
	Until int64 `json:"until,omitempty"`
}

// Session is one connection of a page.
type Session struct {
	Talk *talk.Talk
	// Who is asking; a message of type "auth" changes it.
	Who session.Identity

	messages rate.Bucket
}

// Message takes one message.
func (s *Session) Message(c *room.Conn, binary bool, payload []byte) error {
	if binary {
		return room.Reason{Name: "binary", Code: websocket.CodeUnsupported, Text: "messages are text"}
	}
	if !s.messages.Take(1, messageLimit, time.Now()) {
		return room.Reason{Name: "flood", Code: CodeFlooded, Text: "too many messages"}
	}
	var m request
	if err := json.Unmarshal(payload, &m); err != nil {
		return room.Reason{Name: "json", Code: websocket.CodeInvalid, Text: "a message isn't JSON, or a field of it has another type"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerIn)
	defer cancel()
	if err := s.do(ctx, c, &m); err != nil {
		r := talk.Refused(err)
		a := answer{Type: "refused", Room: m.Room, Nonce: m.Nonce, Code: string(r.Code), Text: r.Text}
		if !r.Until.IsZero() {
			a.Until = r.Until.UnixMilli()
		}
		c.Send(frame(a))
	}
	return nil
}

func (s *Session) do(ctx context.Context, c *room.Conn, m *request) error {
	switch m.Type {
	case "ping":
		c.Send(frame(answer{Type: "pong", Nonce: m.Nonce}))
		return nil
	case "auth":
		return s.auth(ctx, c, session.ParseToken(m.Token))
	case "join":
		return s.join(ctx, c, m)
	case "leave":
		s.Talk.Leave(c, m.Room)
		c.Send(frame(answer{Type: "left", Room: m.Room}))
		return nil
	case "send":
		e, err := s.Talk.Say(ctx, s.Who, talk.Said{Room: m.Room, Nonce: m.Nonce, Text: m.Text, Reply: m.Reply, Origin: c.ID()})
		if err == nil {
			c.Send(frame(answer{Type: "sent", Room: m.Room, Nonce: m.Nonce, ID: e.ID}))
		}
		return err
	case "act":
		err := s.Talk.Act(ctx, s.Who, m.Room, m.Action)
		if err == nil {
			c.Send(frame(answer{Type: "done", Room: m.Room, Nonce: m.Nonce}))
		}
		return err
	}
	return &talk.Refusal{Code: "type", Text: "this type of message isn't known: auth, join, leave, send, act and ping are"}
}

func (s *Session) auth(ctx context.Context, c *room.Conn, token session.Token) error {
	who, err := s.Talk.Identify(ctx, token)
	if errors.Is(err, session.ErrUnknownToken) {
		return &talk.Refusal{Code: "token", Text: "nobody has this token"}
	}
	if err != nil {
		return err
	}
	s.Who = who
	c.Send(frame(answer{Type: "welcome", You: &event.User{ID: who.ID, Login: who.Login, Name: who.Name}}))
	return nil
}

func (s *Session) join(ctx context.Context, c *room.Conn, m *request) error {
	if len(c.Rooms()) >= maxRooms {
		return &talk.Refusal{Code: "rooms", Text: "this connection is in too many rooms"}
	}
	r, err := s.Talk.Open(ctx, m.Room)
	if err != nil {
		return err
	}
	settings := r.Settings()
	c.Send(frame(answer{Type: "joined", Room: r.Name, Settings: &settings, Role: string(r.Role(s.Who)), Chatters: r.Size()}))
	_, gap, err := s.Talk.Enter(ctx, c, m.Room, m.After, max(0, min(m.History, maxHistory)))
	if errors.Is(err, room.ErrJoined) {
		return nil
	}
	if gap {
		c.Send(frame(answer{Type: "gap", Room: r.Name}))
	}
	return err
}

// Gap tells that events were left out, since this client is slow.
func (s *Session) Gap(r *room.Room, _ uint64, _ string) []byte {
	return frame(answer{Type: "gap", Room: r.Name()})
}

// Goodbye closes with a code that says whether to come back.
func (s *Session) Goodbye(why room.Reason) (frames []byte, code uint16, text string) {
	switch why.Name {
	case room.Drained.Name:
		return nil, websocket.CodeRestart, "this process stops: come back"
	case room.Slow.Name:
		return nil, CodeSlow, "you are too far behind: come back"
	case room.Silent.Name:
		return nil, CodeSilent, "nothing was heard of you: come back"
	case room.Flooded.Name, room.Memory.Name:
		return nil, websocket.CodeTryLater, "too much waits: come back later"
	}
	return nil, websocket.CodeGoingAway, why.Text
}

// Closed does nothing: the connection has left its rooms.
func (s *Session) Closed(*room.Conn, room.Reason) {}
