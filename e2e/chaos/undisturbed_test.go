//go:build chaos

package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/e2e/harness"
	"millrace/internal/jobs"
	"millrace/internal/objects"
	"millrace/internal/private"
	"millrace/internal/relay"
	"millrace/internal/seal"
	"millrace/internal/testenv"
)

// replaySpeeds are how much faster than it came a recorded log is given to the
// undisturbed worker. Where it couldn't keep up, and left rungs out, it gets it again.
var replaySpeeds = []float64{2, 1}

// recording is a broadcast's log as ingest served it to one more reader.
type recording struct {
	t         testing.TB
	broadcast string
	lease     uint64
	end       context.CancelFunc
	done      chan struct{}
	// pieces and err are the reader's until done.
	pieces []piece
	err    error
}

// piece is what one read gave, and how long after the start.
type piece struct {
	after time.Duration
	data  []byte
}

// record reads the live broadcast's log from its first mark until it is stopped.
func (c *cluster) record(ingest *harness.Server) *recording {
	t := c.t
	t.Helper()
	broadcast := c.broadcast()
	lease, err := c.redis.HGet(t.Context(), "millrace:channel:{demo}", "epoch").Uint64()
	if err != nil {
		t.Fatalf("the channel's lease: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &recording{t: t, broadcast: broadcast, lease: lease, end: cancel, done: make(chan struct{})}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ingest.Private+relay.Path(broadcast, 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.ingestWires) > 0 { // it is known by the address of its wire, and asked directly
		req.Host = c.ingestWires[slices.Index(c.ingests, ingest)].address
	}
	resp, err := testenv.PrivateClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the relay of %s: %s", broadcast, resp.Status)
	}
	t.Cleanup(r.stop)
	began := time.Now()
	go func() {
		defer close(r.done)
		defer resp.Body.Close()
		for {
			buf := make([]byte, 64<<10)
			n, err := resp.Body.Read(buf)
			if n > 0 {
				r.pieces = append(r.pieces, piece{time.Since(began), bytes.Clone(buf[:n])})
			}
			if err != nil {
				if ctx.Err() == nil {
					r.err = fmt.Errorf("the log broke off: %w", err)
				}
				return
			}
		}
	}()
	return r
}

// stop ends the recording. It may be called again.
func (r *recording) stop() {
	r.end()
	<-r.done
}

// serve answers as the ingest of the recorded broadcast: one grant for all of
// it, and the log as it came, only faster.
func (r *recording) serve(ctx context.Context, speed float64) (address string) {
	r.t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /claim/{broadcast}/{slot}", func(w http.ResponseWriter, req *http.Request) {
		grant, _ := json.Marshal(jobs.Grant{Epoch: jobs.Epoch{Lease: r.lease, Grant: 1}})
		_, _ = w.Write(append(grant, '\n'))
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, req.Body)
	})
	mux.HandleFunc("GET /relay/{broadcast}", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", relay.ContentType)
		began := time.Now()
		for _, p := range r.pieces {
			harness.Nap(req.Context(), time.Until(began.Add(time.Duration(float64(p.after)/speed))))
			if _, err := w.Write(p.data); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
		select { // the log isn't over: it was read for so long
		case <-ctx.Done():
		case <-req.Context().Done():
		}
	})
	l, err := net.Listen("tcp", testenv.FreeAddress(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	s := private.NewServer(testenv.Peers(r.t, "http://"+l.Addr().String()).Guard(mux))
	var group sync.WaitGroup
	group.Go(func() { _ = s.Serve(l) }) // ErrServerClosed
	r.t.Cleanup(func() {
		_ = s.Close()
		group.Wait()
	})
	return "http://" + l.Addr().String()
}

// undisturbed has a worker make the recorded broadcast in peace, and compares
// what it puts into a bucket of its own with what the row's workers put. It returns
// how many objects are the same, and the names of those that aren't.
func (c *trial) undisturbed(r *recording) (same int, differing []string) {
	r.stop()
	if r.err != nil {
		c.problem("%v", r.err)
		return 0, nil
	}
	wants := c.keys(c.bucket, r.broadcast)
	for _, speed := range replaySpeeds {
		bucket, all := c.replay(r, speed, wants)
		same, differing = c.compare(bucket, wants)
		if all {
			break
		}
	}
	if same == 0 {
		c.problem("there was nothing to compare with an undisturbed worker's")
	}
	return same, differing
}

// replay starts a worker with a Redis and a bucket of its own, gives it the
// recorded log, and waits for objects. It reports whether all came.
func (c *trial) replay(r *recording, speed float64, wants map[string]bool) (*objects.Bucket, bool) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server := startRedisServer(c.t)
	cfg := testenv.BucketConfig(c.t)
	bucket := testenv.CreateBucket(c.t, cfg)
	worker := harness.StartRole(c.t, "transcode", c.t.TempDir(), c.env, "--redis", "redis://"+server.address, "--s3-endpoint", cfg.Endpoint, "--s3-bucket", cfg.Bucket)
	defer worker.Kill()
	harness.AwaitReady(c.t, worker)
	job, _ := json.Marshal(jobs.Job{Broadcast: r.broadcast, Channel: "demo", Ingest: testenv.Sealed(c.t, seal.Ingest, "demo", r.serve(ctx, speed))})
	if err := server.client(c.t).XAdd(ctx, &redis.XAddArgs{Stream: jobs.Stream, Values: map[string]any{jobs.Field: job}}).Err(); err != nil {
		c.t.Fatal(err)
	}
	limit := 20 * time.Second
	if n := len(r.pieces); n > 0 {
		limit += time.Duration(float64(r.pieces[n-1].after) / speed)
	}
	err := harness.Until(ctx, limit, func() error {
		has := c.keys(bucket, r.broadcast)
		for key := range wants {
			if !has[key] {
				return fmt.Errorf("%s isn't there", key)
			}
		}
		return nil
	})
	if err != nil {
		c.t.Logf("the undisturbed worker, %g times as fast as the broadcast: %v\n%s", speed, err, harness.LastLines(worker.Log.String(), 8))
	}
	return bucket, err == nil
}

// compare returns how many objects are the same in the row's bucket and in
// another one, and the names of those that aren't.
func (c *trial) compare(bucket *objects.Bucket, wants map[string]bool) (same int, differing []string) {
	for key := range wants {
		name := strings.TrimPrefix(key, objects.Prefix(c.broadcastID))
		a, err := c.bucket.Get(context.Background(), key)
		b, err2 := bucket.Get(context.Background(), key)
		switch {
		case err != nil:
			differing = append(differing, fmt.Sprintf("%s: %v", name, err))
		case err2 != nil:
			differing = append(differing, name+" (never made)")
		case sha256.Sum256(a) != sha256.Sum256(b):
			differing = append(differing, name)
			c.keepFile(strings.ReplaceAll(name, "/", "-")+".undisturbed", b)
			c.keepFile(strings.ReplaceAll(name, "/", "-")+".stored", a)
		default:
			same++
		}
	}
	return same, differing
}

// keys are the names of a broadcast's objects in a bucket.
func (c *trial) keys(bucket *objects.Bucket, broadcast string) map[string]bool {
	found := make(map[string]bool)
	err := bucket.List(context.Background(), objects.Prefix(broadcast), func(keys []string) error {
		for _, key := range keys {
			found[key] = true
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}
