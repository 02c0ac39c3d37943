package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
	"millrace/internal/testenv"
)

// TestStartAndStop is the operator's side: it says quickly where to publish,
// ends quickly with all that it started, and finds its data again.
func TestStartAndStop(t *testing.T) {
	said := stopwatch(t, "to say where to publish and watch", 3*time.Second)
	s := harness.StartAll(t)
	said()
	for _, want := range []string{"rtmp://" + s.RTMP + "/live", s.HTTP + "/demo"} {
		if !strings.Contains(s.Out.String(), want) {
			t.Errorf("it doesn't name %s:\n%s", want, s.Out.String())
		}
	}
	if s.Key == "" {
		t.Fatalf("the first start shows no stream key:\n%s", s.Out.String())
	}
	if strings.Contains(s.Log.String(), s.Key) {
		t.Error("the stream key is in the log")
	}
	p := s.PublishClip(t, s.Key, shortClip) // which is made sooner: all other tests wait for this one
	s.AwaitLive("demo", "")
	children := harness.Descendants(s.Cmd.Process.Pid)
	if !slices.ContainsFunc(children, harness.IsProgram("redis-server")) || !slices.ContainsFunc(children, harness.IsProgram("ffmpeg")) {
		t.Errorf("children %v, want a redis-server and ffmpegs", children)
	}

	ended := stopwatch(t, "to end after Ctrl-C", 5*time.Second)
	s.Interrupt()
	if err := s.Wait(15 * time.Second); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	ended()
	harness.WaitGone(t, children)
	p.Kill()
	if strings.Contains(s.Log.String(), `"level":"ERROR"`) || strings.Contains(s.Log.String(), "panic") {
		t.Errorf("errors in the log:\n%s", s.Log.String())
	}

	t.Parallel() // the times that a machine of its own is needed for are taken

	// The second start finds the channel, and its key still works.
	key := s.Key
	s = s.Again(t)
	if s.Key != "" {
		t.Error("the second start shows a stream key")
	}
	p = s.PublishClip(t, key, longClip)
	s.AwaitLive("demo", "")
	children = harness.Descendants(s.Cmd.Process.Pid)
	s.Kill()
	harness.WaitGone(t, children)
	p.Kill()

	// So does one after kill -9, also with a redis-server left behind.
	orphan := orphanRedis(t, s.Data)
	s = s.Again(t)
	s.PublishClip(t, key, longClip)
	s.AwaitLive("demo", "")
	if err := orphan.Wait(5 * time.Second); err != nil {
		t.Logf("the orphan: %v", err)
	}
}

// stopwatch returns what is called when something is done that may take so long. It
// judges on a machine that has had time left: beside other work every start takes
// as long as that lets it.
func stopwatch(t testing.TB, what string, limit time.Duration) (done func()) {
	began, idle := time.Now(), harness.IdleShare()
	return func() {
		t.Helper()
		took, left := time.Since(began), idle()
		switch {
		case took <= limit:
		case left > busy:
			t.Errorf("it took %s %s, at most %s", took, what, limit)
		default:
			t.Logf("it took %s %s; the machine was busy", took, what)
		}
	}
}

// orphanRedis starts a redis-server as a killed millrace would leave it behind
// where the kernel doesn't end children with their parent.
func orphanRedis(t *testing.T, data string) *harness.Program {
	t.Helper()
	dir := filepath.Join(data, "redis")
	socket := filepath.Join(dir, "redis.sock")
	p := harness.Run(t, "orphan", testenv.Program(t, "redis-server"), nil, "--port", "0", "--unixsocket", socket, "--dir", dir,
		"--save", "", "--appendonly", "yes", "--daemonize", "no")
	if err := os.WriteFile(filepath.Join(dir, "redis.pid"), []byte(strconv.Itoa(p.Cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 10*time.Second, func() error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return p
}

// TestStartFails is a start that can't succeed: it must say why, and leave
// nothing behind.
func TestStartFails(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for name, tt := range map[string]struct {
		args []string
		env  []string
		says string
	}{
		"port in use":     {[]string{"--http", busy.Addr().String()}, nil, "in use"},
		"bad flag":        {[]string{"--dvr-window", "soon"}, nil, "dvr-window"},
		"no ffmpeg":       {[]string{"--ffmpeg", "/nowhere/ffmpeg"}, nil, "ffmpeg"},
		"no redis-server": {nil, []string{"PATH=/nowhere"}, "redis-server"},
		"no bucket":       {[]string{"--s3-bucket", "x", "--s3-endpoint", "http://127.0.0.1:1"}, []string{"MILLRACE_S3_ACCESS_KEY=a", "MILLRACE_S3_SECRET_KEY=b"}, "S3"},
	} {
		t.Run(name, func(t *testing.T) {
			ffmpeg := testenv.FFmpeg(t)
			args := append([]string{
				"all", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--rtmp", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--private", "127.0.0.1:0", "--ffmpeg", ffmpeg,
			}, tt.args...)
			p := harness.Run(t, "millrace", harness.Binary(), tt.env, args...)
			if err := p.Wait(20 * time.Second); err == nil {
				t.Error("it ended without an error")
			}
			said := strings.TrimSpace(p.Log.String())
			if lines := strings.Split(said, "\n"); !strings.Contains(said, tt.says) || len(lines) > 4 || strings.Contains(said, "goroutine ") {
				t.Errorf("it should say plainly what is wrong with %q:\n%s", tt.says, said)
			}
		})
	}
}

// TestChannelCommands makes channels while millrace runs and while it doesn't.
func TestChannelCommands(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	before := harness.CreateChannel(t, "early", "--data", data)
	s := harness.StartOn(t, data)
	while := s.Channel("late")
	for channel, key := range map[string]string{"early": before, "late": while} {
		p := s.PublishClip(t, key, shortClip)
		harness.Eventually(t, 20*time.Second, func() error {
			a, err := hls.Fetch(t.Context(), hls.Client, s.Playlist(channel))
			if err == nil && a.Status != http.StatusOK {
				err = fmt.Errorf("%s: %d %s", channel, a.Status, a.Body)
			}
			return err
		})
		p.End()
	}
	out, err := exec.Command(harness.Binary(), "channel", "list", "--data", data).Output()
	for _, channel := range []string{"demo", "early", "late"} {
		if err != nil || !strings.Contains(string(out), channel) {
			t.Errorf("channel list: %v, without %s:\n%s", err, channel, out)
		}
	}
}
