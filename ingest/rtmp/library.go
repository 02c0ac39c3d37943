package rtmp

import (
	"io"
	"log/slog"
	"strings"

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
	h.c.entrance.server.warn("go-rtmp warned", line)
	return nil
}

// warn passes on a warning that an encoder can cause as often as it likes.
func (s *Server) warn(what, detail string) {
	s.warnings.Log(s.log, slog.LevelWarn, what, "detail", clip(detail, 200))
}
