package harness

import (
	"testing"
	"time"

	"millrace/internal/testenv"
)

// Publisher is an ffmpeg that publishes as OBS would.
type Publisher struct{ *Program }

// Publish publishes in real time what the arguments name, already encoded.
func (s *Server) Publish(t testing.TB, key string, input []string, extra ...string) *Publisher {
	t.Helper()
	return PublishTo(t, "rtmp://"+s.RTMP+"/live/"+key, input, extra...)
}

// PublishClip publishes a clip once, in real time.
func (s *Server) PublishClip(t testing.TB, key string, c Clip, extra ...string) *Publisher {
	t.Helper()
	return s.Publish(t, key, []string{"-re", "-i", c.File(t), "-c", "copy"}, extra...)
}

// PublishTo publishes to an address what the arguments name.
func PublishTo(t testing.TB, url string, input []string, extra ...string) *Publisher {
	t.Helper()
	args := append([]string{"-hide_banner", "-loglevel", "verbose", "-nostats", "-nostdin"}, input...)
	args = append(append(args, extra...), "-f", "flv", url)
	return &Publisher{Run(t, "publisher", testenv.FFmpeg(t), nil, args...)}
}

// Finish waits for the end of the clip.
func (p *Publisher) Finish(limit time.Duration) {
	p.T.Helper()
	if err := p.Wait(limit); err != nil {
		p.T.Errorf("ffmpeg: %v\n%s", err, LastLines(p.Log.String(), 8))
	}
}

// End stops publishing cleanly.
func (p *Publisher) End() {
	p.T.Helper()
	p.Interrupt()
	_ = p.Wait(15 * time.Second) // 255 after a signal
}
