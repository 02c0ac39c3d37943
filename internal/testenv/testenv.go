// Package testenv starts the real servers that tests need: Redis, S3,
// PostgreSQL, and finds the programs they run. A missing program fails the
// test and names the command that installs it; it never skips a test.
//
// A package that uses Bucket hands its TestMain to [Main]:
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// packages names the Debian package of each program.
var packages = map[string]string{
	"redis-server":   "redis-server",
	"redis-sentinel": "redis-sentinel",
	"ffmpeg":         "ffmpeg",
	"ffprobe":        "ffmpeg",
	"postgres":       "postgresql",
	"initdb":         "postgresql",
	"chromium":       "chromium",
	"gst-launch-1.0": "gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly",
}

// Main is [Run] for a TestMain: it doesn't return.
func Main(m interface{ Run() int }, opts ...goleak.Option) { os.Exit(Run(m, opts...)) }

// Run runs the tests, ends the servers they shared, and fails if a goroutine is
// left. It returns the exit status. opts are for goleak.
func Run(m interface{ Run() int }, opts ...goleak.Option) int {
	if dir := os.Getenv(s3DirEnv); dir != "" {
		serveS3(dir) // this process is the S3 server of another one
	}
	mainCalled = true
	redis.SetLogger(quiet{})
	code := m.Run()
	stopS3()
	if code == 0 {
		if err := goleak.Find(opts...); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines are left after the tests: %v\n", err)
			code = 1
		}
	}
	return code
}

// quiet keeps go-redis from printing each connection that a stopped server refuses.
type quiet struct{}

// Printf prints nothing.
func (quiet) Printf(context.Context, string, ...any) {}

// mainCalled is set before any test runs.
var mainCalled bool

// FFmpeg returns the path of ffmpeg.
func FFmpeg(t testing.TB) string { return Program(t, "ffmpeg") }

// FFprobe returns the path of ffprobe.
func FFprobe(t testing.TB) string { return Program(t, "ffprobe") }

// Program returns the path of a program. Without it the test fails.
func Program(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	// Debian keeps PostgreSQL's servers out of PATH.
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) > 0 {
		return found[len(found)-1]
	}
	pkg := packages[name]
	if pkg == "" {
		pkg = name
	}
	t.Fatalf("%s isn't installed, and this test needs it: apt-get install -y --no-install-recommends %s", name, pkg)
	return ""
}

// shortDir makes a directory whose path is short enough for a Unix socket,
// which t.TempDir's is not, and removes it after the test.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
