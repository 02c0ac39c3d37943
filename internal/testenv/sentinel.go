package testenv

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/child"
)

// sentinelName is the name of the master at its Sentinels.
const sentinelName = "millrace"

// SentinelCluster is a Redis master and a replica, watched by three Sentinels
// that notice a death within a second. Its methods are for the test's goroutine.
type SentinelCluster struct {
	t         testing.TB
	dir       string
	sentinels []string
	// nodes are the master's and the replica's addresses and processes.
	nodes map[string]*exec.Cmd
}

// Sentinel starts a master, a replica and three Sentinels, and waits until the
// replica follows. They end after the test.
func Sentinel(t testing.TB) *SentinelCluster {
	t.Helper()
	s := &SentinelCluster{t: t, dir: shortDir(t), nodes: map[string]*exec.Cmd{}}
	master, replica := FreeAddress(t), FreeAddress(t)
	s.startNode(master)
	masterHost, masterPort, _ := net.SplitHostPort(master)
	s.startNode(replica, "--replicaof", masterHost+" "+masterPort)
	for n := range 3 {
		address := FreeAddress(t)
		_, port, _ := net.SplitHostPort(address)
		config := filepath.Join(s.dir, fmt.Sprintf("sentinel-%d.conf", n))
		text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor %s %s %s 2\nsentinel down-after-milliseconds %[3]s 1000\nsentinel failover-timeout %[3]s 5000\n",
			port, s.dir, sentinelName, masterHost, masterPort)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.start(exec.Command(Program(t, "redis-sentinel"), config), address)
		s.sentinels = append(s.sentinels, address)
	}
	err := Until(context.Background(), 20*time.Second, func() error { return s.settled(t.Context()) })
	if err != nil {
		t.Fatalf("Sentinel didn't settle: %v", err)
	}
	return s
}

func (s *SentinelCluster) startNode(address string, args ...string) {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(address)
	dir := filepath.Join(s.dir, port)
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	args = append([]string{
		"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes",
		"--repl-diskless-sync-delay", "0", "--loglevel", "warning",
	}, args...)
	cmd := exec.Command(Program(s.t, "redis-server"), args...)
	s.start(cmd, address)
	s.nodes[address] = cmd
}

func (s *SentinelCluster) start(cmd *exec.Cmd, address string) {
	s.t.Helper()
	var tail child.Tail
	cmd.Stdout, cmd.Stderr = &tail, &tail
	child.Prepare(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", cmd.Path, err)
	}
	s.t.Cleanup(func() {
		child.Kill(cmd)
		_ = cmd.Wait() // "signal: killed"
	})
	if err := Until(context.Background(), 10*time.Second, func() error { return pingTCP(address) }); err != nil {
		s.t.Fatalf("%s didn't start: %v: %s", cmd.Path, err, tail.Last(3))
	}
}

func pingTCP(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	_ = conn.Close()
	return ask(address, func(ctx context.Context, c *redis.Client) error { return c.Ping(ctx).Err() })
}

// ask calls fn with a client of one server, for a second at most.
func ask(address string, fn func(context.Context, *redis.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true})
	defer c.Close()
	return fn(ctx, c)
}

// settled returns nil when the Sentinels know each other and a replica that follows.
func (s *SentinelCluster) settled(context.Context) error {
	for _, address := range s.sentinels {
		err := ask(address, func(ctx context.Context, c *redis.Client) error {
			text, err := c.Info(ctx, "sentinel").Result()
			if err == nil && !strings.Contains(text, "status=ok") || !strings.Contains(text, "slaves=1,sentinels=3") {
				err = fmt.Errorf("sentinel %s says %s", address, text)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return ask(s.Master(), func(ctx context.Context, c *redis.Client) error {
		text, err := c.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(text, "state=online") {
			err = fmt.Errorf("the replica doesn't follow: %s", text)
		}
		return err
	})
}

// URL names the cluster in the form of --redis.
func (s *SentinelCluster) URL() string {
	return "redis://" + s.sentinels[0] + "/0?master_name=" + sentinelName +
		"&addr=" + strings.Join(s.sentinels[1:], "&addr=")
}

// Master asks a Sentinel for the master's address.
func (s *SentinelCluster) Master() string {
	var address string
	for _, sentinel := range s.sentinels {
		err := ask(sentinel, func(ctx context.Context, c *redis.Client) error {
			at, err := redis.NewStringSliceCmd(ctx, "SENTINEL", "get-master-addr-by-name", sentinelName), error(nil)
			if err = c.Process(ctx, at); err == nil {
				address = net.JoinHostPort(at.Val()[0], at.Val()[1])
			}
			return err
		})
		if err == nil {
			return address
		}
	}
	return address
}

// Failover has the Sentinels make the replica the master, and waits for it.
func (s *SentinelCluster) Failover() {
	s.t.Helper()
	before := s.Master()
	err := ask(s.sentinels[0], func(ctx context.Context, c *redis.Client) error {
		return c.Do(ctx, "SENTINEL", "FAILOVER", sentinelName).Err()
	})
	if err != nil {
		s.t.Fatalf("planned failover: %v", err)
	}
	s.AwaitMaster(before)
}

// AwaitMaster waits until another server than the one before is the master.
func (s *SentinelCluster) AwaitMaster(before string) {
	s.t.Helper()
	err := Until(context.Background(), 20*time.Second, func() error {
		now := s.Master()
		if now == "" || now == before {
			return fmt.Errorf("%s is the master still", before)
		}
		return ask(now, func(ctx context.Context, c *redis.Client) error {
			text, err := c.Info(ctx, "replication").Result()
			if err == nil && !strings.Contains(text, "role:master") {
				err = fmt.Errorf("%s isn't the master yet", now)
			}
			return err
		})
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// Signal sends a signal to a server: SIGSTOP hangs it, SIGCONT wakes it up,
// SIGKILL kills it.
func (s *SentinelCluster) Signal(address string, sig syscall.Signal) {
	s.t.Helper()
	cmd := s.nodes[address]
	if cmd == nil {
		s.t.Fatalf("no server at %s", address)
	}
	if err := cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}
