package testenv

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/child"
)

// RedisServer is a redis-server child that a test may stop and start. Its
// methods are for the test's goroutine.
type RedisServer struct {
	t      testing.TB
	socket string
	dir    string
	args   []string
	cmd    *exec.Cmd
}

// Redis starts an empty redis-server for this test and returns a client.
func Redis(t testing.TB) redis.UniversalClient {
	t.Helper()
	return StartRedis(t).Client()
}

// StartRedis starts an empty redis-server for this test, with further options
// ("--appendonly", "yes": it keeps what it has; "--port", "1234": on TCP as
// well). It ends after it.
func StartRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	s := &RedisServer{t: t, dir: shortDir(t), args: args}
	s.socket = filepath.Join(s.dir, "redis.sock")
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// URL returns the server's address in the form of --redis.
func (s *RedisServer) URL() string { return "unix://" + s.socket }

// Client returns a new client, closed after the test.
func (s *RedisServer) Client() redis.UniversalClient {
	s.t.Helper()
	c := redis.NewClient(&redis.Options{
		Network: "unix", Addr: s.socket, ContextTimeoutEnabled: true,
		MaxRetries: 1, DialerRetries: 1,
	})
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Start starts the server again after Stop, with nothing in it unless it keeps what it has.
func (s *RedisServer) Start() {
	s.t.Helper()
	args := append([]string{
		"--port", "0", "--unixsocket", s.socket, "--unixsocketperm", "700", "--dir", s.dir, "--save", "", "--appendonly", "no",
		"--maxmemory-policy", "noeviction", "--daemonize", "no", "--loglevel", "warning",
	}, s.args...)
	cmd := exec.Command(Program(s.t, "redis-server"), args...)
	var tail child.Tail
	cmd.Stdout, cmd.Stderr = &tail, &tail
	child.Prepare(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	s.cmd = cmd
	if err := Until(context.Background(), 10*time.Second, s.ping); err != nil {
		s.t.Fatalf("redis-server didn't start: %v: %s", err, tail.Last(3))
	}
}

// ping connects by hand first: go-redis prints what it can't reach.
func (s *RedisServer) ping() error {
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		return err
	}
	_ = conn.Close()
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket, MaxRetries: -1, DialerRetries: 1})
	defer c.Close()
	return c.Ping(context.Background()).Err()
}

// Stop kills the server. One that is stopped stays so.
func (s *RedisServer) Stop() {
	if s.cmd == nil {
		return
	}
	child.Kill(s.cmd)
	_ = s.cmd.Wait() // "signal: killed"
	s.cmd = nil
}
