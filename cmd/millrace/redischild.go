package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/child"
)

const (
	// redisLoad bounds redis-server's start, which reads what it has kept.
	redisLoad = 60 * time.Second
	// redisStop is how long redis-server may take to end before it is killed: less
	// than levelBacking has.
	redisStop = 700 * time.Millisecond
	// redisHangs is how long redis-server may answer nothing before it is killed and
	// started anew.
	redisHangs = 15 * time.Second
	// maxSocketPath is the longest path, in bytes, that fits into a socket's address
	// on every system.
	maxSocketPath = 103
)

// redisChild is the redis-server of `millrace all`, on a Unix socket, with its
// data in the data directory. Whoever holds the data directory's lock owns it.
type redisChild struct {
	log     *slog.Logger
	program string
	dir     string
	socket  string
	// hangs is how long redis-server may answer nothing; it is asked every fifteenth
	// of that.
	hangs time.Duration
}

// newRedisChild finds the program redis-server and makes the directories for its
// data and its socket.
func newRedisChild(data string, log *slog.Logger) (*redisChild, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New("redis-server isn't installed: run \"apt-get install redis-server\" (or your system's like), or name a Redis with --redis")
	}
	r := &redisChild{log: log, program: program, dir: filepath.Join(data, "redis"), socket: redisSocket(data), hangs: redisHangs}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory for Redis: %w", err)
	}
	if err := privateDir(filepath.Dir(r.socket)); err != nil {
		return nil, fmt.Errorf("directory for Redis' socket: %w", err)
	}
	return r, nil
}

// redisSocket is where the redis-server of a data directory listens: in it, or
// under /tmp when the path would be too long for a socket.
func redisSocket(data string) string {
	socket := filepath.Join(data, "redis", "redis.sock")
	if len(socket) <= maxSocketPath {
		return socket
	}
	sum := sha256.Sum256([]byte(data))
	return fmt.Sprintf("/tmp/millrace-%d-%s/redis.sock", os.Getuid(), hex.EncodeToString(sum[:8]))
}

// privateDir makes a directory that only this user can write to, and refuses one
// that another user made or can write to: anybody may make directories in /tmp.
func privateDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s must be a directory that only this user can write to", dir)
	}
	return nil
}

