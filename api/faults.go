package api

import (
	"log/slog"
	"sync"
	"time"
)

// faults logs faults that would repeat with every request, at most one a second.
// The zero value is ready. It is safe for concurrent use.
type faults struct {
	mu      sync.Mutex
	last    time.Time
	skipped int
}

func (f *faults) log(l *slog.Logger, what string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.last) < time.Second {
		f.skipped++
		return
	}
	l.Error(what, "err", err, "not_logged_before", f.skipped)
	f.last, f.skipped = time.Now(), 0
}
