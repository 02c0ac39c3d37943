//go:build chaos

package chaos

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/e2e/harness"
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
	harness.Eventually(r.t, 15*time.Second, func() error { return pingRedis(r.address) })
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

// signalAll sends a signal to processes.
func signalAll(signal syscall.Signal, pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, signal)
	}
}
