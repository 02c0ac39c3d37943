package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace/internal/child"
	"millrace/internal/testenv"
)

// suite is what the tests share: the binary, and files made once.
type suite struct {
	tests interface{ Run() int }
}

// shared is set before the tests run; made is guarded by mu.
var shared struct {
	dir    string
	binary string

	mu   sync.Mutex
	made map[string]*sync.Once
}

// Run builds the binary, runs the tests and removes what they shared.
func (s suite) Run() int {
	dir, err := os.MkdirTemp("", "millrace-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared.dir, shared.binary, shared.made = dir, filepath.Join(dir, "millrace"), make(map[string]*sync.Once)
	build := exec.Command("go", "build", "-o", shared.binary, "millrace/cmd/millrace")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	code := s.tests.Run()
	client.CloseIdleConnections()
	return code
}

// client is for all requests of the tests.
var client = &http.Client{
	Timeout:   time.Minute,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second},
}

// output collects what a process prints. It is safe for concurrent use.
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

// program is a child process of a test. It ends with the test.
type program struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	// out and log are its standard output and error.
	out, log output
	// ended is closed when it has ended; err is its result then.
	ended chan struct{}
	err   error
}

// run starts a program. dir and env may be empty.
func run(t testing.TB, name, path string, env []string, args ...string) *program {
	t.Helper()
	p := &program{t: t, name: name, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.log
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.WaitDelay = 5 * time.Second
	child.Prepare(p.cmd, syscall.SIGKILL)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			p.keepLog()
		}
	})
	return p
}

// running reports whether the program hasn't ended.
func (p *program) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// interrupt is Ctrl-C.
func (p *program) interrupt() { _ = p.cmd.Process.Signal(os.Interrupt) }

// kill is kill -9, of this process alone.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // "process already finished"
	<-p.ended
}

// wait waits for the end.
func (p *program) wait(limit time.Duration) error {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.err
	case <-time.After(limit):
		p.t.Fatalf("%s hasn't ended after %s", p.name, limit)
		return nil
	}
}

// keepLog saves what the program said for whoever looks for the fault.
func (p *program) keepLog() {
	text := p.log.String()
	name := regexp.MustCompile(`[^A-Za-z0-9_.-]+`).ReplaceAllString(fmt.Sprintf("%s-%s-%d", p.t.Name(), p.name, p.cmd.Process.Pid), "_") + ".log"
	if err := os.MkdirAll("output", 0o755); err == nil {
		_ = os.WriteFile(filepath.Join("output", name), []byte(text), 0o644)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if n := len(lines); n > 40 {
		lines = lines[n-40:]
	}
	p.t.Logf("the end of what %s said (all of it: e2e/output/%s):\n%s", p.name, name, strings.Join(lines, "\n"))
}

// server is a running millrace.
type server struct {
	*program
	data string
	// Addresses; http is a base URL.
	http, rtmp, ops, private string
	// key is that of the channel demo, if this start made it.
	key string

	role      string
	env, args []string
	// binary is another build than the shared one; empty for that.
	binary string
}

// startAll starts `millrace all` on a new data directory.
func startAll(t testing.TB, args ...string) *server {
	t.Helper()
	return startOn(t, t.TempDir(), args...)
}

// startOn starts `millrace all` on a data directory and waits until it has said
// where to publish and watch.
func startOn(t testing.TB, data string, args ...string) *server {
	t.Helper()
	// Tests that aren't about the grace period have no time for it.
	s := startRole(t, "all", data, nil, append([]string{"--grace", "2s"}, args...)...)
	s.awaitBanner(t)
	return s
}

// again starts `millrace all` another time, on the same data and addresses.
func (s *server) again(t testing.TB) *server {
	t.Helper()
	n := *s
	n.key = ""
	n.start(t)
	n.awaitBanner(t)
	return &n
}

// awaitBanner waits for what is printed at the start, and reads the key there.
func (s *server) awaitBanner(t testing.TB) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		if !s.running() {
			t.Fatalf("millrace ended: %v\n%s", s.err, s.log.String())
		}
		if !strings.Contains(s.out.String(), "Ctrl-C") {
			return fmt.Errorf("no banner: %q", s.out.String())
		}
		return nil
	})
	if m := regexp.MustCompile(`Stream key\s+(live_\S+)`).FindStringSubmatch(s.out.String()); m != nil {
		s.key = m[1]
	}
}

// startRole starts one role of millrace on free ports.
func startRole(t testing.TB, role, data string, env []string, args ...string) *server {
	t.Helper()
	s := &server{
		data: data, rtmp: testenv.FreeAddress(t), ops: testenv.FreeAddress(t), private: testenv.FreeAddress(t),
		role: role, env: env,
	}
	web := testenv.FreeAddress(t)
	s.http = "http://" + web
	s.args = append([]string{
		role, "--data", data, "--http", web, "--rtmp", s.rtmp, "--ops", s.ops, "--private", s.private,
		"--drain", "0s", // args may say otherwise
	}, args...)
	s.start(t)
	return s
}

