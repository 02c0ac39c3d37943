package rtmp

import (
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	gortmp "github.com/yutopp/go-rtmp"
	"github.com/yutopp/go-rtmp/message"
)

// libraryConfig is go-rtmp's configuration for this connection.
func (c *connection) libraryConfig() *gortmp.ConnConfig {
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.SetLevel(logrus.WarnLevel)
	log.AddHook(libraryHook{c})
	return &gortmp.ConnConfig{
		Handler:                                 c,
		Logger:                                  log,
		SkipHandshakeVerification:               true,
		IgnoreMessagesOnNotExistStream:          true,
		IgnoreMessagesOnNotExistStreamThreshold: 1000,
		ControlState: gortmp.StreamControlStateConfig{
			MaxChunkStreams:            16,
			MaxMessageStreams:          2, // controlStream and mediaStream
			DefaultAckWindowSize:       2_500_000,
			DefaultBandwidthWindowSize: 2_500_000,
			DefaultBandwidthLimitType:  message.LimitTypeDynamic,
		},
	}
}

// libraryHook keeps the last words of go-rtmp for the connection's log line, and passes on its
// warnings.
type libraryHook struct{ c *connection }

func (libraryHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h libraryHook) Fire(e *logrus.Entry) error {
	line, _, _ := strings.Cut(e.Message, "\n") // the rest are stacks and hex dumps
	if last, ok := strings.CutPrefix(line, "Server closed by error: Err = "); ok {
		h.c.library = clip(last, 200)
		return nil
	}
	h.c.gate.server.library.warn("go-rtmp warned", line)
	return nil
}

// libraryLog passes on warnings that an encoder can cause as often as it likes: one a second, with
// the number of those left out.
type libraryLog struct {
	log  *slog.Logger
	last atomic.Int64 // wall-clock time of the last one, ns
	left atomic.Int64
}

func (l *libraryLog) warn(what, detail string) {
	now, last := time.Now().UnixNano(), l.last.Load()
	if now-last < int64(time.Second) || !l.last.CompareAndSwap(last, now) {
		l.left.Add(1)
		return
	}
	l.log.Warn(what, "detail", clip(detail, 200), "left_out", l.left.Swap(0))
}
