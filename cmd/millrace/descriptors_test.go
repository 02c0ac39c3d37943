package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whatever the limit on open files, all shares together leave a quarter of it (or
// what 1,000 broadcasts take), and each is something.
func TestDivide(t *testing.T) {
	for limit := 256; limit <= 1<<20; limit += limit / 5 {
		s := divide(limit, 0)
		kept := limit - s.public - s.rtmp - s.private - s.ops
		if kept < min(limit/4, keptAtMost) {
			t.Errorf("of %d files %d are kept: %+v", limit, kept, s)
		}
		if s.public < limit/2 && s.public < 65_536 {
			t.Errorf("of %d files viewers get %d", limit, s.public)
		}
		for _, n := range []int{s.publicSource, s.rtmp, s.rtmpSource, s.private, s.ops, s.fetches, 4 * s.stores} {
			if n < 6 {
				t.Errorf("of %d files a share is %d: %+v", limit, n, s)
			}
		}
		if s.publicSource > s.public/4 || s.rtmpSource > s.rtmp/4 {
			t.Errorf("of %d files one address gets more than a quarter: %+v", limit, s)
		}
	}
	if got, want := divide(1024, 8<<30), (shares{public: 544, publicSource: 136, rtmp: 128, rtmpSource: 32, private: 64, ops: 32, fetches: 25, stores: 8, redis: 16}); got != want {
		t.Errorf("1,024 files are divided as %+v, want %+v", got, want)
	}
}

// With many files and little memory, viewers' idle connections take a quarter of it.
func TestDivideMemory(t *testing.T) {
	if s := divide(1<<20, 2<<30); s.public != 8192 || s.publicSource != 2048 {
		t.Errorf("with 2 GiB viewers get %d, an address %d; want 8,192 and 2,048", s.public, s.publicSource)
	}
	if m := memoryLimit(); m < 64<<20 {
		t.Errorf("the memory is %d bytes", m)
	}
}

// The soft limit is raised to the hard one for ourselves; children get what we got.
func TestDescriptorLimit(t *testing.T) {
	if os.Getenv("MILLRACE_TEST_LIMIT") == "" {
		cmd := exec.Command("sh", "-c", `ulimit -Sn 256 && ulimit -Hn 1024 && exec "$0" -test.run="^$1$"`, os.Args[0], t.Name())
		cmd.Env = append(os.Environ(), "MILLRACE_TEST_LIMIT=1")
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, said)
		}
		return
	}
	if n, err := descriptorLimit(); err != nil || n < 1023 {
		t.Errorf("the limit is %d, %v; want 1,023 or 1,024", n, err)
	}
	if said, err := exec.Command("sh", "-c", "ulimit -n").Output(); err != nil || strings.TrimSpace(string(said)) != "256" {
		t.Errorf("a child may have %s files open, %v; want 256", said, err)
	}
}

// 1,200 connections that ask nothing any more, at a limit of 1,024 open files,
// from one address and from many, take nothing from anybody else.
func TestIdleConnectionsTakeNothing(t *testing.T) {
	r := startBy(t, []string{"sh", "-c", `ulimit -n 1024 && exec millrace "$@"`, "sh"}, "all", t.TempDir())
	r.awaitBanner()
	pid := r.redisPID()
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close() // most were closed by the other side
		}
	}()
	for i := range 1900 {
		from := "127.0.0.1"
		if i >= 1200 {
			from = fmt.Sprintf("127.0.%d.%d", 1+i%40, 1+i%200)
		}
		c := dialFrom(t, from, r.http)
		held = append(held, c)
		fmt.Fprintf(c, "GET /api/v1/channels HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatalf("newcomer %d got no answer: %v", i, err)
		} else {
			_ = resp.Body.Close()
		}
	}
	for _, address := range []string{r.rtmp, r.ops} { // silence there too
		for i := range 300 {
			held = append(held, dialFrom(t, fmt.Sprintf("127.0.3.%d", 1+i%40), address))
		}
	}
	for url, want := range map[string]string{
		"http://" + r.ops + "/healthz":          "ok",
		"http://" + r.ops + "/readyz":           "redis: ok\ns3: ok\ndatabase: ok\n",
		"http://" + r.http + "/demo":            "<html",
		"http://" + r.http + "/api/v1/channels": "[",
	} {
		if _, body := r.get(url); !strings.Contains(body, want) {
			t.Errorf("GET %s = %.200s; want %q in it", url, body, want)
		}
	}
	encoder := dialFrom(t, "127.0.4.1", r.rtmp)
	held = append(held, encoder)
	_, _ = encoder.Write(append([]byte{3}, make([]byte, 1536)...)) // RTMP's C0 and C1
	_ = encoder.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := encoder.Read(make([]byte, 1)); n != 1 {
		t.Errorf("an encoder's handshake isn't answered: %v", err)
	}
	if entries, err := os.ReadDir("/proc/" + strconv.Itoa(r.cmd.Process.Pid) + "/fd"); err != nil || len(entries) > 1024-128 {
		t.Errorf("%d files are open, %v: few are kept for FFmpeg, S3 and the spool", len(entries), err)
	}
	if now := r.redisPID(); now != pid || !alive(pid) {
		t.Errorf("redis-server was process %d and is %d now", pid, now)
	}
	r.stop()
}

// inProcessOfItsOwn runs the test that calls it in another process, since limits
// are those of a process, and is true there.
func inProcessOfItsOwn(t *testing.T) bool {
	t.Helper()
	const mark = "MILLRACE_TEST_OF_ITS_OWN"
	if os.Getenv(mark) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"=1")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, said)
	}
	return false
}

// takeDescriptors lowers the limit on open files, and opens as many as there may be.
func takeDescriptors(t *testing.T) (giveBack func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 100, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	var taken []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		taken = append(taken, f)
	}
	return func() {
		for _, f := range taken {
			_ = f.Close()
		}
	}
}

func dialFrom(t *testing.T, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	c, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
