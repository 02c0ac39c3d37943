package irc

import (
	"millrace/chat/room"
	"millrace/chat/websocket"
)

// Socket is a client whose lines come in websocket messages, one or several in each.
type Socket struct{ Client }

// WrapSocket makes a websocket message of lines.
func WrapSocket(lines string) []byte { return websocket.AppendText(nil, []byte(lines)) }

// WrapTCP sends lines as they are.
func WrapTCP(lines string) []byte { return []byte(lines) }

// Message takes the lines of a message.
func (s *Socket) Message(conn *room.Conn, _ bool, payload []byte) error {
	if n := len(payload); n > 0 && payload[n-1] != '\n' {
		payload = append(payload, '\n')
	}
	return s.Receive(conn, payload)
}

// Goodbye asks the client to come back, and closes.
func (s *Socket) Goodbye(why room.Reason) (frames []byte, code uint16, text string) {
	frames = s.Client.Goodbye(why)
	switch why.Name {
	case room.Drained.Name:
		return frames, websocket.CodeRestart, "come back"
	case "login", "flood", "line":
		return frames, websocket.CodePolicy, why.Text
	}
	return frames, websocket.CodeGoingAway, why.Text
}
