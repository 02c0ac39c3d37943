package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"millrace/internal/child"
	"millrace/internal/testenv"
)

// TestMain makes this binary the program millrace as well, which the tests run
// as a process of its own. That process fails when it leaves a goroutine.
func TestMain(m *testing.M) {
	testscript.Main(withServers{m}, map[string]func(){"millrace": func() {
		code := run(os.Args[1:], os.Stdout, os.Stderr)
		if err := goleak.Find(
			// The S3 server's HTTP library has a clock, and looks every 10 s whether
			// it is to end.
			goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
			goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
			// The S3 client keeps connections to a server that isn't ours.
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 70
		}
		os.Exit(code)
	}})
}

type withServers struct{ m *testing.M }

func (w withServers) Run() int { return testenv.Run(w.m) }

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
	r := &running{
		t: t, data: data, http: testenv.FreeAddress(t), https: testenv.FreeAddress(t), rtmp: testenv.FreeAddress(t),
		rtmps: testenv.FreeAddress(t), ops: testenv.FreeAddress(t), stdout: new(output), stderr: new(output), ended: make(chan struct{}),
	}
	args = append([]string{role, "--data", data, "--http", r.http, "--https", r.https, "--rtmp", r.rtmp, "--rtmps", r.rtmps,
		"--ops", r.ops, "--private", testenv.FreeAddress(t)}, args...)
	r.cmd = exec.Command("millrace", args...)
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
	r.eventually("the banner", func() bool { return strings.Contains(r.stdout.String(), "└") })
	return r
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

// redisPID is the process id of its redis-server.
func (r *running) redisPID() int {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.data, "redis", "redis.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		r.t.Fatal(err)
	}
	return pid
}

func alive(pid int) bool { return strings.Contains(commandLine(pid), "redis-server") }

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

func TestAllStartsAndStops(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	begin := time.Now()
	r := startAll(t, data)
	// 3 s are promised; a machine that runs all tests at once under the race
	// detector gets more.
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the banner came after %s", took)
	} else {
		t.Logf("banner after %s", took.Round(time.Millisecond))
	}
	banner := r.stdout.String()
	_, rtmpPort, _ := net.SplitHostPort(r.rtmp)
	if !strings.Contains(banner, "rtmp://127.0.0.1:"+rtmpPort+"/live") || !keyLine.MatchString(banner) ||
		!strings.Contains(banner, "http://"+r.http+"/demo") {
		t.Errorf("the banner lacks something:\n%s", banner)
	}
	for url, want := range map[string]string{
		"http://" + r.http + "/api/v1/channels/demo": `"state":"offline"`,
		"http://" + r.http + "/demo":                 "<html",
		"http://" + r.http + "/hls/demo/index.m3u8":  `"code"`,
		"http://" + r.ops + "/healthz":               "ok",
		"http://" + r.ops + "/readyz":                "redis: ok\ns3: ok\ndatabase: ok\nprocess: ok\n",
		"http://" + r.ops + "/metrics":               "go_goroutines",
		"http://" + r.ops + "/debug/pprof/":          "goroutine",
	} {
		if _, body := r.get(url); !strings.Contains(body, want) {
			t.Errorf("GET %s = %.200s; want %q in it", url, body, want)
		}
	}
	if _, body := r.get("http://" + r.http + "/metrics"); strings.Contains(body, "go_goroutines") {
		t.Error("the public listener shows metrics")
	}
	pid := r.redisPID()
	if !alive(pid) {
		t.Fatal("its redis-server doesn't run")
	}
	r.stop()
	if alive(pid) {
		t.Error("its redis-server is left")
	}
	if strings.Contains(r.stderr.String(), keyLine.FindString(banner)) {
		t.Error("the log shows the stream key")
	}

	again := startAll(t, data)
	if b := again.stdout.String(); keyLine.MatchString(b) || !strings.Contains(b, "reset-key demo") {
		t.Errorf("the second banner should say how to reset the key:\n%s", b)
	}
	again.stop()
}

func TestChannelCommandsWhileAllRuns(t *testing.T) {
	r := startAll(t, t.TempDir())
	out, err := exec.Command("millrace", "channel", "create", "alice", "--data", r.data).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	key := lines[len(lines)-1]
	if keyLine.FindString(key) != key {
		t.Fatalf("the last line is %q, want the key alone", key)
	}
	db := openSocket(redisSocket(r.data))
	defer db.Close()
	if n, err := db.HLen(t.Context(), "millrace:stream-keys").Result(); err != nil || n != 2 {
		t.Errorf("Redis has %d keys, %v; want demo's and alice's at once", n, err)
	}
	if code, body := r.get("http://" + r.http + "/api/v1/channels/alice"); code != 200 {
		t.Errorf("the API doesn't know the channel: %d %s", code, body)
	}
	r.stop()
}

func TestSecondStartOnOneDataDirectory(t *testing.T) {
	r := startAll(t, t.TempDir())
	second := start(t, "all", r.data)
	<-second.ended
	want := fmt.Sprintf("data directory %s is in use by another millrace (process %d)", r.data, r.cmd.Process.Pid)
	if code := second.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(second.stderr.String(), want) {
		t.Errorf("status %d, %s; want 1 and %q", code, second.stderr, want)
	}
	if !r.ready() {
		t.Error("the first one isn't ready any more")
	}
	r.stop()
}

