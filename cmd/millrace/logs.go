package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/redis/go-redis/v9"
	"golang.org/x/term"
)

// newLog returns the log: text on a terminal, JSON otherwise.
func newLog(s settings, w io.Writer) *slog.Logger {
	text := s.LogFormat == "text"
	if f, ok := w.(*os.File); ok && s.LogFormat == "auto" {
		text = term.IsTerminal(int(f.Fd()))
	}
	opts := &slog.HandlerOptions{Level: s.LogLevel}
	if text {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	// Durations as people read them, in both forms.
	opts.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// redisLog takes what go-redis would print: it tells of broken connections,
// which the callers' errors tell of as well.
type redisLog struct{ log *slog.Logger }

// Printf implements redis' logging interface.
func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, v...))
}

// takeOverLogs sends what libraries print by themselves to our log.
func takeOverLogs(log *slog.Logger) { redis.SetLogger(redisLog{log}) }
