package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/testenv"
)

// clip is a video that is encoded once and published many times: real time then
// costs hardly any CPU.
type clip struct {
	name    string
	seconds string
	// size is that of the picture, rate its frames a second; no size, no picture.
	size, rate string
	// video are arguments for the encoder, after the common ones.
	video []string
	// audio are those of the audio encoder; none, no sound.
	audio []string
}

var stereo = []string{"-c:a", "aac", "-b:a", "96k", "-ac", "2", "-ar", "48000"}

// file encodes the clip unless that is done, and returns its path.
func (c clip) file(t testing.TB) string {
	t.Helper()
	path := filepath.Join(shared.dir, c.name+".flv")
	shared.mu.Lock()
	once := shared.made[path]
	if once == nil {
		once = new(sync.Once)
		shared.made[path] = once
	}
	shared.mu.Unlock()
	once.Do(func() {
		args := []string{"-hide_banner", "-loglevel", "error", "-nostdin", "-y"}
		if c.size != "" {
			args = append(args, "-f", "lavfi", "-i", "testsrc2=size="+c.size+":rate="+c.rate+",format=yuv420p")
		}
		if c.audio != nil {
			args = append(args, "-f", "lavfi", "-i", "aevalsrc=0.2*sin(2*PI*(300+40*t)*t):s=48000")
		}
		args = append(args, "-t", c.seconds)
		if c.size != "" {
			args = append(args, "-c:v", "libx264", "-preset", "ultrafast", "-b:v", "700k", "-maxrate", "700k", "-bufsize", "1400k", "-sc_threshold", "0")
			args = append(args, c.video...)
		}
		args = append(args, c.audio...)
		out, err := exec.Command("nice", slices.Concat([]string{"-n", "19", testenv.FFmpeg(t)}, args, []string{path})...).CombinedOutput()
		if err != nil {
			t.Fatalf("encode the clip %s: %v\n%s", c.name, err, out)
		}
	})
	return path
}

// publisher is an ffmpeg that publishes as OBS would.
type publisher struct{ *program }

// publish publishes in real time what the arguments name, already encoded.
func (s *server) publish(t testing.TB, key string, input []string, extra ...string) *publisher {
	t.Helper()
	return publishTo(t, "rtmp://"+s.rtmp+"/live/"+key, input, extra...)
}

// publishClip publishes a clip once, in real time.
func (s *server) publishClip(t testing.TB, key string, c clip, extra ...string) *publisher {
	t.Helper()
	return s.publish(t, key, []string{"-re", "-i", c.file(t), "-c", "copy"}, extra...)
}

func publishTo(t testing.TB, url string, input []string, extra ...string) *publisher {
	t.Helper()
	args := append([]string{"-hide_banner", "-loglevel", "verbose", "-nostats", "-nostdin"}, input...)
	args = append(append(args, extra...), "-f", "flv", url)
	return &publisher{run(t, "publisher", testenv.FFmpeg(t), nil, args...)}
}

// finish waits for the end of the clip.
func (p *publisher) finish(limit time.Duration) {
	p.t.Helper()
	if err := p.wait(limit); err != nil {
		p.t.Errorf("ffmpeg: %v\n%s", err, lastLines(p.log.String(), 8))
	}
}

// end stops publishing cleanly.
func (p *publisher) end() {
	p.t.Helper()
	p.interrupt()
	_ = p.wait(15 * time.Second) // 255 after a signal
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
