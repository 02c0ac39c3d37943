//go:build !unix

package room

import (
	"errors"
	"syscall"
)

// rawWorks: here every connection is read and written through net.Conn, with a buffer for each and a goroutine for
// what is being written.
const rawWorks = false

func rawWrite(syscall.RawConn, []byte, bool) (int, error) { return 0, errors.ErrUnsupported }
func rawRead(syscall.RawConn, func([]byte)) error         { return errors.ErrUnsupported }
func rawReadable(syscall.RawConn) error                   { return errors.ErrUnsupported }
func rawCloseWrite(syscall.RawConn) error                 { return errors.ErrUnsupported }
