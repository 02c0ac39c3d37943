package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace/internal/child"
	"millrace/internal/testenv"
)

// redisPID is the process id of its redis-server.
func (r *running) redisPID() int {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.data, "redis", "redis.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		r.t.Fatal(err)
	}
	return pid
}

func alive(pid int) bool { return strings.Contains(commandLine(pid), "redis-server") }

func TestRedisServerIsStartedAgain(t *testing.T) {
	r := startAll(t, t.TempDir())
	pid := r.redisPID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually("another redis-server", func() bool { return r.redisPID() != pid && r.ready() })
	r.stop()
}

func TestOrphanedRedisServer(t *testing.T) {
	for name, hung := range map[string]bool{"answers": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			r := startAll(t, t.TempDir())
			db := openSocket(redisSocket(r.data))
			if err := db.Set(t.Context(), "kept", "yes", 0).Err(); err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
			if err := r.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-r.ended
			pid := orphanRedis(t, r)
			if hung {
				if err := os.WriteFile(filepath.Join(r.data, "redis", "redis.pid"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			again := startAll(t, r.data)
			if alive(pid) || again.redisPID() == pid {
				t.Error("the orphan still runs")
			}
			db = openSocket(redisSocket(r.data))
			defer db.Close()
			if v, err := db.Get(t.Context(), "kept").Result(); err != nil || v != "yes" {
				t.Errorf("what was kept is %q, %v", v, err)
			}
			again.stop()
		})
	}
}

// A redis-server that hangs is killed and started again.
func TestHungRedisServer(t *testing.T) {
	r, err := newRedisChild(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.hangs = 1500 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan error, 1), make(chan error, 1)
	go func() { ended <- r.Run(ctx, ready) }()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	pid := r.orphanPID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	limit, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for now := pid; now == 0 || now == pid || pingSocket(t.Context(), r.socket) != nil; now = r.orphanPID() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("process %d hangs, and no other redis-server answers", pid)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// fakeRedis answers on a Unix socket what it is given for each question, and nothing for "".
func fakeRedis(t *testing.T, answers <-chan string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				for b := make([]byte, 4096); ; {
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					for range strings.Count(string(b[:n]), "*") {
						_, _ = conn.Write([]byte(<-answers)) // whoever is gone wants none
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		served.Wait()
	})
	return socket
}

// A redis-server that answers with an error doesn't hang: with a full disk it refuses
// all but reads. One that hangs is asked once, and its late answer counts.
func TestPulse(t *testing.T) {
	answers := make(chan string, 1)
	p := &pulse{socket: fakeRedis(t, answers)}
	defer p.close()
	answers <- "+PONG\r\n"
	if answered, err := p.ask(t.Context(), 20*time.Second); !answered || err != nil {
		t.Errorf("PONG is %v, %v", answered, err)
	}
	answers <- "-MISCONF Errors writing to the AOF file: No space left on device\r\n"
	if answered, err := p.ask(t.Context(), 20*time.Second); !answered || err == nil {
		t.Errorf("a refusal is %v, %v", answered, err)
	}
	for range 3 {
		if answered, err := p.ask(t.Context(), time.Millisecond); answered || !errors.Is(err, errQuiet) {
			t.Errorf("no answer is %v, %v", answered, err)
		}
	}
	answers <- "+PONG\r\n"
	if answered, err := p.ask(t.Context(), 20*time.Second); !answered || err != nil {
		t.Errorf("a late PONG is %v, %v", answered, err)
	}
	if answered, err := p.ask(t.Context(), time.Millisecond); answered || !errors.Is(err, errQuiet) {
		t.Errorf("no answer to the next question is %v, %v", answered, err)
	}
	answers <- ""
	nobody := &pulse{socket: filepath.Join(t.TempDir(), "none")}
	if answered, err := nobody.ask(t.Context(), time.Second); answered || !errors.Is(err, errQuiet) {
		t.Errorf("without a socket it is %v, %v", answered, err)
	}
}

// While no connection can be made for reasons of our own, redis-server lives on, and
// one that is held still finds out that it hangs.
func TestRedisServerWithoutDescriptors(t *testing.T) {
	if !inProcessOfItsOwn(t) {
		return
	}
	r, err := newRedisChild(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.hangs = time.Second
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan error, 1), make(chan error, 1)
	go func() { ended <- r.Run(ctx, ready) }()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	pid := r.orphanPID()
	giveBack := takeDescriptors(t)
	late := &pulse{socket: r.socket}
	if answered, err := late.ask(t.Context(), time.Second); answered || err == nil || errors.Is(err, errQuiet) {
		t.Errorf("without descriptors it is %v, %v", answered, err)
	}
	limited, stop := context.WithTimeout(t.Context(), 2*r.hangs)
	defer stop()
	silent := make(chan struct{})
	r.watch(limited, late, silent)
	select {
	case err := <-ended:
		t.Fatalf("it ended: %v", err)
	case <-silent:
		t.Error("it counts as silent where it couldn't be asked")
	default:
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Error("it was killed though it answers")
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 20*time.Second, func() error {
		if syscall.Kill(pid, 0) == nil {
			return errors.New("it hangs, and lives")
		}
		return nil
	})
	giveBack()
	testenv.Eventually(t, 20*time.Second, func() error { return pingSocket(t.Context(), r.socket) })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A stale note of a process id that another instance's redis-server has now
// doesn't end that one.
func TestForeignRedisServer(t *testing.T) {
	other := startAll(t, t.TempDir())
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "redis"), 0o700); err != nil {
		t.Fatal(err)
	}
	pid := other.redisPID()
	if err := os.WriteFile(filepath.Join(data, "redis", "redis.pid"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startAll(t, data)
	if !alive(pid) || other.redisPID() != pid {
		t.Error("the other instance's redis-server was ended")
	}
	r.stop()
	other.stop()
}

// orphanRedis starts a redis-server on the data directory, as a killed millrace
// leaves one where the kernel doesn't end it.
func orphanRedis(t *testing.T, r *running) int {
	t.Helper()
	r.eventuallyEnded("the earlier redis-server", r.redisPID())
	dir := filepath.Join(r.data, "redis")
	cmd := exec.Command(testenv.Program(t, "redis-server"), "--port", "0", "--unixsocket", redisSocket(r.data),
		"--dir", dir, "--save", "", "--appendonly", "yes")
	child.Prepare(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // reaped when millrace ends it
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	p := &pulse{socket: redisSocket(r.data)}
	defer p.close()
	if err := awaitAnswer(t.Context(), p, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// eventuallyEnded waits for the end of a process that isn't ours to wait for.
func (r *running) eventuallyEnded(what string, pid int) {
	r.t.Helper()
	limit := time.After(5 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for alive(pid) {
		select {
		case <-limit:
			r.t.Fatalf("it hasn't ended: %s", what)
		case <-tick.C:
		}
	}
}

func TestRedisSocketFitsItsAddress(t *testing.T) {
	long := "/" + strings.Repeat("d", 120)
	if got := redisSocket(long); len(got) > maxSocketPath || got == redisSocket(long+"x") {
		t.Errorf("socket of a long path: %s", got)
	}
	if got := redisSocket("/data"); got != "/data/redis/redis.sock" {
		t.Errorf("socket of a short path: %s", got)
	}
}

func TestPrivateDirRefusesOthers(t *testing.T) {
	dir := t.TempDir()
	if err := privateDir(filepath.Join(dir, "new")); err != nil {
		t.Error(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"open", "link"} {
		if err := privateDir(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
