package websocket

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Error is why a connection is failed, or that the other end closes it: a close code and what to say with it.
type Error struct {
	// Code is 0 in an answer to a close frame without a code.
	Code uint16
	Text string
	// Left is true if it was the other end that closed.
	Left bool
}

func (e *Error) Error() string { return e.Text }

func fail(code uint16, text string) error { return &Error{Code: code, Text: text} }

// Reader finds the messages in the bytes of a client, as they come. It takes memory for a message only if that comes in
// more than one piece, and then for what has come of it. The zero value with Max set is ready.
type Reader struct {
	// Max is the size of the largest message.
	Max int

	state   ws.State // ws.StateFragmented between the frames of a message
	binary  bool     // the message's kind
	head    [ws.MaxHeaderSize]byte
	headLen int8
	inFrame bool // the header is read, the payload not to its end
	header  ws.Header
	got     int    // of the frame's payload
	message []byte // of the message, as far as it is here; nil if none is begun
	valid   int    // so much of message is valid UTF-8
	control []byte // payload of a control frame that comes in pieces
}

// Held is how many bytes it holds of a message that isn't whole.
func (r *Reader) Held() int { return cap(r.message) + cap(r.control) }

// Read calls message with each text or binary message and control with each ping or pong that is whole with p. Payloads
// are valid during the call only; p is changed. A close frame, and what breaks RFC 6455, is an *Error.
func (r *Reader) Read(p []byte, message func(binary bool, payload []byte) error, control func(ping bool, payload []byte) error) error {
	for len(p) > 0 || r.inFrame && r.header.Length == 0 {
		if !r.inFrame {
			n, err := r.readHeader(p)
			if err != nil {
				return err
			}
			p = p[n:]
			if !r.inFrame {
				return nil // the rest of the header comes later
			}
		}
		piece := p[:min(int64(len(p)), r.header.Length-int64(r.got))]
		p = p[len(piece):]
		ws.Cipher(piece, r.header.Mask, r.got)
		r.got += len(piece)
		whole := int64(r.got) == r.header.Length
		r.inFrame = !whole
		var err error
		if r.header.OpCode.IsControl() {
			err = r.readControl(piece, whole, control)
		} else {
			err = r.readData(piece, whole, message)
		}
		if err != nil {
			return err
		}
		if !whole {
			return nil
		}
	}
	return nil
}

// readHeader takes bytes of a frame's header, and checks it when it is whole.
func (r *Reader) readHeader(p []byte) (n int, err error) {
	for n < len(p) && !r.inFrame {
		need := headerSize(r.head[:r.headLen])
		m := copy(r.head[r.headLen:need], p[n:])
		n += m
		r.headLen += int8(m)
		if need = headerSize(r.head[:r.headLen]); int(r.headLen) < need {
			continue
		}
		r.header = parseHeader(r.head[:need])
		if r.header.Length < 0 { // the most significant bit MUST be 0
			return n, fail(CodeProtocol, "a frame's length is negative")
		}
		r.headLen, r.got, r.inFrame = 0, 0, true
		return n, r.check()
	}
	return n, nil
}

// headerSize is how long a header is that begins like this, as far as that can be seen.
func headerSize(head []byte) int {
	if len(head) < 2 {
		return 2
	}
	n := 2
	switch head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// parseHeader reads a whole header (RFC 6455 section 5.2).
func parseHeader(p []byte) ws.Header {
	h := ws.Header{Fin: p[0]&0x80 != 0, Rsv: p[0] & 0x70 >> 4, OpCode: ws.OpCode(p[0] & 0x0f), Masked: p[1]&0x80 != 0, Length: int64(p[1] & 0x7f)}
	switch h.Length {
	case 126:
		h.Length = int64(binary.BigEndian.Uint16(p[2:]))
	case 127:
		h.Length = int64(binary.BigEndian.Uint64(p[2:]))
	}
	if h.Masked {
		h.Mask = [4]byte(p[len(p)-4:])
	}
	return h
}

// check refuses a frame before its payload is taken.
func (r *Reader) check() error {
	h := r.header
	if err := ws.CheckHeader(h, ws.StateServerSide|r.state); err != nil {
		return fail(CodeProtocol, err.Error())
	}
	if h.OpCode.IsControl() {
		return nil
	}
	if h.Length > int64(r.Max-len(r.message)) {
		return fail(CodeTooLarge, "the message is too large")
	}
	if h.OpCode != ws.OpContinuation {
		r.binary, r.valid = h.OpCode == ws.OpBinary, 0
	}
	r.state = r.state.Clear(ws.StateFragmented)
	if !h.Fin {
		r.state = r.state.Set(ws.StateFragmented)
	}
	return nil
}

// readData takes a piece of a message, and hands the message on when it is whole.
func (r *Reader) readData(piece []byte, whole bool, message func(bool, []byte) error) error {
	final := whole && r.header.Fin
	payload := piece
	if r.message != nil || !final {
		r.message = append(r.message, piece...)
		payload = r.message
	}
	if !r.binary {
		if !r.checkText(payload, final) {
			return fail(CodeInvalid, "text that isn't UTF-8")
		}
	}
	if !final {
		return nil
	}
	r.message = nil
	return message(r.binary, payload)
}

// checkText checks what it hasn't yet of a message's text; a character may still be coming if it isn't whole.
func (r *Reader) checkText(text []byte, whole bool) bool {
	for r.valid < len(text) {
		c, size := utf8.DecodeRune(text[r.valid:])
		if c == utf8.RuneError && size == 1 {
			return !whole && !utf8.FullRune(text[r.valid:]) // more of it may come
		}
		r.valid += size
	}
	return true
}

// readControl takes a piece of a control frame, and answers when it is whole.
func (r *Reader) readControl(piece []byte, whole bool, control func(bool, []byte) error) error {
	payload := piece
	if r.control != nil || !whole {
		r.control = append(r.control, piece...)
		payload = r.control
	}
	if !whole {
		return nil
	}
	r.control = nil
	if r.header.OpCode == ws.OpClose {
		return closing(payload)
	}
	return control(r.header.OpCode == ws.OpPing, payload)
}

// closing is the answer to a close frame.
func closing(payload []byte) error {
	if len(payload) == 0 {
		return &Error{Left: true, Text: "closed"}
	}
	if len(payload) == 1 {
		return fail(CodeProtocol, "a close frame's code is cut off")
	}
	code := binary.BigEndian.Uint16(payload)
	if !valid(code) {
		return fail(CodeProtocol, "a close code that must not be sent")
	}
	if !utf8.Valid(payload[2:]) {
		return fail(CodeInvalid, "a close frame's text isn't UTF-8")
	}
	return &Error{Code: code, Left: true, Text: "closed"}
}

// valid reports whether a close frame may carry the code: those of RFC 6455 section 7.4 and of the IANA's list
// (1012 to 1014), those of libraries (3000 on) and of applications (4000 on).
func valid(code uint16) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}
