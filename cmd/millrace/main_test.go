package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"millrace/internal/testenv"
)

// TestMain makes this binary the program millrace as well, which the tests run
// as a process of its own. That process fails when it leaves a goroutine.
func TestMain(m *testing.M) {
	testscript.Main(withServers{m}, map[string]func(){"millrace": func() {
		code := run(os.Args[1:], os.Stdout, os.Stderr)
		if err := goleak.Find(append(ofS3Server,
			// The S3 client keeps connections to a server that isn't ours.
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		)...); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 70
		}
		os.Exit(code)
	}})
}

// ofS3Server are goroutines that its HTTP library leaves: a clock, and one that looks
// every 10 s whether it is to end.
var ofS3Server = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
	goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
}

type withServers struct{ m *testing.M }

func (w withServers) Run() int { return testenv.Run(w.m, ofS3Server...) }

func TestScripts(t *testing.T) {
	ffmpeg := testenv.FFmpeg(t)
	testenv.Program(t, "redis-server")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // the scripts run after this function
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("TAKEN", taken.Addr().String())
			e.Setenv("FFMPEG", ffmpeg)
			program, err := exec.LookPath("millrace")
			if err != nil {
				return err
			}
			e.Setenv("MILLRACE", program)
			for _, script := range []string{"fake-ffmpeg", "broken-ffmpeg"} {
				if path := e.Getenv("WORK") + "/" + script; os.Chmod(path, 0o755) != nil {
					continue // only one of the scripts has them
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits is the script command `exits STATUS COMMAND ARGS...`.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if err != nil {
		if !asExit(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

func asExit(err error, exit **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*exit = e
	return ok
}
