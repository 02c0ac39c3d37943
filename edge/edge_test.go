package edge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/edge/fold/foldtest"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/objects"
	"millrace/internal/private"
	"millrace/internal/seal"
	"millrace/internal/testenv"
	"millrace/internal/window"
)

func TestMain(m *testing.M) {
	// Tests that are parallel wait for clocks: they need no core each.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	testenv.Main(m)
}

const (
	testProfile = foldtest.Profile
	partTicks   = foldtest.PartTicks
	partsEach   = foldtest.PartsEach
)

func testSettings() *index.Broadcast { return foldtest.Settings() }

// fakeWorker speaks the follow and window contracts.
type fakeWorker struct {
	*httptest.Server
	routes    *http.ServeMux
	broadcast string
	// hold, unless nil, is waited for before media is answered.
	hold chan struct{}

	mu      sync.Mutex
	lines   [][]byte
	more    chan struct{}
	media   map[string][]byte
	fetches map[string]int
	follows int
}

func newFakeWorker(t testing.TB, broadcast string) *fakeWorker {
	t.Helper()
	w := &fakeWorker{broadcast: broadcast, more: make(chan struct{}), media: map[string][]byte{}, fetches: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /follow/{broadcast}", w.follow)
	mux.HandleFunc("GET /window/", w.window)
	w.routes, w.Server = mux, testenv.PrivateServer(t, mux)
	t.Cleanup(w.kill)
	return w
}

// kill breaks all connections.
func (w *fakeWorker) kill() {
	w.CloseClientConnections()
	w.Close()
}

func (w *fakeWorker) follow(rw http.ResponseWriter, r *http.Request) {
	if r.PathValue("broadcast") != w.broadcast {
		http.NotFound(rw, r)
		return
	}
	w.mu.Lock()
	w.follows++
	w.mu.Unlock()
	rw.WriteHeader(http.StatusOK)
	c := http.NewResponseController(rw)
	heartbeat := time.NewTicker(index.Heartbeat)
	defer heartbeat.Stop()
	for sent := 0; ; {
		w.mu.Lock()
		lines, more := w.lines[sent:], w.more
		w.mu.Unlock()
		for _, line := range lines {
			if _, err := rw.Write(line); err != nil {
				return
			}
			sent++
		}
		if c.Flush() != nil {
			return
		}
		select {
		case <-more:
		case <-heartbeat.C:
			if _, err := io.WriteString(rw, "[]\n"); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func (w *fakeWorker) window(rw http.ResponseWriter, r *http.Request) {
	name := r.URL.RequestURI()
	w.mu.Lock()
	w.fetches[name]++
	data, ok := w.media[name]
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			return
		}
	}
	if !ok {
		http.NotFound(rw, r)
		return
	}
	_, _ = rw.Write(data)
}

// say sends entries as one line.
func (w *fakeWorker) say(entries ...index.Entry) {
	line, err := index.AppendLine(nil, entries)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
	close(w.more)
	w.more = make(chan struct{})
}

func (w *fakeWorker) put(path string, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.media[path] = data
}

func (w *fakeWorker) fetched(path string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fetches[path]
}

// begin announces the broadcast and its init sections.
func (w *fakeWorker) begin(epoch jobs.Epoch) {
	b := testSettings()
	w.say(index.Entry{Type: index.TypeBroadcast, Writer: epoch, Broadcast: b})
	for _, r := range b.Renditions {
		hash := "i" + r.Name
		w.put(window.InitPath(w.broadcast, r.Name, hash), []byte("init of "+r.Name))
		w.say(index.Entry{Type: index.TypeInit, Writer: epoch, Rendition: r.Name, Init: hash, Epoch: 7, Codec: r.Codec, Width: r.Width, Height: r.Height})
	}
}

// partData is deterministic, as a real worker's output is.
func partData(rendition string, sequence uint64, part int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", rendition, sequence, part))
	return bytes.Repeat(sum[:], 32)
}

func segmentData(rendition string, sequence uint64) []byte {
	var b []byte
	for part := range partsEach {
		b = append(b, partData(rendition, sequence, part)...)
	}
	return b
}

// part makes one part of both renditions exist; the last one of a segment comes
// with the segment.
func (w *fakeWorker) part(epoch jobs.Epoch, sequence uint64, part int) {
	for _, r := range []string{"source", "audio"} {
		w.partOf(r, epoch, sequence, part)
	}
}

// partOf is part for one rendition.
func (w *fakeWorker) partOf(r string, epoch jobs.Epoch, sequence uint64, part int) {
	at := testSettings().Started.Add(time.Duration(sequence) * 2 * time.Second)
	common := index.Entry{
		Writer: epoch, Rendition: r, Init: "i" + r, Epoch: 7, Sequence: sequence, Profile: testProfile, Time: at,
	}
	data := partData(r, sequence, part)
	w.put(window.Media{Broadcast: w.broadcast, Rendition: r, Epoch: 7, Sequence: sequence, Part: part, Profile: testProfile}.Path(), data)
	p := common
	p.Type, p.Part, p.Duration, p.Size, p.Independent = index.TypePart, part, partTicks, len(data), part == 0
	line := []index.Entry{p}
	if part == partsEach-1 {
		w.put(window.Media{Broadcast: w.broadcast, Rendition: r, Epoch: 7, Sequence: sequence, Part: window.WholeSegment, Profile: testProfile}.Path(), segmentData(r, sequence))
		s := common
		s.Type, s.Parts, s.Duration, s.Size, s.Independent = index.TypeSegment, partsEach, partsEach*partTicks, len(segmentData(r, sequence)), true
		line = append(line, s)
	}
	w.say(line...)
}

func (w *fakeWorker) segment(epoch jobs.Epoch, sequence uint64) {
	for part := range partsEach {
		w.part(epoch, sequence, part)
	}
}

// stage is an edge with a channel that is live.
type stage struct {
	t         testing.TB
	redis     *testenv.RedisServer
	db        redis.UniversalClient
	service   *Service
	server    *httptest.Server
	registry  *prometheus.Registry
	worker    *fakeWorker
	record    lease.Record
	broadcast string
	epoch     jobs.Epoch
	bucket    *objects.Bucket
}

// newEdge returns a stage without a broadcast. A test on a slow machine may need
// longer between two parts than silentFor, which is a minute here unless an option
// says otherwise.
func newEdge(t testing.TB, options ...func(*Service)) *stage {
	t.Helper()
	st := &stage{t: t, redis: testenv.StartRedis(t), registry: prometheus.NewRegistry(), broadcast: "b1", epoch: jobs.Epoch{Lease: 1, Grant: 1}}
	st.db = st.redis.Client()
	st.bucket = testenv.Bucket(t)
	var err error
	st.service, err = New(Config{
		ID: "edge-1", Redis: st.db, Bucket: st.bucket, Peers: peers(t, st.registry), Registerer: st.registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	st.service.silentFor = time.Minute
	for _, option := range options {
		option(st.service)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.service.Run(ctx) }()
	st.server = httptest.NewServer(st.service.Handler())
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		st.server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return st
}

// peers are those of an edge whose metrics are in r.
func peers(t testing.TB, r prometheus.Registerer) *private.Peers {
	t.Helper()
	p, err := private.New(private.Config{Secret: testenv.Secret, Registerer: r})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// withSilence has nothing be expected as soon as in production.
func withSilence(s *Service) { s.silentFor = silentFor }

// newStage returns a stage with a channel that is live, by one worker that has made
// segments 0 and 1, and the first part of 2.
func newStage(t testing.TB, options ...func(*Service)) *stage {
	st := newEdge(t, options...)
	st.goLive()
	st.worker = newFakeWorker(t, st.broadcast)
	st.worker.begin(st.epoch)
	st.worker.segment(st.epoch, 0)
	st.worker.segment(st.epoch, 1)
	st.worker.part(st.epoch, 2, 0)
	st.slot(0, st.worker)
	return st
}

func (st *stage) goLive() {
	st.t.Helper()
	var err error
	st.record, _, err = lease.Acquire(st.t.Context(), st.db, "demo", st.broadcast, "http://ingest", time.Minute, 0)
	if err != nil {
		st.t.Fatal(err)
	}
}

func (st *stage) setState(s lease.State) {
	st.t.Helper()
	st.record.State = s
	if err := lease.Renew(st.t.Context(), st.db, "demo", st.record); err != nil {
		st.t.Fatal(err)
	}
}

func (st *stage) slot(n int, w *fakeWorker) {
	st.t.Helper()
	if err := lease.SetSlot(st.t.Context(), st.db, st.broadcast, n, jobs.Slot{Address: testenv.Sealed(st.t, seal.Worker, st.broadcast, w.URL), Epoch: st.epoch}); err != nil {
		st.t.Fatal(err)
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (st *stage) fetch(ctx context.Context, path string, header ...string) (answer, error) {
	return st.ask(ctx, http.MethodGet, path, header...)
}

// head asks for the header alone.
func (st *stage) head(path string, header ...string) answer {
	st.t.Helper()
	a, err := st.ask(st.t.Context(), http.MethodHead, path, header...)
	if err != nil {
		st.t.Fatal(err)
	}
	return a
}

func (st *stage) ask(ctx context.Context, method, path string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, st.server.URL+path, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

func (st *stage) get(path string, header ...string) answer {
	st.t.Helper()
	a, err := st.fetch(st.t.Context(), path, header...)
	if err != nil {
		st.t.Fatal(err)
	}
	return a
}

// want fetches path and checks the status.
func (st *stage) want(status int, path string, header ...string) answer {
	st.t.Helper()
	a := st.get(path, header...)
	if a.status != status {
		st.t.Fatalf("GET %s: status %d, want %d: %s", path, a.status, status, a.body)
	}
	return a
}

func (st *stage) media(name string) string { return "/hls/demo/" + st.broadcast + "/" + name }

// until asks for path until ok says true.
func (st *stage) until(path string, ok func(answer) bool) answer {
	st.t.Helper()
	var a answer
	testenv.Eventually(st.t, 20*time.Second, func() error {
		if a = st.get(path); !ok(a) {
			return fmt.Errorf("GET %s: still %d: %s", path, a.status, a.body)
		}
		return nil
	})
	return a
}

// waiting waits until n requests wait.
func (st *stage) waiting(n int64) {
	st.t.Helper()
	testenv.Eventually(st.t, 10*time.Second, func() error {
		if now := st.service.waiters.count.Load(); now != n {
			return fmt.Errorf("%d requests wait, want %d", now, n)
		}
		return nil
	})
}

// metric returns the sum of a metric over the label values that all of values
// are among.
func (st *stage) metric(name string, values ...string) float64 {
	st.t.Helper()
	return st.counter("millrace_edge_"+name, values...)
}

// counter is the same for a metric's whole name.
func (st *stage) counter(name string, values ...string) float64 {
	st.t.Helper()
	families, err := st.registry.Gather()
	if err != nil {
		st.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			found := 0
			for _, l := range m.GetLabel() {
				if slices.Contains(values, l.GetValue()) {
					found++
				}
			}
			if found == len(values) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestPlayback(t *testing.T) {
	st := newStage(t)
	m := st.want(200, "/hls/demo/index.m3u8")
	if !strings.Contains(m.body, "b1/source/index.m3u8") || !strings.Contains(m.body, `URI="b1/audio/index.m3u8"`) {
		t.Fatalf("multivariant playlist:\n%s", m.body)
	}
	if m.header.Get("Cache-Control") != "no-cache" || m.header.Get("Content-Type") != "application/vnd.apple.mpegurl" || m.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("header %v", m.header)
	}
	p := st.want(200, st.media("source/index.m3u8"))
	for _, line := range []string{`#EXT-X-MAP:URI="init-isource.mp4"`, "7.1.p1.m4s", `URI="7.2.0.p1.m4s",INDEPENDENT=YES`, `#EXT-X-PRELOAD-HINT:TYPE=PART,URI="7.2.1.p1.m4s"`, `LAST-MSN=2,LAST-PART=0`} {
		if !strings.Contains(p.body, line) {
			t.Errorf("%s is missing in\n%s", line, p.body)
		}
	}
	if got := st.want(200, st.media("source/init-isource.mp4")).body; got != "init of source" {
		t.Errorf("init section %q", got)
	}
	part := st.want(200, st.media("source/7.1.2.p1.m4s"))
	if part.body != string(partData("source", 1, 2)) || part.header.Get("Content-Type") != "video/mp4" || !strings.Contains(part.header.Get("Cache-Control"), "immutable") {
		t.Errorf("part differs: %v", part.header)
	}
	if a := st.want(200, st.media("audio/7.1.p1.m4s")); a.body != string(segmentData("audio", 1)) || a.header.Get("Content-Type") != "audio/mp4" {
		t.Errorf("segment differs: %v", a.header)
	}
}

func xadd(broadcast string, doc []byte) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: index.StreamKey(broadcast), Values: []any{index.Field, doc}}
}

// newHungWorker returns the address of a worker that accepts and says nothing.
func newHungWorker(t testing.TB) string {
	t.Helper()
	w := testenv.PrivateServer(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/follow/") {
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
			return
		}
		http.NotFound(rw, r)
	}))
	t.Cleanup(func() {
		w.CloseClientConnections()
		w.Close()
	})
	return w.URL
}
