package harness

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/e2e/hls"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// Fleet is every service in a process of its own.
type Fleet struct {
	t                testing.TB
	redis            string
	Bucket           *objects.Bucket
	API, Edge        *Server
	Ingests, Workers []*Server
	Key              string // that of the channel demo
	env, args        []string
}

// StartFleet starts the services and makes the channel demo. args are those of
// all services, workers those of each worker.
func StartFleet(t testing.TB, ingests int, args []string, workers ...[]string) *Fleet {
	t.Helper()
	f := &Fleet{t: t, redis: testenv.StartRedis(t).URL()}
	cfg := testenv.BucketConfig(t)
	var err error
	if f.Bucket, err = objects.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := f.Bucket.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.env = []string{"MILLRACE_S3_ACCESS_KEY=" + cfg.AccessKey, "MILLRACE_S3_SECRET_KEY=" + cfg.SecretKey}
	f.args = append([]string{"--redis", f.redis, "--s3-endpoint", cfg.Endpoint, "--s3-bucket", cfg.Bucket}, args...)
	f.API, f.Edge = f.start("api"), f.start("edge")
	for range ingests {
		f.Ingests = append(f.Ingests, f.start("ingest"))
	}
	for _, own := range workers {
		f.Workers = append(f.Workers, f.start("transcode", own...))
	}
	for _, s := range append([]*Server{f.API, f.Edge}, append(f.Ingests, f.Workers...)...) {
		AwaitReady(t, s)
	}
	f.Key = CreateChannel(t, "demo", "--data", f.API.Data, "--redis", f.redis)
	return f
}

func (f *Fleet) start(role string, own ...string) *Server {
	f.t.Helper()
	return StartRole(f.t, role, f.t.TempDir(), f.env, append(f.args[:len(f.args):len(f.args)], own...)...)
}

// Busy returns the worker that makes the broadcast, and another one.
func (f *Fleet) Busy() (busy, other *Server) {
	f.t.Helper()
	for i, w := range f.Workers {
		if w.Metric("millrace_transcode_broadcasts", "") > 0 {
			return w, f.Workers[(i+1)%len(f.Workers)]
		}
	}
	f.t.Fatal("no worker works")
	return nil, nil
}

// State asks api for the channel demo.
func (f *Fleet) State() (state, broadcast string) {
	f.t.Helper()
	return channelState(f.t, f.API, "demo")
}

// CheckStored waits until S3 has what the reader got, byte by byte.
func (f *Fleet) CheckStored(broadcast string, r *hls.Reader) {
	f.t.Helper()
	Eventually(f.t, 30*time.Second, func() error {
		for _, x := range r.Renditions {
			for _, s := range x.List() {
				epoch, rest, _ := strings.Cut(s.URI, ".")
				key := objects.Prefix(broadcast) + epoch + "/" + x.Name + "/" + rest
				stored, err := f.Bucket.Get(f.t.Context(), key)
				if err != nil {
					return fmt.Errorf("%s, segment %d: %w", x.Name, s.Sequence, err)
				}
				if !bytes.Equal(stored, s.Data) {
					f.t.Fatalf("%s, segment %d: S3 has %d bytes that aren't the %d that viewers got", x.Name, s.Sequence, len(stored), len(s.Data))
				}
			}
		}
		return nil
	})
}

// StoredSegments counts a broadcast's segments in S3.
func (f *Fleet) StoredSegments(broadcast string) int {
	f.t.Helper()
	n := 0
	err := f.Bucket.List(f.t.Context(), objects.Prefix(broadcast), func(keys []string) error {
		for _, key := range keys {
			if strings.HasSuffix(key, ".m4s") {
				n++
			}
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// Terminate asks a service to end, and waits until it has, by itself and well.
func Terminate(t testing.TB, s *Server, limit time.Duration) {
	t.Helper()
	if err := s.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(limit); err != nil {
		t.Errorf("%s ended with %v", s.Name, err)
	}
}