// Run runs redis-server until ctx ends, and starts it again when it dies. The
// first start's result goes to ready; when it fails, Run returns it too.
func (r *redisChild) Run(ctx context.Context, ready chan<- error) error {
	// The kernel ends redis-server with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	var pause time.Duration
	for first := true; ; first = false {
		started := time.Now()
		err := r.runOnce(ctx, func() {
			if first {
				ready <- nil
			} else {
				r.log.Info("redis-server runs again")
			}
			first = false
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
		if first {
			ready <- err
			return err
		}
		if time.Since(started) > time.Minute {
			pause = 0
		}
		pause = min(max(2*pause, 100*time.Millisecond), 5*time.Second)
		r.log.Error("redis-server ended, it is started again", "err", err, "pause", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// runOnce starts redis-server, calls ready when it answers, and returns when it
// has ended: nil when ctx ended it.
func (r *redisChild) runOnce(ctx context.Context, ready func()) error {
	if err := r.endOrphan(ctx); err != nil {
		return err
	}
	cmd := exec.Command(r.program, "--port", "0", "--unixsocket", r.socket, "--unixsocketperm", "700",
		"--dir", r.dir, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
		"--maxmemory-policy", "noeviction", "--daemonize", "no")
	var said child.Tail
	cmd.Stdout, cmd.Stderr = &said, &said
	child.Prepare(cmd, syscall.SIGTERM) // it then writes what it holds
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := os.WriteFile(r.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		r.log.Warn("note redis-server's process id", "err", err)
	}
	if err := r.attend(ctx, cmd, ended, ready); err != nil {
		return fmt.Errorf("redis-server in %s %w: %s", r.dir, err, said.Last(3))
	}
	return nil
}

// attend waits for a running redis-server's end, and brings it about when ctx
// ends, or when the server doesn't answer. It calls ready at the first answer. The
// error says what the server did.
func (r *redisChild) attend(ctx context.Context, cmd *exec.Cmd, ended <-chan error, ready func()) error {
	lookCtx, stopLooking := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer func() {
		stopLooking()
		looking.Wait()
	}()
	answers := make(chan error, 1)
	looking.Go(func() {
		limited, cancel := context.WithTimeout(lookCtx, redisLoad)
		defer cancel()
		answers <- r.awaitAnswer(limited)
	})
	silent := make(chan struct{})
	for {
		select {
		case <-silent:
			child.Kill(cmd)
			<-ended
			return fmt.Errorf("has answered nothing for %s, and was killed", r.hangs)
		case err := <-ended:
			return fmt.Errorf("ended: %w", exitReason(err))
		case err := <-answers:
			switch {
			case err == nil:
				ready()
				looking.Go(func() { r.watch(lookCtx, silent) })
			case ctx.Err() == nil:
				r.end(cmd, ended)
				return fmt.Errorf("doesn't answer: %w", err)
			}
		case <-ctx.Done():
			r.end(cmd, ended)
			return nil
		}
	}
}

// watch closes silent when redis-server hasn't answered for r.hangs.
func (r *redisChild) watch(ctx context.Context, silent chan<- struct{}) {
	tick := time.NewTicker(r.hangs / 15)
	defer tick.Stop()
	for answered := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		switch {
		case r.alive(ctx), began.Sub(answered) > 2*r.hangs: // it wasn't asked for so long: this process itself stood still
			answered = time.Now()
		case time.Since(answered) > r.hangs:
			close(silent)
			return
		}
	}
}

// end ends a running redis-server and reaps it.
func (r *redisChild) end(cmd *exec.Cmd, ended <-chan error) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(redisStop):
		child.Kill(cmd)
		<-ended
	}
	_ = os.Remove(r.pidFile())
}

// exitReason names the way a process ended, also where that is no error.
func exitReason(err error) error { return cmp.Or(err, errors.New("exit status 0")) }

// awaitAnswer asks redis-server until it answers or ctx ends.
func (r *redisChild) awaitAnswer(ctx context.Context) error {
	for {
		err := r.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// alive reports whether redis-server answers, be it with an error: with a full disk
// it refuses even PING (MISCONF), and serves reads all the same.
func (r *redisChild) alive(ctx context.Context) bool {
	err := r.ping(ctx)
	var answer redis.Error
	return err == nil || errors.As(err, &answer)
}

// ping asks whether somebody answers on the socket.
func (r *redisChild) ping(ctx context.Context) error { return pingSocket(ctx, r.socket) }

func (r *redisChild) pidFile() string { return filepath.Join(r.dir, "redis.pid") }

// endOrphan ends a redis-server that a killed millrace left behind. We hold the
// data directory's lock, so nobody needs it.
func (r *redisChild) endOrphan(ctx context.Context) error {
	pid, answers := r.orphanPID(), r.ping(ctx) == nil
	if pid == 0 && !answers {
		return nil
	}
	r.log.Info("ending a redis-server that an earlier run left behind", "pid", pid)
	if answers {
		c := openSocket(r.socket)
		c.Shutdown(ctx) // fails by design: the connection breaks
		_ = c.Close()
	} else {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	deadline := time.Now().Add(3 * time.Second)
	for {
		pid = r.orphanPID()
		if pid == 0 && r.ping(ctx) != nil {
			_ = os.Remove(r.pidFile())
			return nil
		}
		if pid != 0 && time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(deadline.Add(2 * time.Second)) {
			return fmt.Errorf("a redis-server that an earlier run left behind doesn't end: end process %d by hand", pid)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// orphanPID is the process that the pid file names, if it is still a
// redis-server on our socket, else 0.
func (r *redisChild) orphanPID() int {
	text, err := os.ReadFile(r.pidFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0
	}
	line := commandLine(pid)
	if strings.Contains(line, "redis-server") && strings.Contains(line, r.socket) {
		return pid
	}
	return 0
}

// commandLine is what a process was started with; empty when it is gone.
func commandLine(pid int) string {
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		return string(line)
	}
	line, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return string(line)
}
