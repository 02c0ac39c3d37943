package rtmp

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// rawEncoder speaks RTMP byte by byte.
type rawEncoder struct {
	net.Conn
	t  *testing.T
	in *assembler
}

// dialRaw connects and shakes hands.
func dialRaw(t *testing.T, address string) *rawEncoder {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newRawEncoder(t, conn)
}

func newRawEncoder(t *testing.T, conn net.Conn) *rawEncoder {
	t.Helper()
	e := &rawEncoder{Conn: conn, t: t}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	// Over a net.Pipe, each side must read what the other one writes.
	e.send(handshakeBytes[:1])
	e.skip(1 + 1536)
	e.send(handshakeBytes[1:1537])
	e.skip(1536)
	e.send(handshakeBytes[1537:])
	cfg := FilterConfig{}.withDefaults()
	e.in = newAssembler(bufio.NewReader(conn), cfg, func(byte) int { return cfg.MaxOther })
	return e
}

func (e *rawEncoder) skip(n int64) {
	e.t.Helper()
	if _, err := io.CopyN(io.Discard, e.Conn, n); err != nil {
		e.t.Fatal(err)
	}
}

func (e *rawEncoder) send(b ...[]byte) {
	e.t.Helper()
	if _, err := e.Write(slices.Concat(b...)); err != nil {
		e.t.Fatal(err)
	}
}

// expect reads messages up to one of this kind that contains text.
func (e *rawEncoder) expect(kind byte, text string) {
	e.t.Helper()
	var seen []string
	for {
		m, err := e.in.next()
		if err != nil {
			e.t.Fatalf("the server ended with %v after %q; %q didn't come", err, seen, text)
		}
		if m.kind == kind && bytes.Contains(m.payload, []byte(text)) {
			return
		}
		seen = append(seen, string(m.payload))
	}
}

// publish goes all the way to the server's consent.
func (e *rawEncoder) publish() {
	e.t.Helper()
	e.askToPublish()
	e.expect(typeCommandAMF0, "NetStream.Publish.Start")
}

// askToPublish is publish but for the answer.
func (e *rawEncoder) askToPublish() {
	e.t.Helper()
	e.send(command("connect", 1.0, amfProperties{{"app", "live"}}))
	e.expect(typeCommandAMF0, "NetConnection.Connect.Success")
	e.send(command("createStream", 2.0, nil))
	e.expect(typeCommandAMF0, "_result")
	e.send(command("publish", 3.0, nil, "s3cret", "live"))
}

// gone waits until the server has hung up.
func (e *rawEncoder) gone() {
	e.t.Helper()
	if _, err := io.Copy(io.Discard, e.Conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		e.t.Fatalf("the server didn't hang up: %v", err)
	}
}

// The inputs that end a process which gives them to go-rtmp end just their connection here.
func TestRTMPKills(t *testing.T) {
	f := serveRTMP(t, &stage{}, Config{}, nil)
	for _, payload := range [][]byte{hugeArray, deepNest, hiddenArray, objectForName} {
		e := dialRaw(t, f.address)
		e.send(commandOf(payload))
		if err := e.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		e.gone()
	}
	e := dialRaw(t, f.address)
	e.send(chunk(0, 3, 0, 16<<20-1, typeCommandAMF0, string(appendAMF(nil, "connect"))))
	e.expect(typeCommandAMF0, "16777215 bytes was announced")
	e.gone()

	e = dialRaw(t, f.address)
	e.publish()
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if n := f.metric(t, "millrace_ingest_filter_rejects_total", "bad_amf"); n != 2 {
		t.Errorf("%v rejected as bad_amf", n)
	}
}

// A ping is answered with its own timestamp.
func TestRTMPPing(t *testing.T) {
	f := serveRTMP(t, &stage{}, Config{}, nil)
	e := dialRaw(t, f.address)
	e.publish()
	for range 3 {
		e.send(chunk(0, 2, 0, 6, typeUserControl, "\x00\x06abcd"))
		e.expect(typeUserControl, "\x00\x07abcd")
	}
}

