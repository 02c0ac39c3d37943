//go:build hostile

package hostile

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// stranger is the n-th address that attacks come from. The viewer has another one.
func stranger(n int) string { return fmt.Sprintf("127.66.%d.%d", n/250, 1+n%250) }

// counted counts what is written to a connection.
type counted struct {
	net.Conn
	bytes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// dial connects from an address of this machine. Any goroutine may call it.
func (a *attack) dial(ctx context.Context, from, to string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	a.connections.Add(1)
	return counted{conn, &a.bytes}, nil
}

// web is the address of the server's pages.
func (a *attack) web() string { return strings.TrimPrefix(a.server.HTTP, "http://") }

// raw sends bytes on a connection of its own and returns the first 64 KiB of what
// comes back, and whether the server closed the connection within the limit.
func (a *attack) raw(from, to, request string, limit time.Duration) (answer string, closed bool) {
	conn, err := a.dial(a.t.Context(), from, to)
	if err != nil {
		return "", true
	}
	defer conn.Close()
	a.requests.Add(1)
	return exchange(conn, request, limit)
}

// exchange is raw on a connection that is there.
func exchange(conn net.Conn, request string, limit time.Duration) (answer string, closed bool) {
	_ = conn.SetDeadline(time.Now().Add(limit)) // Read says it if this fails
	_, _ = io.WriteString(conn, request)        // the server may have been faster
	var b strings.Builder
	_, err := io.CopyN(&b, conn, 64<<10)
	return b.String(), !isTimeout(err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// hungUp waits until the server has closed a connection.
func hungUp(conn net.Conn, limit time.Duration) error {
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
		return fmt.Errorf("the connection is still open after %s", limit)
	}
	return nil
}

// client asks from an address, on so many connections at most; with http2 it speaks
// that without TLS. It ends with the row.
func (a *attack) client(from string, conns int, http2 bool) *http.Client {
	transport := &http.Transport{
		DialContext:     func(ctx context.Context, _, to string) (net.Conn, error) { return a.dial(ctx, from, to) },
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns,
		DisableCompression: true, ResponseHeaderTimeout: 15 * time.Second,
	}
	if http2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	a.later(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends a request, and returns the answer's status, "closed" or "timeout", and
// what it says, at most 1 MiB of it. It counts neither.
func (a *attack) ask(c *http.Client, r *http.Request) (status string, head http.Header, body string) {
	a.requests.Add(1)
	resp, err := c.Do(r)
	if err != nil {
		if isTimeout(err) {
			return "timeout", nil, ""
		}
		return "closed", nil, ""
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return strconv.Itoa(resp.StatusCode) + ", broken off", resp.Header, string(data)
	}
	return strconv.Itoa(resp.StatusCode), resp.Header, string(data)
}

// get is the answer to a GET from an address.
func (a *attack) get(from, url string, head ...string) (status, body string) {
	a.t.Helper()
	r := a.request(http.MethodGet, url)
	for i := 0; i+1 < len(head); i += 2 {
		if head[i] == "Host" {
			r.Host = head[i+1]
		}
		r.Header.Set(head[i], head[i+1])
	}
	status, _, body = a.ask(a.client(from, 1, false), r)
	return status, body
}

// request makes one; a wrong address is the row's own fault.
func (a *attack) request(method, url string) *http.Request {
	r, err := http.NewRequestWithContext(a.t.Context(), method, url, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// flood is many requests.
type flood struct {
	// rate is how many a second, lasts how long.
	rate  int
	lasts time.Duration
	// workers is how many wait for an answer at the same time.
	workers int
	clients []*http.Client
	// request makes the n-th.
	request func(n int) *http.Request
}

// flood sends requests at a rate, and counts the answers by status.
func (a *attack) flood(f flood) {
	began := time.Now()
	var next atomic.Int64
	var group sync.WaitGroup
	for w := range f.workers {
		group.Go(func() {
			for {
				n := int(next.Add(1) - 1)
				due := time.Duration(n) * time.Second / time.Duration(f.rate)
				if due = max(due, time.Since(began)); due >= f.lasts {
					return
				}
				time.Sleep(time.Until(began.Add(due)))
				status, _, _ := a.ask(f.clients[w%len(f.clients)], f.request(n))
				a.answered(status)
			}
		})
	}
	group.Wait()
}

// idlers keep connections open and ask one thing on each. Where the server closes
// one they open another.
type idlers struct {
	stop context.CancelFunc
	done sync.WaitGroup
	open atomic.Int64
}

// idle opens connections from strangers, one after the other, so many from each.
func (a *attack) idle(to, request string, strangers, each int) *idlers {
	ctx, cancel := context.WithCancel(context.Background())
	x := &idlers{stop: cancel}
	a.later(x.end)
	for s := range strangers {
		for range each {
			x.done.Go(func() {
				for ctx.Err() == nil {
					x.hold(ctx, a, stranger(s), to, request)
					select {
					case <-ctx.Done():
					case <-time.After(2 * time.Second):
					}
				}
			})
		}
	}
	return x
}

// hold opens a connection, and returns when the server closes it.
func (x *idlers) hold(ctx context.Context, a *attack, from, to, request string) {
	conn, err := a.dial(ctx, from, to)
	if err != nil {
		a.answered("no connection")
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	x.open.Add(1)
	defer x.open.Add(-1)
	if request != "" {
		a.requests.Add(1)
		_, _ = io.WriteString(conn, request)
	}
	_, _ = io.Copy(io.Discard, conn)
	if ctx.Err() == nil {
		a.answered("closed")
	}
}

// end closes them.
func (x *idlers) end() {
	x.stop()
	x.done.Wait()
}
