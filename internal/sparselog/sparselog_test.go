package sparselog

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		var l Limiter
		broken := errors.New("broken")
		for range 3 {
			l.Warn(log, "no answer", broken, "worker", "w1")
		}
		time.Sleep(time.Second)
		l.Log(log, slog.LevelError, "no answer")
		time.Sleep(time.Second)
		l.Warn(log, "no answer", broken)
		want := `level=WARN msg="no answer" err=broken worker=w1
level=ERROR msg="no answer" left_out=2
level=WARN msg="no answer" err=broken
`
		if out.String() != want {
			t.Errorf("got\n%s\nwant\n%s", out.String(), want)
		}
	})
}
