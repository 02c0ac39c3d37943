package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace/internal/child"
)

// output collects what a process prints. It is safe for concurrent use.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write keeps what is printed.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String is all that was printed so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Program is a child process of a test. It ends with the test.
type Program struct {
	T    testing.TB
	Name string
	Cmd  *exec.Cmd
	// Out and log are its standard output and error.
	Out, Log output
	// Ended is closed when it has ended; err is its result then.
	Ended chan struct{}
	Err   error
}

// Run starts a program. dir and env may be empty.
func Run(t testing.TB, name, path string, env []string, args ...string) *Program {
	t.Helper()
	p := &Program{T: t, Name: name, Cmd: exec.Command(path, args...), Ended: make(chan struct{})}
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Out, &p.Log
	p.Cmd.Env = append(os.Environ(), env...)
	p.Cmd.WaitDelay = 5 * time.Second
	child.Prepare(p.Cmd, syscall.SIGKILL)
	if err := p.Cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.Err = p.Cmd.Wait()
		close(p.Ended)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			p.KeepLog()
		}
	})
	return p
}

// Running reports whether the program hasn't ended.
func (p *Program) Running() bool {
	select {
	case <-p.Ended:
		return false
	default:
		return true
	}
}

// Interrupt is Ctrl-C.
func (p *Program) Interrupt() { _ = p.Cmd.Process.Signal(os.Interrupt) }

// Kill is kill -9, of this process alone.
func (p *Program) Kill() {
	_ = p.Cmd.Process.Kill() // "process already finished"
	<-p.Ended
}

// Wait waits for the end.
func (p *Program) Wait(limit time.Duration) error {
	p.T.Helper()
	select {
	case <-p.Ended:
		return p.Err
	case <-time.After(limit):
		p.T.Fatalf("%s hasn't ended after %s", p.Name, limit)
		return nil
	}
}

// KeepLog saves what the program said for whoever looks for the fault.
func (p *Program) KeepLog() {
	text := p.Log.String()
	name := regexp.MustCompile(`[^A-Za-z0-9_.-]+`).ReplaceAllString(fmt.Sprintf("%s-%s-%d", p.T.Name(), p.Name, p.Cmd.Process.Pid), "_") + ".log"
	if err := os.MkdirAll(OutputDir(), 0o755); err == nil {
		_ = os.WriteFile(filepath.Join(OutputDir(), name), []byte(text), 0o644)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if n := len(lines); n > 40 {
		lines = lines[n-40:]
	}
	p.T.Logf("the end of what %s said (all of it: e2e/output/%s):\n%s", p.Name, name, strings.Join(lines, "\n"))
}

// LastLines are the last n lines of a text.
func LastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
