package objects_test

import (
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/internal/objects"
	"millrace/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// What is wrong with a bucket is said at the start, with what to do about it.
func TestCheckSaysWhatToDo(t *testing.T) {
	good := testenv.BucketConfig(t)
	testenv.CreateBucket(t, good)
	for name, c := range map[string]struct {
		change func(*objects.Config)
		want   string
	}{
		"all is well":  {func(*objects.Config) {}, ""},
		"no bucket":    {func(c *objects.Config) { c.Bucket = "no-such-bucket" }, "create it, or correct --s3-bucket"},
		"unknown key":  {func(c *objects.Config) { c.AccessKey = "nobody" }, "check MILLRACE_S3_ACCESS_KEY"},
		"wrong secret": {func(c *objects.Config) { c.SecretKey = "wrong" }, "check MILLRACE_S3_SECRET_KEY"},
		"nobody there": {func(c *objects.Config) { c.Endpoint = "http://" + testenv.FreeAddress(t) }, "check --s3-endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			config := good
			c.change(&config)
			b, err := objects.Open(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			err = b.Check(t.Context())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), testenv.S3SecretKey) {
				t.Errorf("the error has the secret: %v", err)
			}
		})
	}
}

// Calls end in time when S3 hangs, and all of a large object gets through when it is slow.
func TestCallsAreBounded(t *testing.T) {
	c := testenv.BucketConfig(t)
	testenv.CreateBucket(t, c)
	proxy := testenv.Proxy(t, strings.TrimPrefix(c.Endpoint, "http://"))
	c.Endpoint, c.Timeout = "http://"+proxy.Address, 500*time.Millisecond
	b, err := objects.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	proxy.Hang()
	for name, call := range map[string]func() error{
		"put":    func() error { return b.Put(t.Context(), "l", []byte("v")) },
		"get":    func() error { _, err := b.Get(t.Context(), "k"); return err },
		"exists": func() error { _, err := b.Exists(t.Context(), "k"); return err },
		"list":   func() error { return b.List(t.Context(), "", func([]string) error { return nil }) },
		"delete": func() error { return b.Delete(t.Context(), []string{"k"}) },
	} {
		begin := time.Now()
		if err := call(); err == nil || time.Since(begin) > 5*time.Second {
			t.Errorf("%s while S3 hangs: %v after %s", name, err, time.Since(begin))
		}
	}
	// Longer than the timeout, at a pace above the slowest.
	proxy.Slow(700 * time.Millisecond)
	if err := b.Put(t.Context(), "large", make([]byte, 200<<10)); err != nil {
		t.Errorf("a large object while S3 is slow: %v", err)
	}
	proxy.Restore()
	if got, err := b.Get(t.Context(), "large"); err != nil || len(got) != 200<<10 {
		t.Errorf("it has %d bytes, %v", len(got), err)
	}
}

// A system's own certificate authorities, named as for other programs that use S3,
// are taken.
func TestCertificateAuthoritiesOfTheEnvironment(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	pemed := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, pemed, 0o600); err != nil {
		t.Fatal(err)
	}
	c := objects.Config{Endpoint: s.URL, Bucket: "b", AccessKey: "a", SecretKey: "s"}
	t.Setenv("AWS_CA_BUNDLE", file)
	b, err := objects.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.CloseIdle()
	if _, err := b.Get(t.Context(), "x"); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("a server with a certificate of that authority: %v, want that there is no such object", err)
	}
}

// Calls wait for a connection where there is a bound on them.
func TestConnectionsAreBounded(t *testing.T) {
	var open, most atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "x")
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			most.Store(max(most.Load(), open.Add(1)))
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	defer server.Close()
	b, err := objects.Open(t.Context(), objects.Config{
		Endpoint: server.URL, Bucket: "b", AccessKey: "a", SecretKey: "s", Connections: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.CloseIdle()
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			if _, err := b.Get(t.Context(), "key"); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if n := most.Load(); n > 2 {
		t.Errorf("%d connections at a time, want 2", n)
	}
}