// A connection may end its broadcast and begin another one.
func TestRTMPPublishAgain(t *testing.T) {
	f := serveRTMP(t, &stage{}, Config{}, nil)
	e := dialRaw(t, f.address)
	e.publish()
	p := receive(t, f.taken, "a publication")
	e.send(command("FCUnpublish", 4.0, nil, "s3cret"), command("deleteStream", 5.0, nil, 1.0))
	if !receive(t, p.ended, "the end") {
		t.Error("the end wasn't clean")
	}
	e.send(command("createStream", 6.0, nil))
	e.expect(typeCommandAMF0, "_result")
	e.send(command("publish", 7.0, nil, "s3cret", "live"))
	e.expect(typeCommandAMF0, "NetStream.Publish.Start")
	p = receive(t, f.taken, "a publication")
	e.Close()
	if receive(t, p.ended, "the end") {
		t.Error("a connection that was just cut was called clean")
	}
}

// When ctx ends, so does everything, within 2 s: a publisher, half a handshake, silence.
func TestRTMPShutdown(t *testing.T) {
	f := serveRTMP(t, &stage{}, Config{}, nil)
	publisher := dialRaw(t, f.address)
	publisher.publish()
	dialRaw(t, f.address)
	half, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	if _, err := half.Write(handshakeBytes[:700]); err != nil {
		t.Fatal(err)
	}
	p := receive(t, f.taken, "a publication")
	started := time.Now()
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	receive(t, p.ended, "the end")
	if _, err := net.Dial("tcp", f.address); err == nil {
		t.Error("the port is still open")
	}
}

// pipeListener gives the connections that it is sent, or errors.
type pipeListener struct {
	conns  chan any
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan any, 10), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		if err, ok := c.(error); ok {
			return nil, err
		}
		return c.(net.Conn), nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// dial connects to the listener.
func (l *pipeListener) dial() net.Conn {
	encoder, conn := net.Pipe()
	l.conns <- conn
	return encoder
}

// A connection that doesn't publish, or no longer, is told so and ends.
func TestRTMPPublishTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		f := serveRTMP(t, &stage{}, Config{}, l)
		started := time.Now()
		conn := l.dial()
		e := newRawEncoder(t, conn)
		e.send(command("connect", 1.0, amfProperties{{"app", "live"}}))
		e.expect(typeCommandAMF0, "Nothing was published for 15s.")
		if took := time.Since(started); took != 15*time.Second {
			t.Errorf("it took %v", took)
		}
		e.gone()
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
}

// A publisher that goes silent ends after 30 s.
func TestRTMPIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		f := serveRTMP(t, &stage{}, Config{}, l)
		e := newRawEncoder(t, l.dial())
		e.publish()
		if err := e.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		e.expect(typeCommandAMF0, "no complete chunk arrived for 30s")
		if took := time.Since(started); took != 30*time.Second {
			t.Errorf("it took %v", took)
		}
		e.gone()
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
}

// A listener that somebody else closed is an error.
func TestRTMPClosedListener(t *testing.T) {
	l := newPipeListener()
	l.Close()
	s := New(Config{Publishers: &stage{}, Log: slog.New(slog.DiscardHandler)})
	if err := s.Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve gave %v for a closed listener", err)
	}
}

// Random bytes after a handshake, as often as they come, leave the server as it was.
func TestRTMPGarbage(t *testing.T) {
	f := serveRTMP(t, &stage{}, Config{}, nil)
	for range 50 {
		e := dialRaw(t, f.address)
		garbage := make([]byte, 5000)
		_, _ = rand.Read(garbage) // it never fails
		binary.BigEndian.PutUint32(garbage, 0x03_000000)
		if _, err := e.Write(garbage); err == nil {
			_ = e.Conn.(*net.TCPConn).CloseWrite() // the server may have hung up already
		}
		e.gone()
	}
	dialRaw(t, f.address).publish()
}
