package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace/internal/child"
	"millrace/internal/testenv"
)

// running is a millrace that a test has started.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	data   string
	http   string // addresses
	https  string
	rtmp   string
	rtmps  string
	ops    string
	stdout *output
	stderr *output
	ended  chan struct{}
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs millrace with addresses of its own.
func start(t *testing.T, role, data string, args ...string) *running {
	t.Helper()
	return startBy(t, []string{"millrace"}, role, data, args...)
}

// startBy runs millrace by a command, which its arguments are added to.
func startBy(t *testing.T, command []string, role, data string, args ...string) *running {
	t.Helper()
	r := &running{
		t: t, data: data, http: testenv.FreeAddress(t), https: testenv.FreeAddress(t), rtmp: testenv.FreeAddress(t),
		rtmps: testenv.FreeAddress(t), ops: testenv.FreeAddress(t), stdout: new(output), stderr: new(output), ended: make(chan struct{}),
	}
	args = append([]string{role, "--data", data, "--http", r.http, "--https", r.https, "--rtmp", r.rtmp, "--rtmps", r.rtmps,
		"--irc", testenv.FreeAddress(t), "--ircs", testenv.FreeAddress(t), "--ops", r.ops, "--private", testenv.FreeAddress(t)}, args...)
	r.cmd = exec.Command(command[0], append(command[1:], args...)...)
	if role != "all" { // that makes one of its own
		r.cmd.Env = append(os.Environ(), "MILLRACE_PRIVATE_SECRET="+string(testenv.Secret))
	}
	r.cmd.Stdout, r.cmd.Stderr = r.stdout, r.stderr
	r.cmd.WaitDelay = time.Second
	child.Prepare(r.cmd, syscall.SIGKILL)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
		if t.Failed() {
			t.Logf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
		}
	})
	return r
}

// startAll runs `millrace all` until it has said where to watch.
func startAll(t *testing.T, data string, args ...string) *running {
	t.Helper()
	r := start(t, "all", data, args...)
	r.awaitBanner()
	return r
}

func (r *running) awaitBanner() {
	r.t.Helper()
	r.eventually("the banner", func() bool { return strings.Contains(r.stdout.String(), "└") })
}

// eventually waits for something another process does, while millrace runs.
func (r *running) eventually(what string, ok func() bool) {
	r.t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-r.ended:
			r.t.Fatalf("millrace ended (%v) before: %s", r.cmd.ProcessState, what)
		case <-limit:
			r.t.Fatalf("not within 20 s: %s", what)
		case <-tick.C:
		}
	}
}

// stop ends it as Ctrl-C does.
func (r *running) stop() {
	r.t.Helper()
	begin := time.Now()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(5 * time.Second):
		r.t.Fatal("it hasn't ended in 5 s")
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		r.t.Errorf("it ended with %v", r.cmd.ProcessState)
	}
	r.t.Logf("stopped in %s", time.Since(begin).Round(time.Millisecond))
}

// get returns an answer's status and body.
func (r *running) get(url string) (int, string) {
	r.t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return resp.StatusCode, string(body)
}

func (r *running) ready() bool {
	code, _ := r.get("http://" + r.ops + "/readyz")
	return code == http.StatusOK
}

var keyLine = regexp.MustCompile(`live_[a-z2-7]{32}`)
