package harness

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"time"
)

// Encoder speaks RTMP byte by byte, as fast or as slowly as a test wants. Its
// methods but Said are for one goroutine.
type Encoder struct {
	Conn net.Conn
	W    *bufio.Writer
	// Absolute has every chunk carry its whole timestamp, extended where it must
	// be; without it messages after the first carry the distance.
	Absolute bool
	last     map[byte]uint32 // the timestamps on the chunk streams

	mu    sync.Mutex
	heard bytes.Buffer  // what the server said
	Gone  chan struct{} // closed when it has hung up
}

// The largest chunk that an encoder writes, in bytes.
const encoderChunk = 65536

// AVCRecord configures H.264 High of 640x360.
var AVCRecord = []byte{
	1, 0x64, 0, 0x1e, 0xff, 0xe1, 0, 26,
	0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0, 0, 3, 0, 1, 0, 0, 3, 0, 60, 0x0f, 0x16, 0x2d, 0x96,
	1, 0, 6, 0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0,
}

// DialEncoder connects and shakes hands.
func DialEncoder(address string) (*Encoder, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return ShakeHands(conn)
}

// ShakeHands makes an encoder of a connection, which it closes if that fails.
func ShakeHands(conn net.Conn) (_ *Encoder, err error) {
	e := &Encoder{Conn: conn, W: bufio.NewWriterSize(conn, 64<<10), last: make(map[byte]uint32), Gone: make(chan struct{})}
	hello := make([]byte, 1+1536+1536)
	hello[0] = 3
	if err = conn.SetDeadline(time.Now().Add(20 * time.Second)); err == nil {
		_, err = conn.Write(hello)
	}
	if err == nil {
		_, err = io.CopyN(io.Discard, conn, int64(len(hello)))
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("shake hands: %w", err)
	}
	go e.listen()
	return e, nil
}

// listen keeps the first of what the server says, and reads on to its end.
func (e *Encoder) listen() {
	defer close(e.Gone)
	buf := make([]byte, 4096)
	for {
		n, err := e.Conn.Read(buf)
		e.mu.Lock()
		if e.heard.Len() < 64<<10 {
			e.heard.Write(buf[:n])
		}
		e.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// chunkHeaders are those inside a message, on the chunk streams that the server
// uses: they stand in the middle of its words.
var chunkHeaders = strings.NewReplacer("\xc2", "", "\xc3", "", "\xc5", "")

// Said is what the server has said so far, all but the words in binary.
func (e *Encoder) Said() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return chunkHeaders.Replace(e.heard.String())
}

// Close hangs up, and waits until the server's words are read.
func (e *Encoder) Close() {
	_ = e.Conn.Close() // it is closed already, or is now
	<-e.Gone
}

// Await waits until the server has said something.
func (e *Encoder) Await(text string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; {
		if strings.Contains(e.Said(), text) {
			return nil
		}
		select {
		case <-e.Gone:
			if strings.Contains(e.Said(), text) {
				return nil
			}
			return fmt.Errorf("the server hung up without %q: %q", text, e.Said())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("the server didn't say %q, but %q", text, e.Said())
		}
	}
}

// Publish begins to publish with a key.
func (e *Encoder) Publish(key string) error {
	size := binary.BigEndian.AppendUint32(nil, encoderChunk)
	if err := errors.Join(
		e.Message(2, 1, 0, 0, size),
		e.Message(3, 20, 0, 0, amf("connect", 1.0, map[string]string{"app": "live"})),
		e.Message(3, 20, 0, 0, amf("createStream", 2.0, nil)),
		e.Message(3, 20, 1, 0, amf("publish", 3.0, nil, key, "live")),
		e.W.Flush(),
	); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return e.Await("NetStream.Publish", 20*time.Second)
}

// Video sends the body of a video tag. It is sent with the next flush, or when the buffer is full.
func (e *Encoder) Video(timestamp uint32, body []byte) error {
	return e.Message(6, 9, 1, timestamp, body)
}

// Audio sends the body of an audio tag, as Video does.
func (e *Encoder) Audio(timestamp uint32, body []byte) error {
	return e.Message(4, 8, 1, timestamp, body)
}

// Flush sends what was written.
func (e *Encoder) Flush() error { return e.W.Flush() }

// End says goodbye as encoders do, and hangs up.
func (e *Encoder) End() error {
	err := errors.Join(e.Message(3, 20, 0, 0, amf("FCUnpublish", 4.0, nil, "")),
		e.Message(3, 20, 0, 0, amf("deleteStream", 5.0, nil, 1.0)), e.W.Flush())
	if half, ok := e.Conn.(*net.TCPConn); ok && err == nil {
		err = half.CloseWrite()
	}
	select {
	case <-e.Gone:
	case <-time.After(5 * time.Second):
	}
	e.Close()
	return err
}

// Message writes a message in chunks (RTMP section 5.3).
func (e *Encoder) Message(chunks, kind byte, stream, timestamp uint32, body []byte) error {
	limit := encoderChunk
	if kind == 1 || kind == 20 { // before the server has read what the size is
		limit = max(128, len(body))
	}
	before, known := e.last[chunks]
	e.last[chunks] = timestamp
	var head []byte
	// Where the timestamp wraps, the whole one is sent, as ffmpeg does.
	whole := e.Absolute || !known || timestamp < before
	t := timestamp
	if whole {
		head = append(head, chunks)
	} else {
		t -= before
		head = append(head, 1<<6|chunks)
	}
	field := min(t, 0xffffff)
	head = append(head, byte(field>>16), byte(field>>8), byte(field), byte(len(body)>>16), byte(len(body)>>8), byte(len(body)), kind)
	if whole {
		head = binary.LittleEndian.AppendUint32(head, stream)
	}
	if field == 0xffffff {
		head = binary.BigEndian.AppendUint32(head, t)
	}
	for first := true; first || len(body) > 0; first = false {
		if !first {
			head = append(head[:0], 3<<6|chunks)
			if field == 0xffffff {
				head = binary.BigEndian.AppendUint32(head, t)
			}
		}
		n := min(limit, len(body))
		if _, err := e.W.Write(head); err != nil {
			return err
		}
		if _, err := e.W.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

// amf writes AMF0 values: nil, numbers, strings, objects of strings.
func amf(values ...any) (b []byte) {
	text := func(s string) {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	for _, v := range values {
		switch v := v.(type) {
		case float64:
			b = binary.BigEndian.AppendUint64(append(b, 0), math.Float64bits(v))
		case string:
			b = append(b, 2)
			text(v)
		case map[string]string:
			b = append(b, 3)
			for name, value := range v {
				text(name)
				b = append(b, 2)
				text(value)
			}
			b = append(b, 0, 0, 9)
		default:
			b = append(b, 5)
		}
	}
	return b
}
