package transcode

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/objects"
	"millrace/internal/relay"
	"millrace/internal/seal"
	"millrace/internal/testenv"
	"millrace/transcode/encode"
	"millrace/transcode/transcodetest"
)

// source serves a recorded log by the contracts of relay and claims, at the
// pace of a live broadcast.
type source struct {
	t      *testing.T
	log    *transcodetest.Log
	server *httptest.Server
	began  time.Time
	// oldest is the first segment that the log has.
	oldest uint64
	// told, where it is set, is closed before the end mark may be sent, or the mark of a
	// segment after withheld, where that is set.
	told     chan struct{}
	withheld uint64
	// granting, where it is set, is closed before a grant is answered.
	granting chan struct{}
	// cut, where it is set, tells whether a reader that asked for a segment is cut
	// off at a mark.
	cut func(from, mark uint64) bool

	// open is the newest segment whose mark was sent: nobody can have finished it.
	open atomic.Uint64

	mu     sync.Mutex
	grants []jobs.Grant // for the claims to come
	claims []*testClaim
	dead   chan struct{}
}

// testClaim is a claim at a source.
type testClaim struct {
	address string
	grant   jobs.Grant
	orders  chan jobs.Order
	mu      sync.Mutex
	last    jobs.Progress
	over    chan struct{}
}

func (c *testClaim) progress() jobs.Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// startSource begins a broadcast of which so much is past already.
func startSource(t *testing.T, l *transcodetest.Log, past time.Duration) *source {
	t.Helper()
	s := &source{t: t, log: l, began: time.Now().Add(-past), dead: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /relay/{broadcast}", s.relay)
	mux.HandleFunc("POST /claim/{broadcast}/{slot}", s.claim)
	s.server = testenv.PrivateServer(t, mux)
	t.Cleanup(func() {
		s.die()
		s.server.Close()
	})
	return s
}

// die breaks all connections and answers no more.
func (s *source) die() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.dead:
		return
	default:
	}
	close(s.dead)
	_ = s.server.Listener.Close()
}

func (s *source) relay(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		s.t.Error(err)
	}
	if from < s.oldest {
		w.Header().Set(relay.OldestHeader, strconv.FormatUint(s.oldest, 10))
		w.WriteHeader(http.StatusGone)
		return
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(relay.Header())
	control := http.NewResponseController(w)
	first := s.log.Events[s.log.Marks[0]].Mark.Start
	at := first
	for _, e := range s.log.Newest(from, first+media.TicksOf(time.Since(s.began))) {
		switch {
		case e.Mark != nil:
			at = e.Mark.Start
		case e.Unit != nil:
			at = e.Unit.DTS
		}
		if e.Mark != nil && s.cut != nil {
			_ = control.Flush()
			if s.cut(from, e.Mark.Sequence) {
				panic(http.ErrAbortHandler)
			}
		}
		if e.Mark != nil && s.told != nil && (e.Mark.Kind == relay.End || s.withheld > 0 && e.Mark.Sequence > s.withheld) {
			_ = control.Flush()
			<-s.told
		}
		due := s.began.Add((at - first).Duration())
		if d := time.Until(due); d > 0 {
			if control.Flush() != nil {
				return
			}
			select {
			case <-time.After(d):
			case <-s.dead:
				panic(http.ErrAbortHandler)
			case <-r.Context().Done():
				return
			}
		}
		if e.Mark != nil {
			s.open.Store(max(s.open.Load(), e.Mark.Sequence))
		}
		if _, err := w.Write(transcodetest.Encode(s.t, e)); err != nil {
			return
		}
	}
	if last := s.log.Events[len(s.log.Events)-1]; last.Mark != nil && last.Mark.Kind == relay.Pause {
		return // moved to another ingest
	}
	_ = control.Flush()
	select {
	case <-s.dead:
		panic(http.ErrAbortHandler)
	case <-r.Context().Done():
	}
}

func (s *source) claim(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if len(s.grants) == 0 {
		s.mu.Unlock()
		http.Error(w, "the slot is taken", http.StatusConflict)
		return
	}
	c := &testClaim{address: r.Header.Get(jobs.AddressHeader), grant: s.grants[0], orders: make(chan jobs.Order, 1), over: make(chan struct{})}
	s.grants = s.grants[1:]
	s.claims = append(s.claims, c)
	s.mu.Unlock()
	defer close(c.over)
	control := http.NewResponseController(w)
	out := json.NewEncoder(w)
	if s.granting != nil {
		<-s.granting
	}
	_ = out.Encode(c.grant)
	_ = control.Flush()
	read := make(chan struct{})
	go func() {
		defer close(read)
		in := json.NewDecoder(r.Body)
		for {
			var p jobs.Progress
			if in.Decode(&p) != nil {
				return
			}
			c.mu.Lock()
			c.last = p
			c.mu.Unlock()
		}
	}()
	for {
		select {
		case o := <-c.orders:
			_ = out.Encode(o)
			_ = control.Flush()
		case <-read:
			return
		case <-s.dead:
			panic(http.ErrAbortHandler)
		}
	}
}

// offer offers the broadcast under a grant and waits until a worker has it.
func (s *source) offer(db redis.UniversalClient, g jobs.Grant) *testClaim {
	s.t.Helper()
	s.mu.Lock()
	s.grants = append(s.grants, g)
	n := len(s.claims)
	s.mu.Unlock()
	doc, err := json.Marshal(jobs.Job{Broadcast: onAir, Channel: "demo", Ingest: testenv.Sealed(s.t, seal.Ingest, "demo", s.server.URL)})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := db.XAdd(s.t.Context(), &redis.XAddArgs{Stream: jobs.Stream, Values: map[string]any{jobs.Field: doc}}).Err(); err != nil {
		s.t.Fatal(err)
	}
	var c *testClaim
	await(s.t, "a worker has the broadcast", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.claims) > n {
			c = s.claims[n]
		}
		return c != nil
	})
	return c
}

