package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// rig is a running storage.
type rig struct {
	*Storage
	t    *testing.T
	stop func()
}

// startStorage runs a storage until the test's end or stop.
func startStorage(t *testing.T, c Config) *rig {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.SpoolDir == "" {
		c.SpoolDir = t.TempDir()
	}
	c.Registerer = prometheus.NewRegistry()
	r := &rig{Storage: New(c), t: t}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// waitUntil waits until a condition on the uploader, whose lock is held, is true.
func (r *rig) waitUntil(what string, is func(*uploader) bool) {
	r.t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		r.uploader.mu.Lock()
		ok, changed := is(r.uploader), r.uploader.changed
		r.uploader.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			r.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func (r *rig) waitUploaded() {
	r.t.Helper()
	r.waitUntil("all is uploaded", func(u *uploader) bool { return u.empty() })
}

// awaitSafe waits until so many segments are safe: that is noted after the upload,
// by another goroutine.
func awaitSafe(t *testing.T, p *Writer, n uint64) {
	t.Helper()
	testenv.Eventually(t, 30*time.Second, func() error {
		if s := p.Safe(); s != n {
			return fmt.Errorf("safe is %d, want %d", s, n)
		}
		return nil
	})
}

func (r *rig) waitSpooled() {
	r.t.Helper()
	r.waitUntil("all is in the spool", func(u *uploader) bool {
		for _, it := range u.items {
			if !it.onDisk() {
				return false
			}
		}
		return true
	})
}

// publish publishes a segment of two parts.
func publish(t *testing.T, p *Writer, rendition string, sequence uint64) {
	t.Helper()
	if err := p.Part(partEntry(rendition, sequence, 0), partData(rendition, sequence, 0)); err != nil {
		t.Error(err)
	}
	if err := p.Finish(partEntry(rendition, sequence, 1), partData(rendition, sequence, 1), segmentEntry(rendition, sequence)); err != nil {
		t.Error(err)
	}
}

func wholeData(rendition string, sequence uint64) string {
	return string(partData(rendition, sequence, 0)) + string(partData(rendition, sequence, 1))
}

// readIndex waits until a broadcast's index has n entries.
func readIndex(t *testing.T, db redis.UniversalClient, broadcast string, n int) []index.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var entries []index.Entry
	for last := "0"; len(entries) < n; {
		got, err := db.XRead(ctx, &redis.XReadArgs{Streams: []string{index.StreamKey(broadcast), last}, Block: 5 * time.Second}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			t.Fatalf("the index has %d entries, %d are expected: %v", len(entries), n, err)
		}
		for _, m := range got[0].Messages {
			e, err := index.Parse([]byte(m.Values[index.Field].(string)))
			if err != nil {
				t.Fatal(err)
			}
			entries, last = append(entries, e), m.ID
		}
	}
	return entries
}

// faultyS3 stands before an S3 server and answers badly when told to.
type faultyS3 struct {
	// fault is "", "503" or "hang".
	fault atomic.Pointer[string]
	// refused gets a value when a request was answered badly.
	refused chan struct{}
	to      *httputil.ReverseProxy
}

func (f *faultyS3) set(fault string) { f.fault.Store(&fault) }

func (f *faultyS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault := *f.fault.Load()
	if fault == "" {
		f.to.ServeHTTP(w, r)
		return
	}
	if fault == "hang" {
		var b [1 << 10]byte
		for {
			if _, err := r.Body.Read(b[:]); err != nil {
				break
			}
		}
		<-r.Context().Done()
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	select {
	case f.refused <- struct{}{}:
	default:
	}
}

// newFaultyS3 returns an empty bucket behind a faultyS3 that doesn't listen
// yet: start lets it.
func newFaultyS3(t *testing.T) (b *objects.Bucket, f *faultyS3, start func()) {
	t.Helper()
	c := testenv.BucketConfig(t)
	direct, err := objects.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := direct.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(c.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	f = &faultyS3{refused: make(chan struct{}, 1), to: &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
	}}
	f.set("")
	c.Endpoint, c.Timeout = "http://"+testenv.FreeAddress(t), 500*time.Millisecond
	if b, err = objects.Open(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return b, f, func() {
		t.Helper()
		l, err := net.Listen("tcp", strings.TrimPrefix(c.Endpoint, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(f)
		s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(func() {
			s.CloseClientConnections()
			s.Close()
			transport.CloseIdleConnections()
		})
	}
}

// value reads a counter.
func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetCounter().GetValue()
}
