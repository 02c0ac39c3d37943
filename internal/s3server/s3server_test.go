package s3server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"millrace/internal/objects"
	"millrace/internal/s3server"
	"millrace/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.Main(m,
		// The HTTP library has a clock, and looks every 10 s whether it is to end.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// lines is a log to read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// It serves what Millrace needs, its faults are lines of our log and nothing else, and
// it ends when it is asked to.
func TestServer(t *testing.T) {
	t.Chdir(t.TempDir()) // it changes the directory itself
	stderr := os.Stderr
	defer func() { os.Stderr = stderr }()
	printed, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer printed.Close()
	os.Stderr = printed // versitygw prints there by itself

	var log lines
	c := s3server.Config{
		Dir: t.TempDir(), Address: testenv.FreeAddress(t), AccessKey: "key", SecretKey: "secretsecret",
		Log: slog.New(slog.NewJSONHandler(&log, nil)),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s3server.Run(ctx, c) }()
	testenv.Eventually(t, 20*time.Second, func() error {
		conn, err := net.Dial("tcp", c.Address)
		if err == nil {
			conn.Close()
		}
		return err
	})
	bucket, err := objects.Open(ctx, objects.Config{Endpoint: "http://" + c.Address, Bucket: "media", AccessKey: c.AccessKey, SecretKey: c.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Create(ctx); err != nil {
		t.Fatal(err)
	}
	if err := bucket.Check(ctx); err != nil {
		t.Error(err)
	}

	// A file lies where the server makes its directory of unfinished objects.
	unfinished := filepath.Join(c.Dir, "media", ".sgwtmp")
	if err := os.RemoveAll(unfinished); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unfinished, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := bucket.Put(ctx, "x", []byte("x")); err == nil {
		t.Error("the fault has no effect: nothing is tested")
	}
	cancel()
	bucket.CloseIdle()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	var line struct{ Level, Msg, Request, Err string }
	if err := json.Unmarshal(log.buf.Bytes(), &line); err != nil || line.Level != "WARN" || line.Request != "put" || line.Err == "" {
		t.Errorf("the log is %q, %v; want one warning about a put", log.buf.String(), err)
	}
	if b, err := os.ReadFile(printed.Name()); err != nil || len(b) != 0 {
		t.Errorf("on standard error stands %q, %v", b, err)
	}
}
