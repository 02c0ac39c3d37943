package websocket

import (
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Close codes of RFC 6455 section 7.4.1, as far as they are used here.
const (
	CodeNormal      = 1000
	CodeGoingAway   = 1001
	CodeProtocol    = 1002
	CodeUnsupported = 1003
	CodeInvalid     = 1007
	CodePolicy      = 1008
	CodeTooLarge    = 1009
	CodeInternal    = 1011
	CodeRestart     = 1012
	CodeTryLater    = 1013
)

// maxControl is the largest payload of a control frame (RFC 6455 section 5.5).
const maxControl = 125

// AppendText appends payload as one text frame to dst. It must be UTF-8.
func AppendText(dst, payload []byte) []byte { return appendFrame(dst, ws.OpText, payload) }

// AppendPing appends a ping. Its payload is at most 125 bytes.
func AppendPing(dst, payload []byte) []byte { return appendFrame(dst, ws.OpPing, payload) }

// AppendClose appends a close frame with a code and a text, which is cut at 123 bytes. Code 0 means none.
func AppendClose(dst []byte, code uint16, text string) []byte {
	if code == 0 {
		return appendFrame(dst, ws.OpClose, nil)
	}
	for len(text) > maxControl-2 {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return appendFrame(dst, ws.OpClose, ws.NewCloseFrameBody(ws.StatusCode(code), text))
}

func appendPong(dst, payload []byte) []byte { return appendFrame(dst, ws.OpPong, payload) }

// appendFrame appends a whole frame as a server sends it: final and not masked.
func appendFrame(dst []byte, op ws.OpCode, payload []byte) []byte {
	dst = append(dst, 0x80|byte(op))
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, byte(n))
	case n <= 0xffff:
		dst = append(dst, 126, byte(n>>8), byte(n))
	default:
		dst = append(dst, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, payload...)
}