func (s *server) start(t testing.TB) {
	t.Helper()
	s.program = run(t, "millrace-"+s.role, cmp.Or(s.binary, shared.binary), s.env, s.args...)
	t.Cleanup(s.stop)
}

// stop is Ctrl-C and the end within a generous bound.
func (s *server) stop() {
	if !s.running() {
		return
	}
	s.interrupt()
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		s.t.Errorf("millrace doesn't end after Ctrl-C")
		s.kill()
	}
}

// channel makes a channel and returns its stream key.
func (s *server) channel(name string, args ...string) string {
	s.t.Helper()
	return createChannel(s.t, name, append([]string{"--data", s.data}, args...)...)
}

func createChannel(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(shared.binary, append([]string{"channel", "create", name}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("channel create %s: %v\n%s", name, err, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// playlist is the address of a channel's multivariant playlist.
func (s *server) playlist(channel string) string { return s.http + "/hls/" + channel + "/index.m3u8" }

// awaitLive waits until a channel plays a broadcast other than the one before,
// if one is named, and has a complete segment of it. It returns the broadcast.
func (s *server) awaitLive(channel, before string) string {
	s.t.Helper()
	var now struct{ Broadcast, State string }
	eventually(s.t, 30*time.Second, func() error {
		a, err := fetch(s.t.Context(), client, s.http+"/api/v1/channels/"+channel)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(a.body, &now); err != nil || now.State != "live" || now.Broadcast == before {
			return fmt.Errorf("the channel isn't live: %d %s", a.status, a.body)
		}
		a, err = fetch(s.t.Context(), client, s.playlist(channel))
		if err != nil || !strings.Contains(string(a.body), now.Broadcast) {
			return fmt.Errorf("the playlist isn't that of %s: %v %d %s", now.Broadcast, err, a.status, a.body)
		}
		return nil
	})
	waitSegments(s.t, s.playlist(channel), 1)
	return now.Broadcast
}

// metric sums up a metric over its labels, or over those with a label that
// contains the text. A metric that isn't there is 0.
func (s *server) metric(name, label string) float64 {
	s.t.Helper()
	text := string(get(s.t, "http://"+s.ops+"/metrics").body)
	sum := 0.0
	for line := range strings.Lines(text) {
		var value float64
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' || !strings.Contains(rest, label) {
			continue
		}
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(strings.TrimSpace(rest), ' ')+1:], &value); err == nil {
			sum += value
		}
	}
	return sum
}

// waitSegments waits until every rendition lists so many complete segments.
func waitSegments(t testing.TB, address string, n int) {
	t.Helper()
	eventually(t, 40*time.Second, func() error {
		a, err := fetch(t.Context(), client, address)
		if err != nil {
			return err
		}
		if a.status != http.StatusOK {
			return fmt.Errorf("GET %s: %d %s", address, a.status, a.body)
		}
		m, err := parseMultivariant(string(a.body))
		if err != nil {
			t.Fatal(err)
		}
		for _, uri := range m.renditions() {
			media, err := parseMedia(string(get(t, strings.TrimSuffix(address, "index.m3u8")+uri).body))
			if err != nil {
				t.Fatal(err)
			}
			if len(media.Segments) == 0 || media.Segments[len(media.Segments)-1].Sequence < uint64(n) {
				return fmt.Errorf("%s has %d segments, want %d", uri, len(media.Segments), n)
			}
		}
		return nil
	})
}

// answer is a response with its whole body.
type answer struct {
	status int
	header http.Header
	body   []byte
	proto  string
	took   time.Duration
}

// fetch is a GET whose body is read.
func fetch(ctx context.Context, c *http.Client, url string, header ...string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	start := time.Now()
	resp, err := c.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("GET %s: %w", url, err)
	}
	return answer{resp.StatusCode, resp.Header, body, resp.Proto, time.Since(start)}, nil
}

// get fetches what must be there.
func get(t testing.TB, url string, header ...string) answer {
	t.Helper()
	a, err := fetch(t.Context(), client, url, header...)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", url, a.status, a.body)
	}
	return a
}

// eventually calls try until it returns nil; the test fails with its last error.
func eventually(t testing.TB, limit time.Duration, try func() error) {
	t.Helper()
	if err := until(t.Context(), limit, try); err != nil {
		t.Fatalf("after %s: %v", limit, err)
	}
}

// until calls try until it returns nil, and returns its last error.
func until(ctx context.Context, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// in returns the server for a subtest.
func (s *server) in(t testing.TB) *server {
	p := *s
	p.program = &program{t: t, name: s.name, cmd: s.cmd, ended: s.ended}
	return &p
}
