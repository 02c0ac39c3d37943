package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/internal/testenv"
)

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
		"http://" + r.ops + "/readyz":                "redis: ok\ns3: ok\ndatabase: ok\ndisk: ok\nprocess: ok\n",
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
	if _, body := r.get("http://" + r.http + "/api/v1/channels"); body != `{"channels":[]}`+"\n" {
		t.Errorf("anybody can list channels that aren't live: %s", body)
	}
	for _, c := range []struct{ command, says string }{
		{"kick", "Channel alice has no broadcast; nobody can begin one for 30s. To keep everybody out: millrace channel disable alice\n"},
		{"delete", "Channel alice is deleted, with its stream key. What is stored of its broadcasts is deleted when their retention is over.\n"},
	} {
		out, err := exec.Command("millrace", "channel", c.command, "alice", "--data", r.data).Output()
		if err != nil || string(out) != c.says {
			t.Errorf("%s: %q, %v; want %q", c.command, out, err, c.says)
		}
	}
	r.eventually("the channel is gone", func() bool {
		code, _ := r.get("http://" + r.http + "/api/v1/channels/alice")
		return code == 404
	})
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

func TestLongDataDirectory(t *testing.T) {
	data := filepath.Join(t.TempDir(), strings.Repeat("d", 100))
	r := startAll(t, data)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(redisSocket(data))) })
	r.stop()
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

func TestKilledMillraceLeavesNothing(t *testing.T) {
	r := startAll(t, t.TempDir())
	pid := r.redisPID()
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	r.eventuallyEnded("its redis-server", pid)
}

func TestOneServiceEach(t *testing.T) {
	redis := testenv.StartRedis(t)
	bucket := testenv.BucketConfig(t)
	testenv.CreateBucket(t, bucket)
	common := []string{"--redis", redis.URL(), "--s3-bucket", bucket.Bucket, "--s3-endpoint", bucket.Endpoint,
		"--s3-access-key", bucket.AccessKey, "--s3-secret-key", bucket.SecretKey, "--drain", "0s"}
	var all []*running
	roles := []string{"api", "edge", "transcode", "ingest"}
	for _, role := range roles {
		all = append(all, start(t, role, t.TempDir(), common...))
	}
	for _, r := range all {
		r.eventually("it is ready", r.ready)
	}
	if code, _ := all[0].get("http://" + all[0].http + "/api/v1/channels"); code != 200 {
		t.Errorf("api answers %d", code)
	}
	if code, body := all[1].get("http://" + all[1].http + "/hls/demo/index.m3u8"); code != 404 || !strings.Contains(body, `"code"`) {
		t.Errorf("edge answers %d %s", code, body)
	}
	redis.Stop()
	for i, role := range roles {
		r := all[i]
		if role == "edge" { // what is live goes on
			_, body := r.get("http://" + r.ops + "/readyz")
			if !r.ready() || strings.Contains(body, "redis: ok") {
				t.Errorf("an edge without Redis should say so and stay ready: %s", body)
			}
			continue
		}
		r.eventually("it is not ready without Redis", func() bool { return !r.ready() })
	}
	redis.Start()
	for _, r := range all {
		r.eventually("it is ready again", r.ready)
	}
	for _, r := range all {
		r.stop()
	}
}

// TestAnEdgeDrains asks an edge to end: a load balancer must see it at once,
// while viewers are still served, over connections that close. A second signal
// doesn't wait.
func TestAnEdgeDrains(t *testing.T) {
	redis := testenv.StartRedis(t)
	bucket := testenv.BucketConfig(t)
	testenv.CreateBucket(t, bucket)
	run := func(drain string) *running {
		r := start(t, "edge", t.TempDir(), "--redis", redis.URL(), "--s3-bucket", bucket.Bucket, "--s3-endpoint", bucket.Endpoint,
			"--s3-access-key", bucket.AccessKey, "--s3-secret-key", bucket.SecretKey, "--drain", drain)
		r.eventually("it is ready", r.ready)
		return r
	}
	r := run("10m")
	end := func() {
		t.Helper()
		if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	end()
	r.eventually("it is not ready", func() bool { return !r.ready() })
	if code, body := r.get("http://" + r.ops + "/readyz"); code != 503 || !strings.Contains(body, "process: "+errStopping.Error()) {
		t.Errorf("/readyz = %d %s; want 503 and that it stops", code, body)
	}
	resp, err := http.Get("http://" + r.http + "/hls/demo/index.m3u8")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 404 || !resp.Close {
		t.Errorf("while it drains it answers %s, closing %t; want 404 and a connection that closes", resp.Status, resp.Close)
	}
	end()
	select {
	case <-r.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on after the second signal")
	}

	r = run("100ms")
	end()
	select {
	case <-r.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on after its drain")
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %v", r.cmd.ProcessState)
	}
}
