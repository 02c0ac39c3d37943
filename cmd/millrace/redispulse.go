package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// What pulse finds of a server that doesn't answer. Other errors are our own.
var (
	// errQuiet means that it was asked and didn't answer in time, or that nobody can
	// ask it: it has no socket, or takes no connections.
	errQuiet = errors.New("redis-server is quiet")
	// errHungUp means that it closed the connection: it ends, or did so for a reason
	// that it has.
	errHungUp = errors.New("redis-server hung up")
)

// pulse asks a redis-server whether it lives, over a connection that it holds:
// what could fail when it connects for each question, such as a full table of
// open files, says nothing of the server. It is used by one goroutine.
type pulse struct {
	socket  string
	conn    net.Conn // nil: it connects first
	answers *bufio.Reader
	asked   bool // an answer is owed
}

// ask asks for a sign of life and waits for it for d. The server answered, with
// an error if it refuses even PING (MISCONF with a full disk, LOADING); or it is
// quiet, errQuiet; or else it couldn't be asked for reasons of our own.
func (p *pulse) ask(ctx context.Context, d time.Duration) (answered bool, err error) {
	if p.conn == nil {
		if err := p.connect(ctx, d); err != nil {
			return false, err
		}
	}
	_ = p.conn.SetDeadline(time.Now().Add(d))
	defer context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Unix(1, 0)) })()
	if !p.asked {
		if _, err = p.conn.Write([]byte("*1\r\n$4\r\nPING\r\n")); err != nil {
			return false, p.failed(ctx, err)
		}
		p.asked = true
	}
	line, err := p.answers.ReadString('\n')
	if err != nil {
		return false, p.failed(ctx, err)
	}
	p.asked = false
	if text, refused := strings.CutPrefix(strings.TrimSpace(line), "-"); refused {
		return true, fmt.Errorf("redis-server refuses: %s", text)
	}
	return true, nil
}

func (p *pulse) connect(ctx context.Context, d time.Duration) (err error) {
	dialer := net.Dialer{Timeout: d}
	p.conn, err = dialer.DialContext(ctx, "unix", p.socket)
	switch {
	case err == nil:
		p.answers, p.asked = bufio.NewReader(p.conn), false
		return nil
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EAGAIN):
		// Nobody listens; or more wait for it already than the system lets wait.
		return fmt.Errorf("%w: %w", errQuiet, err)
	}
	return fmt.Errorf("connect to redis-server: %w", err)
}

// failed says what an error of the connection means. After a deadline the
// connection stays: the answer may come yet.
func (p *pulse) failed(ctx context.Context, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		p.close()
		return fmt.Errorf("%w: %w", errHungUp, err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", errQuiet, err)
}

// close closes the connection, if there is one.
func (p *pulse) close() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}
