// Package child holds what every child process has in common: a process group
// of its own, an end no later than ours where the kernel can see to it, and
// the tail of what it said for the error message.
package child

import (
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// Prepare gives cmd a process group of its own, so that Ctrl-C in a terminal
// reaches only us, and asks Linux to send it death when the thread that starts
// it ends. Go ends a thread only when a goroutine exits that is locked to it.
func Prepare(cmd *exec.Cmd, death syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	setDeathSignal(cmd.SysProcAttr, death)
}

// Kill ends the process group of a started cmd at once. One that has ended is
// no error. It doesn't reap: whoever started cmd waits for it.
func Kill(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // ESRCH: it has ended
}

// Tail is an io.Writer that keeps the last bytes written. The zero value keeps
// 4 KiB. It is safe for concurrent use.
type Tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 4 << 10

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// Last returns up to n of the last lines that aren't empty, joined by " | ".
func (t *Tail) Last(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for line := range strings.SplitSeq(string(t.buf), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, " | ")
}