// await waits until is is true.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	testenv.Eventually(t, 2*time.Minute, func() error { // what has low priority waits long on a busy machine
		if !is() {
			return fmt.Errorf("waited in vain until %s", what)
		}
		return nil
	})
}

// workerProcess is a running service.
type workerProcess struct {
	*Service
	private  *httptest.Server
	registry *prometheus.Registry
	stop     func()
}

func startWorker(t *testing.T, db redis.UniversalClient, bucket *objects.Bucket, change func(*Config)) *workerProcess {
	t.Helper()
	p := &workerProcess{registry: prometheus.NewRegistry()}
	mux := http.NewServeMux()
	p.private = testenv.PrivateServer(t, mux)
	c := Config{
		Redis: db, Bucket: bucket, Peers: testenv.Peers(t, p.private.URL), Preset: "ultrafast", Ladder: transcodetest.Ladder,
		Tolerance: transcodetest.Patient,
		SpoolDir:  t.TempDir(), Log: transcodetest.Logger(t), Registerer: p.registry,
	}
	if change != nil {
		change(&c)
	}
	var err error
	if p.Service, err = New(c); err != nil {
		t.Fatal(err)
	}
	p.Private(mux)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		p.private.Close()
	})
	t.Cleanup(p.stop)
	return p
}

// stored returns the hashes of all segments in the bucket, by rendition and sequence.
func stored(t *testing.T, bucket *objects.Bucket) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := bucket.List(t.Context(), objects.Prefix(onAir), func(keys []string) error {
		for _, key := range keys {
			name := strings.Split(key, "/")
			sequence, _, ok := strings.Cut(name[len(name)-1], ".")
			if !ok || !strings.HasSuffix(key, ".m4s") {
				continue
			}
			body, err := bucket.Get(t.Context(), key)
			if err != nil {
				return err
			}
			sums[name[len(name)-2]+"/"+sequence] = fmt.Sprintf("%x", sha256.Sum256(body))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// undisturbed returns the hashes that one worker makes of a log.
func undisturbed(t *testing.T, l *transcodetest.Log) map[string]string {
	t.Helper()
	f, err := encode.FindFFmpeg(t.Context(), "ffmpeg")
	if err != nil {
		t.Fatal(err)
	}
	specs, err := encode.ParseLadder(transcodetest.Ladder)
	if err != nil {
		t.Fatal(err)
	}
	b, rec := encode.NewBudget(64, 0), transcodetest.NewRecord()
	w := encode.New(encode.Config{
		Grant: jobs.Grant{Epoch: jobs.Epoch{Lease: 1, Grant: 1}}, FFmpeg: f, Preset: "ultrafast", Ladder: specs, Budget: b, Publish: rec,
		Tolerance: transcodetest.Patient,
		Metrics:   encode.NewMetrics(prometheus.NewRegistry(), b), Log: transcodetest.Logger(t),
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := w.Run(ctx, l.Unhurried(0, w.Finished)); err != nil {
		t.Fatal(err)
	}
	rec.Check(t)
	sums := map[string]string{}
	for k := range rec.Entries {
		sums[k] = fmt.Sprintf("%x", sha256.Sum256(bytes.Join(rec.Parts[k], nil)))
	}
	return sums
}

// awaitStored waits until the bucket has just these segments.
func awaitStored(t *testing.T, bucket *objects.Bucket, want map[string]string) {
	t.Helper()
	var got map[string]string
	defer func() {
		for k, sum := range want {
			if got[k] != sum {
				t.Errorf("segment %s is %.8q in S3, want %.8q", k, got[k], sum)
			}
		}
		for k := range got {
			if want[k] == "" {
				t.Errorf("segment %s is in S3 and shouldn't be", k)
			}
		}
	}()
	_ = testenv.Until(t.Context(), time.Minute, func() error { // the difference is told above
		if got = stored(t, bucket); !maps.Equal(got, want) {
			return errors.New("S3 has something else")
		}
		return nil
	})
}

func only(sums map[string]string, is func(sequence int) bool) map[string]string {
	some := map[string]string{}
	for k, sum := range sums {
		_, text, _ := strings.Cut(k, "/")
		if n, err := strconv.Atoi(text); err == nil && is(n) {
			some[k] = sum
		}
	}
	return some
}

func postClose(t *testing.T, p *workerProcess, broadcast string, epoch uint64) (int, relay.Handoff) {
	t.Helper()
	resp, err := testenv.PrivateClient(t).Post(p.private.URL+jobs.ClosePath(broadcast, epoch), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var c relay.Handoff
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode, c
}

// gapsOf returns the gaps of the broadcast as the follow stream tells a new reader of them.
func gapsOf(t *testing.T, p *workerProcess) (gaps []index.Entry) {
	t.Helper()
	resp, err := testenv.PrivateClient(t).Get(p.private.URL + index.FollowPath(onAir))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, index.MaxLine)
	if !lines.Scan() { // it has room for all that exists
		t.Fatalf("no line comes: %v", lines.Err())
	}
	entries, err := index.ParseLine(lines.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type == index.TypeGap {
			gaps = append(gaps, e)
		}
	}
	return gaps
}

// counter reads a counter of the worker's.
func counter(t *testing.T, p *workerProcess, name string) float64 {
	t.Helper()
	all, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.GetName() == name {
			return m.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no counter %s", name)
	return 0
}
