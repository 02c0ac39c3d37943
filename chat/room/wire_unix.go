//go:build unix

package room

import (
	"errors"
	"io"
	"sync"
	"syscall"
)

// rawWorks: sockets are read and written here by the calls of Unix, without waiting.
const rawWorks = true

// rawWrite writes as much of p as is taken without waiting; if wait is true, it waits until all is.
func rawWrite(raw syscall.RawConn, p []byte, wait bool) (int, error) {
	op := writeOps.Get().(*writeOp)
	op.p, op.wait = p, wait
	n, err := op.run(raw)
	writeOps.Put(op)
	return n, err
}

// writeOp is a call of RawConn.Write with what it needs, to be used again: so writing takes no memory.
type writeOp struct {
	p    []byte
	n    int
	wait bool
	err  error
	fn   func(fd uintptr) bool
}

var writeOps = sync.Pool{New: func() any {
	op := new(writeOp)
	op.fn = op.try
	return op
}}

func (op *writeOp) run(raw syscall.RawConn) (int, error) {
	op.n, op.err = 0, nil
	err := raw.Write(op.fn)
	if err == nil {
		err = op.err
	}
	op.p = nil
	return op.n, err
}

// try writes until all is written or nothing more is taken; it returns false to be called again when something is.
func (op *writeOp) try(fd uintptr) bool {
	for op.n < len(op.p) {
		n, err := syscall.Write(int(fd), op.p[op.n:])
		switch {
		case err == nil:
			op.n += n
			if op.n < len(op.p) && !op.wait {
				return true
			}
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return !op.wait
		default:
			op.err = err
			return true
		}
	}
	return true
}

// rawRead takes a buffer only when there is something to read.
func rawRead(raw syscall.RawConn, receive func(p []byte)) error {
	var buf *[readSize]byte
	var n int
	var failed error
	try := func(fd uintptr) bool {
		buf = buffers.Get().(*[readSize]byte)
		for {
			n, failed = syscall.Read(int(fd), buf[:])
			if !errors.Is(failed, syscall.EINTR) {
				break
			}
		}
		if errors.Is(failed, syscall.EAGAIN) {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	}
	for {
		err := raw.Read(try)
		switch {
		case err != nil:
		case failed != nil:
			err = failed
		case n == 0:
			err = io.EOF
		default:
			receive(buf[:n])
		}
		if buf != nil {
			buffers.Put(buf)
			buf = nil
		}
		if err != nil {
			return err
		}
	}
}

// rawReadable waits until there is something to read, or the socket has ended.
func rawReadable(raw syscall.RawConn) error {
	var one [1]byte
	return raw.Read(func(fd uintptr) bool {
		for {
			_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
			if !errors.Is(err, syscall.EINTR) {
				return !errors.Is(err, syscall.EAGAIN)
			}
		}
	})
}

func rawCloseWrite(raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_WR) })
}