func TestRedisServerIsStartedAgain(t *testing.T) {
	r := startAll(t, t.TempDir())
	pid := r.redisPID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually("another redis-server", func() bool { return r.redisPID() != pid && r.ready() })
	r.stop()
}

func TestOrphanedRedisServer(t *testing.T) {
	for name, hung := range map[string]bool{"answers": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			r := startAll(t, t.TempDir())
			db := openSocket(redisSocket(r.data))
			if err := db.Set(t.Context(), "kept", "yes", 0).Err(); err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
			if err := r.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-r.ended
			pid := orphanRedis(t, r)
			if hung {
				if err := os.WriteFile(filepath.Join(r.data, "redis", "redis.pid"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			again := startAll(t, r.data)
			if alive(pid) || again.redisPID() == pid {
				t.Error("the orphan still runs")
			}
			db = openSocket(redisSocket(r.data))
			defer db.Close()
			if v, err := db.Get(t.Context(), "kept").Result(); err != nil || v != "yes" {
				t.Errorf("what was kept is %q, %v", v, err)
			}
			again.stop()
		})
	}
}

// A redis-server that hangs is killed and started again.
func TestHungRedisServer(t *testing.T) {
	r, err := newRedisChild(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.hangs = 1500 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan error, 1), make(chan error, 1)
	go func() { ended <- r.Run(ctx, ready) }()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	pid := r.orphanPID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	limit, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for now := pid; now == 0 || now == pid || r.ping(t.Context()) != nil; now = r.orphanPID() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("process %d hangs, and no other redis-server answers", pid)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A stale note of a process id that another instance's redis-server has now
// doesn't end that one.
func TestForeignRedisServer(t *testing.T) {
	other := startAll(t, t.TempDir())
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "redis"), 0o700); err != nil {
		t.Fatal(err)
	}
	pid := other.redisPID()
	if err := os.WriteFile(filepath.Join(data, "redis", "redis.pid"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startAll(t, data)
	if !alive(pid) || other.redisPID() != pid {
		t.Error("the other instance's redis-server was ended")
	}
	r.stop()
	other.stop()
}

// Whoever stops it while it starts gets no error and no warning.
func TestStoppedWhileItStarts(t *testing.T) {
	for _, after := range []time.Duration{10, 40, 80, 120, 160, 200, 250, 300, 400, 600} {
		r := start(t, "all", t.TempDir())
		<-time.After(after * time.Millisecond)
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		<-r.ended
		// Before it listens for signals the system's own answer is the right one.
		state := r.cmd.ProcessState
		if said := r.stderr.String(); state.Exited() && (state.ExitCode() != 0 || strings.Contains(said, "WARN") || strings.Contains(said, "ERROR")) {
			t.Errorf("stopped after %d ms: status %d\n%s", after, state.ExitCode(), said)
		}
	}
}

// A wrong bucket or key stops the start, and says what to do.
func TestWrongBucketOrKey(t *testing.T) {
	redis, c := testenv.StartRedis(t), testenv.BucketConfig(t)
	testenv.CreateBucket(t, c)
	for name, x := range map[string]struct{ bucket, key, secret, want string }{
		"bucket": {"no-such-bucket", c.AccessKey, c.SecretKey, "there is no bucket of that name: create it, or correct --s3-bucket"},
		"key":    {c.Bucket, "nobody", c.SecretKey, "S3 doesn't know the access key: check MILLRACE_S3_ACCESS_KEY"},
		"secret": {c.Bucket, c.AccessKey, "not-the-secret", "the secret key doesn't belong to the access key: check MILLRACE_S3_SECRET_KEY"},
	} {
		for _, role := range []string{"transcode", "edge"} {
			r := start(t, role, t.TempDir(), "--redis", redis.URL(), "--s3-endpoint", c.Endpoint,
				"--s3-bucket", x.bucket, "--s3-access-key", x.key, "--s3-secret-key", x.secret)
			<-r.ended
			said := r.stderr.String()
			if code := r.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said, x.want) || strings.Contains(said, x.secret) {
				t.Errorf("%s with a wrong %s: status %d; want 1 and %q in\n%s", role, name, code, x.want, said)
			}
		}
	}
}

// orphanRedis starts a redis-server on the data directory, as a killed millrace
// leaves one where the kernel doesn't end it.
func orphanRedis(t *testing.T, r *running) int {
	t.Helper()
	r.eventuallyEnded("the earlier redis-server", r.redisPID())
	dir := filepath.Join(r.data, "redis")
	cmd := exec.Command(testenv.Program(t, "redis-server"), "--port", "0", "--unixsocket", redisSocket(r.data),
		"--dir", dir, "--save", "", "--appendonly", "yes")
	child.Prepare(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // reaped when millrace ends it
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	c := &redisChild{dir: dir, socket: redisSocket(r.data)}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.awaitAnswer(ctx); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// eventuallyEnded waits for the end of a process that isn't ours to wait for.
func (r *running) eventuallyEnded(what string, pid int) {
	r.t.Helper()
	limit := time.After(5 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for alive(pid) {
		select {
		case <-limit:
			r.t.Fatalf("it hasn't ended: %s", what)
		case <-tick.C:
		}
	}
}

func TestKilledMillraceLeavesNothing(t *testing.T) {
	r := startAll(t, t.TempDir())
	pid := r.redisPID()
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	r.eventuallyEnded("its redis-server", pid)
}
