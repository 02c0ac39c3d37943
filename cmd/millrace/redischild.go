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
	// redisWaits are the waits for an answer that make up that time.
	redisWaits = 15
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
	// hangs is how long redis-server may answer nothing, in redisWaits.
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
	held := &pulse{socket: r.socket} // used by one goroutine of looking at a time
	var looking sync.WaitGroup
	defer func() {
		stopLooking()
		looking.Wait()
		held.close()
	}()
	answers := make(chan error, 1)
	looking.Go(func() { answers <- awaitAnswer(lookCtx, held, redisLoad) })
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
				looking.Go(func() { r.watch(lookCtx, held, silent) })
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

// watch closes silent when redis-server hasn't answered for r.hangs: in that many
// waits on end, each of which it was asked in and was quiet. What keeps us from
// asking it doesn't count, nor does a wait in which this process itself stood still.
func (r *redisChild) watch(ctx context.Context, p *pulse, silent chan<- struct{}) {
	wait := r.hangs / redisWaits
	tick := time.NewTicker(wait)
	defer tick.Stop()
	for quiet := 0; quiet < redisWaits; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		answered, err := p.ask(ctx, wait)
		switch {
		case answered, !errors.Is(err, errQuiet):
			quiet = 0
		case time.Since(began) < 2*wait:
			quiet++
		}
	}
	close(silent)
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

// awaitAnswer asks redis-server until it is ready or ctx ends, for as long as limit
// at most. The time in which it can't be asked, for reasons of our own, doesn't count.
func awaitAnswer(ctx context.Context, p *pulse, limit time.Duration) error {
	for {
		began := time.Now()
		answered, err := p.ask(ctx, time.Second)
		if answered && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
		if answered || errors.Is(err, errQuiet) || errors.Is(err, errHungUp) {
			if limit -= time.Since(began); limit <= 0 {
				return err
			}
		}
	}
}

// answers reports whether somebody answers on the socket; the error is that it
// couldn't be asked.
func (r *redisChild) answers(ctx context.Context) (bool, error) {
	p := pulse{socket: r.socket}
	defer p.close()
	answered, err := p.ask(ctx, time.Second)
	if answered || errors.Is(err, errQuiet) || errors.Is(err, errHungUp) {
		return answered, nil
	}
	return false, err
}

func (r *redisChild) pidFile() string { return filepath.Join(r.dir, "redis.pid") }

// endOrphan ends a redis-server that a killed millrace left behind. We hold the
// data directory's lock, so nobody needs it.
func (r *redisChild) endOrphan(ctx context.Context) error {
	pid := r.orphanPID()
	answers, err := r.answers(ctx)
	if err != nil && pid == 0 {
		return fmt.Errorf("look for a redis-server that an earlier run left behind: %w", err)
	}
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
		if pid == 0 {
			if answers, err = r.answers(ctx); err == nil && !answers {
				_ = os.Remove(r.pidFile())
				return nil
			}
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
