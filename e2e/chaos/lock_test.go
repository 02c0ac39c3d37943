//go:build chaos

package chaos

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// machineLock keeps other heavy work off the machine, if that keeps to the lock
// file that CHAOS_LOCK names.
type machineLock struct {
	file  *os.File
	since time.Time
}

// take waits for the lock. It keeps one that it has had for a short time only.
func (l *machineLock) take(t testing.TB) {
	t.Helper()
	path := os.Getenv("CHAOS_LOCK")
	if path == "" || l.file != nil && time.Since(l.since) < 150*time.Second {
		return
	}
	l.give()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	l.file, l.since = f, time.Now()
}

// give gives the lock back.
func (l *machineLock) give() {
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}
