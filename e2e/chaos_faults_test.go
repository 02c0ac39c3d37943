//go:build chaos

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/child"
	"millrace/internal/testenv"
)

// s3Faults is an HTTP proxy before S3 that answers 503 on demand.
type s3Faults struct {
	address string
	failing atomic.Bool
	failed  atomic.Int64
}

func startS3Faults(t testing.TB, endpoint string) *s3Faults {
	t.Helper()
	f := new(s3Faults)
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		// The Host header is signed: it stays.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Transport:    &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second, DisableCompression: true},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.failing.Load() {
			f.failed.Add(1)
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>chaos</Message></Error>`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	f.address = strings.TrimPrefix(s.URL, "http://")
	return f
}

// redisServer is a redis-server on a TCP port that keeps its data as the one of
// `millrace all` does: appended to a file that is synced each second.
type redisServer struct {
	t       testing.TB
	address string
	dir     string
	cmd     *exec.Cmd
}

func startRedisServer(t testing.TB) *redisServer {
	t.Helper()
	r := &redisServer{t: t, address: testenv.FreeAddress(t), dir: t.TempDir()}
	r.start()
	t.Cleanup(r.kill)
	return r
}

// start starts it and waits until it answers.
func (r *redisServer) start() {
	r.t.Helper()
	_, port, _ := net.SplitHostPort(r.address)
	cmd := exec.Command(testenv.Program(r.t, "redis-server"), "--port", port, "--bind", "127.0.0.1", "--dir", r.dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--daemonize", "no")
	child.Prepare(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		r.t.Fatalf("start redis-server: %v", err)
	}
	r.cmd = cmd
	eventually(r.t, 15*time.Second, func() error { return pingRedis(r.address) })
}

func pingRedis(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	answer := make([]byte, 7)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "+PONG\r\n" {
		return fmt.Errorf("PING: %q %w", answer, err)
	}
	return nil
}

// kill is kill -9.
func (r *redisServer) kill() { r.end(syscall.SIGKILL) }

// stop is SIGTERM: it writes what it holds and ends.
func (r *redisServer) stop() { r.end(syscall.SIGTERM) }

func (r *redisServer) end(signal syscall.Signal) {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGCONT)
	_ = r.cmd.Process.Signal(signal)
	_ = r.cmd.Wait() // "signal: killed"
	r.cmd = nil
}

func (r *redisServer) client(t testing.TB) redis.UniversalClient {
	c := redis.NewClient(&redis.Options{Addr: r.address, ContextTimeoutEnabled: true, MaxRetries: 2, DialerRetries: 1})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// wire is a TCP proxy that can cut single processes off: what they send and
// what is for them is held back until the wire is whole again.
type wire struct {
	address string

	mu     sync.Mutex
	target string
	cut    map[int]bool // process ids; 0 cuts everybody
	whole  *sync.Cond
	conns  map[net.Conn]bool
	closed bool
}

func startWire(t testing.TB, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", testenv.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: l.Addr().String(), target: target, cut: make(map[int]bool), conns: make(map[net.Conn]bool)}
	w.whole = sync.NewCond(&w.mu)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { w.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		w.closed = true
		for conn := range w.conns {
			_ = conn.Close()
		}
		w.whole.Broadcast()
		w.mu.Unlock()
		group.Wait()
	})
	return w
}

// aim says where connections go to.
func (w *wire) aim(target string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = target
}

// sever cuts a process off; 0 stands for all.
func (w *wire) sever(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[pid] = true
}

// mend undoes all cuts.
func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
	w.whole.Broadcast()
}

func (w *wire) serve(conn net.Conn) {
	pid := ownerOf(conn.RemoteAddr().(*net.TCPAddr).Port)
	w.mu.Lock()
	target := w.target
	w.mu.Unlock()
	if !w.passable(pid) {
		_ = conn.Close()
		return
	}
	other, err := net.Dial("tcp", target)
	if err != nil {
		_ = conn.Close()
		return
	}
	w.mu.Lock()
	if w.closed {
		_ = conn.Close()
		_ = other.Close()
	}
	w.conns[conn], w.conns[other] = true, true
	w.mu.Unlock()
	var group sync.WaitGroup
	pipe := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if !w.passable(pid) {
				break
			}
			if n > 0 {
				if _, err := to.Write(buf[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		_ = to.Close()
		_ = from.Close()
	}
	group.Go(func() { pipe(other, conn) })
	group.Go(func() { pipe(conn, other) })
	group.Wait()
	w.mu.Lock()
	delete(w.conns, conn)
	delete(w.conns, other)
	w.mu.Unlock()
}

// passable waits while a process is cut off; false means that the wire is gone.
func (w *wire) passable(pid int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for (w.cut[0] || w.cut[pid]) && !w.closed {
		w.whole.Wait()
	}
	return !w.closed
}

// ownerOf is the process that has a local TCP port, or -1. There is no other
// way to tell on loopback who connects.
func ownerOf(port int) int {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return -1
	}
	want := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 10 || !strings.HasSuffix(fields[1], want) || fields[9] == "0" {
			continue
		}
		link := "socket:[" + fields[9] + "]"
		for _, pid := range millraces() {
			entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			for _, e := range entries {
				if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())); err == nil && to == link {
					return pid
				}
			}
		}
	}
	return -1
}

// millraces are the services that this test has started.
func millraces() []int { return children(os.Getpid(), "millrace") }

// signalAll sends a signal to processes.
func signalAll(signal syscall.Signal, pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, signal)
	}
}
