package room

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// readSize is how much is read at once.
const readSize = 4096

// buffers are for reading; a connection has one only while there is something to read.
var buffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// wire is the socket below a connection. There are three kinds: plain TCP is read and written without waiting;
// over TLS writing may wait, so it is left to a goroutine; what isn't a socket (a test's pipe, the
// answer to a request) holds a buffer while it is read, too.
type wire struct {
	conn net.Conn
	raw  syscall.RawConn // nil: not a socket
	tls  *tls.Conn       // nil: not TLS
}

func newWire(conn net.Conn) wire {
	w := wire{conn: conn}
	w.tls, _ = conn.(*tls.Conn)
	for below := conn; below != nil; {
		if s, ok := below.(syscall.Conn); ok && rawWorks {
			w.raw, _ = s.SyscallConn()
			break
		}
		wrapper, ok := below.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		below = wrapper.NetConn()
	}
	return w
}

// shakeLimit is how long a TLS handshake may take.
const shakeLimit = 10 * time.Second

// shake makes the TLS handshake, if it wasn't made yet.
func (w *wire) shake() error {
	if w.tls == nil || w.tls.ConnectionState().HandshakeComplete {
		return nil
	}
	_ = w.conn.SetDeadline(time.Now().Add(shakeLimit))
	err := w.tls.Handshake()
	_ = w.conn.SetDeadline(time.Time{})
	return err
}

// tryWrite writes as much of p as is taken without waiting.
func (w *wire) tryWrite(p []byte) (int, error) {
	if w.waits() {
		return 0, nil
	}
	return rawWrite(w.raw, p, false)
}

// write writes all of p; it waits until it is taken or the socket is closed.
func (w *wire) write(p []byte) error {
	if w.waits() {
		_, err := w.conn.Write(p)
		return err
	}
	_, err := rawWrite(w.raw, p, true)
	return err
}

// read calls receive with what arrives, until the connection ends.
func (w *wire) read(receive func(p []byte)) error {
	switch {
	case w.tls != nil && w.raw != nil:
		return w.readTLS(receive)
	case w.raw != nil:
		return rawRead(w.raw, receive)
	}
	buf := make([]byte, readSize)
	return readFrom(w.conn, buf, receive)
}

func readFrom(r io.Reader, buf []byte, receive func(p []byte)) error {
	for {
		n, err := r.Read(buf)
		if n > 0 {
			receive(buf[:n])
		}
		if err != nil {
			return err
		}
	}
}

// recordLimit is how long a record whose beginning has arrived is waited for with a buffer in hand.
const recordLimit = 20 * time.Millisecond

// readTLS waits until there is something to read, then reads all records that have arrived. A read that runs into
// its deadline leaves a record's beginning with the tls.Conn.
func (w *wire) readTLS(receive func(p []byte)) error {
	for {
		buf := buffers.Get().(*[readSize]byte)
		// Records that are in the tls.Conn's hands already don't show at the socket: the first round
		// waits for nothing.
		_ = w.conn.SetReadDeadline(time.Now().Add(recordLimit))
		err := readFrom(w.conn, buf[:], func(p []byte) {
			_ = w.conn.SetReadDeadline(past)
			receive(p)
		})
		buffers.Put(buf)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		_ = w.conn.SetReadDeadline(time.Time{})
		if err := rawReadable(w.raw); err != nil {
			return err
		}
	}
}

var past = time.Unix(1, 0)

// waits reports whether writing may wait: then it is left to a goroutine.
func (w *wire) waits() bool { return w.raw == nil || w.tls != nil }

// closeWrite ends this direction: the other end reads what was written and then the end. It reports whether
// this wire can.
func (w *wire) closeWrite() bool {
	switch {
	case w.tls != nil:
		return w.tls.CloseWrite() == nil
	case w.raw != nil:
		return rawCloseWrite(w.raw) == nil
	}
	return false
}

// close closes the socket, without a farewell of TLS, which may wait.
func (w *wire) close() {
	if w.tls != nil {
		_ = w.tls.NetConn().Close()
		return
	}
	_ = w.conn.Close()
}
