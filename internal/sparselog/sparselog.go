// Package sparselog writes log lines about what may happen again and again: one
// line a second, with the number of those left out before it.
package sparselog

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// interval is the least time between two lines of one Limiter.
const interval = time.Second

// Limiter lets one line a second through. The zero value is ready; it is safe
// for concurrent use. Each kind of fault has one of its own.
type Limiter struct {
	last    atomic.Int64 // when the last line was written, in Unix nanoseconds
	leftOut atomic.Int64
}

// Log writes a line, or leaves it out when the last one was written less than a
// second ago. A line says how many were left out since the one before.
func (l *Limiter) Log(log *slog.Logger, level slog.Level, msg string, attrs ...any) {
	now, last := time.Now().UnixNano(), l.last.Load()
	if now-last < int64(interval) || !l.last.CompareAndSwap(last, now) {
		l.leftOut.Add(1)
		return
	}
	if n := l.leftOut.Swap(0); n > 0 {
		attrs = append(attrs[:len(attrs):len(attrs)], "left_out", n)
	}
	log.Log(context.Background(), level, msg, attrs...)
}

// Warn logs an error as a warning.
func (l *Limiter) Warn(log *slog.Logger, msg string, err error, attrs ...any) {
	l.Log(log, slog.LevelWarn, msg, append([]any{"err", err}, attrs...)...)
}
