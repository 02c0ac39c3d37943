package transcode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/media"
	"millrace/internal/objects"
	"millrace/internal/private"
	"millrace/internal/relay"
	"millrace/internal/testenv"
)

const (
	onAir      = "broadcast1"
	testLadder = "96p30=150k,64p30=80k"
	withSound  = "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=frequency=300:sample_rate=48000 -t %d -pix_fmt yuv420p -c:a aac -c:v libx264 -preset ultrafast -bf 0 -g 60"
)

// source serves a recorded log by the contracts of relay and claims, at the
// pace of a live broadcast.
type source struct {
	t      *testing.T
	log    *testLog
	server *httptest.Server
	began  time.Time
	// oldest is the first segment that the log has.
	oldest uint64
	// told, where it is set, is closed before the end mark may be sent.
	told chan struct{}
	// granting, where it is set, is closed before a grant is answered.
	granting chan struct{}
	// cut, where it is set, tells whether a reader that asked for a segment is cut
	// off at a mark.
	cut func(from, mark uint64) bool

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
func startSource(t *testing.T, l *testLog, past time.Duration) *source {
	t.Helper()
	s := &source{t: t, log: l, began: time.Now().Add(-past), dead: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /relay/{file}", s.relay)
	mux.HandleFunc("POST /claim/{broadcast}/{slot}", s.claim)
	s.server = httptest.NewUnstartedServer(mux)
	s.server.Config.Protocols = private.NewServer(mux).Protocols
	s.server.Start()
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
	_, _ = w.Write(media.FLVHeader(true, true))
	control := http.NewResponseController(w)
	first := s.log.events[s.log.marks[0]].mark.Start
	at := first
	for _, e := range s.log.newest(from, first+media.TicksOf(time.Since(s.began))) {
		switch {
		case e.mark != nil:
			at = e.mark.Start
		case e.unit != nil:
			at = e.unit.DTS
		}
		if e.mark != nil && s.cut != nil {
			_ = control.Flush()
			if s.cut(from, e.mark.Sequence) {
				panic(http.ErrAbortHandler)
			}
		}
		if e.mark != nil && e.mark.Kind == relay.End && s.told != nil {
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
		if _, err := w.Write(encodeEvent(s.t, e)); err != nil {
			return
		}
	}
	if last := s.log.events[len(s.log.events)-1]; last.mark != nil && last.mark.Kind == relay.Pause {
		return // moved to another ingest
	}
	_ = control.Flush()
	select {
	case <-s.dead:
		panic(http.ErrAbortHandler)
	case <-r.Context().Done():
	}
}

// newest is what a reader gets that asks for a segment: if there is none yet,
// it begins at the newest one.
func (l *testLog) newest(sequence uint64, now media.Ticks) []logEvent {
	have := uint64(0)
	for _, i := range l.marks {
		if m := l.events[i].mark; m.Start <= now {
			have = m.Sequence
		}
	}
	return l.from(min(sequence, have))
}

func encodeEvent(t *testing.T, e logEvent) (b []byte) {
	var err error
	switch {
	case e.mark != nil:
		b, err = relay.AppendMark(nil, *e.mark)
	case e.settings != nil:
		b, err = relay.AppendSettings(nil, 0, *e.settings)
	case e.video != nil:
		b = media.AppendVideoConfigTag(nil, 0, e.video.Record)
	case e.audio != nil:
		b = media.AppendAudioTag(nil, 0, true, e.audio.ASC)
	case e.unit.Kind == media.Video:
		b = media.AppendVideoTag(nil, uint32(e.unit.DTS.Milliseconds()), e.unit)
	default:
		b = media.AppendAudioTag(nil, uint32(e.unit.DTS.Milliseconds()), false, e.unit.Payload)
	}
	if err != nil {
		t.Error(err)
	}
	return b
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
	doc, err := json.Marshal(jobs.Job{Broadcast: onAir, Channel: "demo", Ingest: s.server.URL})
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
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) { // polls a condition
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// workerProcess is a running service.
type workerProcess struct {
	*Service
	private *httptest.Server
	stop    func()
}

func startWorker(t *testing.T, db redis.UniversalClient, bucket *objects.Bucket, change func(*Config)) *workerProcess {
	t.Helper()
	p := &workerProcess{}
	mux := http.NewServeMux()
	p.private = httptest.NewServer(mux)
	c := Config{
		Redis: db, Bucket: bucket, Advertise: p.private.URL, Preset: "ultrafast", Ladder: testLadder,
		SpoolDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Registerer: prometheus.NewRegistry(),
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
func undisturbed(t *testing.T, l *testLog) map[string]string {
	t.Helper()
	rec := newRecord()
	runWorker(t, l, 0, testLadder, rec)
	sums := map[string]string{}
	for k := range rec.entries {
		sums[k] = fmt.Sprintf("%x", sha256.Sum256(bytes.Join(rec.parts[k], nil)))
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
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // polls a condition
		if got = stored(t, bucket); maps.Equal(got, want) {
			return
		}
	}
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

// until returns the log up to the end of segment sequence and a mark of a kind there.
func (l *testLog) until(sequence uint64, kind relay.MarkKind) *testLog {
	for n, i := range l.marks {
		if m := *l.events[i].mark; m.Sequence == sequence+1 {
			m.Kind = kind
			return &testLog{events: append(slices.Clone(l.events[:i]), logEvent{mark: &m}), marks: l.marks[:n]}
		}
	}
	panic("no such segment")
}

// readUntil returns what a worker that was at a carry's end had read of the log,
// closed as that says.
func (l *testLog) readUntil(c relay.Carry) *testLog {
	out := &testLog{}
	step := media.Ticks(3000)
	for i, e := range l.events {
		if e.unit != nil && e.unit.Kind == media.Video && e.unit.DTS > c.Mark.Start-step/2 {
			break
		}
		if slices.Contains(l.marks, i) {
			out.marks = append(out.marks, len(out.events))
		}
		out.events = append(out.events, e)
	}
	end := c.Mark
	end.Kind = relay.End
	out.events = append(out.events, logEvent{mark: &end})
	return out
}

func postClose(t *testing.T, p *workerProcess, broadcast string, epoch uint64) (int, relay.Carry) {
	t.Helper()
	resp, err := http.Post(p.private.URL+jobs.ClosePath(broadcast, epoch), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var c relay.Carry
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode, c
}

var firstGrant = jobs.Grant{Epoch: jobs.Epoch{Lease: 7, Grant: 1}}

// An ingest that dies leaves the open segment with its worker, which closes it
// for the ingest that goes on, and stores it.
func TestOpenSegmentOutlivesItsIngest(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 12))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	c := src.offer(db, firstGrant)
	await(t, "a segment is finished", func() bool { return c.progress().Finished >= 1 })
	if code, _ := postClose(t, p, onAir, 7); code != http.StatusConflict {
		t.Errorf("/close under the same lease answers %d, want 409", code)
	}
	src.die()
	await(t, "the worker knows that it is an orphan", func() bool { return testutil.ToFloat64(p.metrics.orphans) == 1 })
	if code, _ := postClose(t, p, "another", 8); code != http.StatusNotFound {
		t.Errorf("/close of an unknown broadcast answers %d, want 404", code)
	}
	code, carry := postClose(t, p, onAir, 8)
	if code != http.StatusOK || carry.Mark.Kind != relay.Pause || carry.Settings.PartTarget != 33000 {
		t.Fatalf("/close answers %d %+v", code, carry)
	}
	if _, again := postClose(t, p, onAir, 9); again.Mark != carry.Mark {
		t.Errorf("asked again, /close answers %+v, want %+v", again.Mark, carry.Mark)
	}
	cut := l.readUntil(carry)
	last := cut.events[cut.marks[len(cut.marks)-1]].mark
	if carry.Mark.Sequence != last.Sequence+1 || carry.Mark.DecodeFrom != carry.Mark.Sequence || carry.Mark.Time.Sub(last.Time) != (carry.Mark.Start-last.Start).Duration().Truncate(time.Millisecond) {
		t.Errorf("the carry's mark is %+v after %+v", carry.Mark, *last)
	}
	// How much sound had come after the last picture isn't known.
	heard := fmt.Sprintf("audio/%d", last.Sequence)
	want := undisturbed(t, cut)
	await(t, "the sound is stored", func() bool { return stored(t, bucket)[heard] != "" })
	want[heard] = stored(t, bucket)[heard]
	awaitStored(t, bucket, want)
	await(t, "the work is over", func() bool { return len(p.held()) == 0 })
}

// An open segment that another ingest doesn't ask for is dropped: its numbers
// may be used again. What is finished is stored.
func TestOpenSegmentIsDroppedWhenAnotherIngestDoesNotAsk(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 12))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 1}})
	await(t, "a segment is finished", func() bool { return c.progress().Finished >= 1 })
	src.die()
	if next, _, err := lease.Acquire(t.Context(), db, "demo", "fresh", "http://second", 0, time.Minute); err != nil || next.Broadcast != onAir {
		t.Fatalf("the second ingest has %+v, %v", next, err)
	}
	await(t, "the work is over", func() bool { return len(p.held()) == 0 })
	got := stored(t, bucket)
	if finished := int(c.progress().Finished); len(only(got, func(n int) bool { return n > finished })) > 0 {
		t.Errorf("the open segment was stored: %v, %d were finished", got, finished)
	}
	want := undisturbed(t, l)
	for k, sum := range got {
		if want[k] != sum {
			t.Errorf("segment %s has other bytes", k)
		}
	}
}

// A worker whose ingest died publishes the end of a broadcast that nobody goes
// on with; an ingest that asks for it later is told so.
func TestOrphanPublishesTheEnd(t *testing.T) {
	t.Parallel()
	db := testenv.Redis(t)
	bucket, _, s3 := proxiedBucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 12))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 1}})
	await(t, "a segment is finished", func() bool { return c.progress().Finished >= 1 })
	s3.Cut() // the worker stays for what isn't stored
	src.die()
	now.State = lease.Ended
	if err := lease.Renew(t.Context(), db, "demo", now); err != nil {
		t.Fatal(err)
	}
	await(t, "the end is in the index", func() bool {
		newest, err := db.XRevRangeN(t.Context(), index.StreamKey(onAir), "+", "-", 1).Result()
		if err != nil || len(newest) == 0 {
			return false
		}
		e, err := index.Parse([]byte(newest[0].Values[index.Field].(string)))
		return err == nil && e.Type == index.TypeEnd
	})
	if code, _ := postClose(t, p, onAir, now.Epoch+1); code != http.StatusGone {
		t.Errorf("/close answers %d, want 410", code)
	}
	s3.Restore()
	await(t, "the work is over", func() bool { return len(p.held()) == 0 })
}

// An ingest that dies before its first mark leaves nothing to keep.
func TestOrphanOfNothingEnds(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 4))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, -time.Hour) // nothing is due yet
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 1}})
	src.die()
	now.State = lease.Ended
	if err := lease.Renew(t.Context(), db, "demo", now); err != nil {
		t.Fatal(err)
	}
	await(t, "the work is over", func() bool { return testutil.CollectAndCount(p.metrics.claims) > 0 && len(p.held()) == 0 })
}

// A Redis that lost the lease is believed no more than one that is away, and not for ever.
func TestOrphanOfALostLeaseEnds(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 4))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch + 1, Grant: 1}})
	src.die()
	await(t, "the worker knows that it is an orphan", func() bool { return testutil.ToFloat64(p.metrics.orphans) == 1 })
	h := p.held()[0]
	for _, c := range []struct {
		since time.Duration
		over  bool
	}{{orphanLimit - time.Minute, false}, {orphanLimit + time.Minute, true}} {
		o := orphan{since: time.Now().Add(-c.since)}
		if err := o.look(t.Context(), h, false); err != nil {
			t.Error(err)
		}
		over := true // a worker that has ended, too
		h.live.do(t.Context(), func(context.Context) { over = h.live.over })
		if over != c.over {
			t.Errorf("after %s the open segment is dropped: %t", c.since, over)
		}
	}
	await(t, "the work is over", func() bool { return len(p.held()) == 0 })
}

// A worker that was granted the broadcast again gives up what it had.
func TestAnotherGrantOfTheSlotEndsAnOrphan(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 12))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 1}})
	src.die()
	if err := lease.SetSlot(t.Context(), db, onAir, 0, jobs.Slot{Address: "http://another", Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 2}}); err != nil {
		t.Fatal(err)
	}
	await(t, "the work is over", func() bool { return len(p.held()) == 0 })
	if code, _ := postClose(t, p, onAir, now.Epoch+1); code != http.StatusNotFound {
		t.Errorf("/close answers %d, want 404", code)
	}
}

// A worker that is asked to stop hands its broadcast over at a mark: all
// segments are stored, and are what one worker alone makes.
func TestDrainHandsOverAtAMark(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 12))
	want := undisturbed(t, l)
	drain := func(c *Config) { c.Drain = 20 * time.Second }
	first := startWorker(t, db, bucket, drain)
	src := startSource(t, l, 0)
	a := src.offer(db, firstGrant)
	await(t, "a segment is finished", func() bool { return a.progress().Finished >= 1 })
	stopped := make(chan struct{})
	go func() {
		first.stop()
		close(stopped)
	}()
	await(t, "the worker wants to leave", func() bool { return a.progress().Leaving })
	startWorker(t, db, bucket, nil)
	next := a.progress().Finished + 1
	b := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: 7, Grant: 2}, Live: next, Backfill: next, Index: true})
	if b.address == a.address {
		t.Error("the worker that leaves took the broadcast again")
	}
	a.orders <- jobs.Order{Until: next}
	<-a.over
	if p := a.progress(); p.Finished != next || p.Safe != next {
		t.Errorf("the worker that left reports %+v, want all before %d safe", p, next)
	}
	<-stopped
	awaitStored(t, bucket, want)
}

// A worker that is asked to stop while it claims a broadcast hands that over too.
func TestDrainWaitsForClaims(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 8))
	first := startWorker(t, db, bucket, func(c *Config) { c.Drain = 20 * time.Second })
	src := startSource(t, l, 0)
	src.granting = make(chan struct{})
	a := src.offer(db, firstGrant)
	var stopping sync.WaitGroup
	defer stopping.Wait()
	stopping.Go(first.stop)
	await(t, "the worker takes no more jobs", func() bool { return first.working.Load() == 1 })
	close(src.granting)
	await(t, "the worker wants to leave", func() bool { return a.progress().Leaving })
	await(t, "a segment is finished", func() bool { return a.progress().Finished >= 1 })
	a.orders <- jobs.Order{Until: a.progress().Finished + 1}
	<-a.over
	if p := a.progress(); p.Safe != p.Finished {
		t.Errorf("the worker that left reports %+v", p)
	}
}

// A broadcast that ends while its worker is about to reserve room keeps none.
func TestNoRoomIsKeptForWhatIsOver(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // for a Redis: the worker waits for what earlier ones announced
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	db := redis.NewClient(&redis.Options{Addr: silent.Addr().String(), ContextTimeoutEnabled: true})
	defer db.Close()
	l := makeLog(t, 0, fmt.Sprintf(withSound, 5))
	f, err := testFFmpeg()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Redis: db, Bucket: testenv.Bucket(t), Advertise: "http://worker", Preset: "ultrafast", Ladder: testLadder,
		SpoolDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.ffmpeg = f
	src := startSource(t, l, 0)
	src.cut = func(_, mark uint64) bool {
		<-src.dead // the settings and the configurations were written
		return true
	}
	src.grants = []jobs.Grant{{Epoch: jobs.Epoch{Lease: 7, Grant: 2}, Index: true}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- s.work(ctx, jobs.Job{Broadcast: onAir, Channel: "demo", Ingest: src.server.URL}, s.cfg.Log)
	}()
	await(t, "the worker has the broadcast", func() bool { return len(s.held()) > 0 })
	await(t, "the worker waits for what earlier ones announced", func() bool {
		soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		return !s.held()[0].live.do(soon, func(context.Context) {})
	})
	cancel()
	<-done
	if n := len(s.budget.reserved); n != 0 {
		t.Errorf("room is kept for %d workers", n)
	}
}

// What an earlier worker finished and didn't store is made again, after the
// live segments; what the log no longer has becomes a gap.
func TestBackfill(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		oldest int
	}{{"the log has all", 1}, {"the log begins later", 2}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, bucket := testenv.Redis(t), testenv.Bucket(t)
			l := makeLog(t, 0, fmt.Sprintf(withSound, 10))
			want := undisturbed(t, l)
			p := startWorker(t, db, bucket, nil)
			src := startSource(t, l, 7*time.Second)
			src.oldest = uint64(c.oldest)
			claim := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: 7, Grant: 2}, Live: 3, Backfill: 1, Index: true})
			awaitStored(t, bucket, only(want, func(n int) bool { return n >= c.oldest }))
			await(t, "all is safe", func() bool { return claim.progress().Safe >= 5 })
			gaps := 0
			for k, r := range p.storage.find(onAir).shelf.tracks {
				for _, e := range r.records {
					if e.Type == index.TypeGap {
						gaps++
						if e.Sequence != 1 {
							t.Errorf("%s has a gap at %d", k, e.Sequence)
						}
					}
				}
			}
			if want := 4 * (c.oldest - 1); gaps != want {
				t.Errorf("%d gaps, want %d", gaps, want)
			}
		})
	}
}

// Ingest cuts off a reader that takes nothing for long. Earlier segments are made
// again as long as that makes progress; if it makes none, they are gaps.
func TestBackfillGoesOnWhileThereIsProgress(t *testing.T) {
	t.Parallel()
	const live = 6
	for _, c := range []struct {
		name   string
		reach, // how many marks further a reader comes
		gaps int // of each rendition
	}{{"progress", 2, 0}, {"none", 1, live - 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, bucket := testenv.Redis(t), testenv.Bucket(t)
			l := makeLog(t, 0, fmt.Sprintf(withSound, 14))
			want := undisturbed(t, l)
			p := startWorker(t, db, bucket, nil)
			src := startSource(t, l, 13*time.Second)
			src.cut = func(from, mark uint64) bool { return from < live && mark >= from+uint64(c.reach) && mark < live }
			claim := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: 7, Grant: 2}, Live: live, Backfill: 1, Index: true})
			await(t, "all is safe", func() bool { return claim.progress().Safe > live })
			awaitStored(t, bucket, only(want, func(n int) bool { return n > c.gaps }))
			for name, track := range p.storage.find(onAir).shelf.tracks {
				gaps := 0
				for _, e := range track.records {
					if e.Type == index.TypeGap {
						gaps++
					}
				}
				if gaps != c.gaps {
					t.Errorf("%s has %d gaps, want %d", name, gaps, c.gaps)
				}
			}
		})
	}
}

// Ingest says by one connection that the broadcast is over, and by another one
// where: whichever comes first, the end is published.
func TestEndMarkMayComeLate(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 5))
	w := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 5*time.Second)
	src.told = make(chan struct{})
	c := src.offer(db, firstGrant)
	await(t, "all but the last segment is finished", func() bool { return c.progress().Finished >= 2 })
	c.orders <- jobs.Order{End: "the broadcast is over"}
	close(src.told)
	<-c.over
	await(t, "the work is over", func() bool { return testutil.CollectAndCount(w.metrics.claims) > 0 })
	if n := testutil.ToFloat64(w.metrics.claims.WithLabelValues("complete")); n != 1 {
		t.Error("an end in good order counts as a failure")
	}
	awaitStored(t, bucket, undisturbed(t, l))
	await(t, "the end is in the index", func() bool {
		list, err := db.XRange(t.Context(), index.StreamKey(onAir), "-", "+").Result()
		return err == nil && len(list) > 0 && strings.Contains(fmt.Sprint(list[len(list)-1].Values), string(index.TypeEnd))
	})
}

// The log of an ingest that gave the channel to another one ends at a pause
// mark: the worker stores what was cut, and lets go.
func TestBroadcastMovesToAnotherIngest(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 6))
	want := undisturbed(t, l)
	w := startWorker(t, db, bucket, nil)
	c := startSource(t, l.until(1, relay.Pause), 0).offer(db, firstGrant)
	<-c.over
	await(t, "the work is over", func() bool { return testutil.CollectAndCount(w.metrics.claims) > 0 })
	if n := testutil.ToFloat64(w.metrics.claims.WithLabelValues("complete")); n != 1 {
		t.Error("the move counts as a failure")
	}
	if p := c.progress(); p.Finished != 2 || p.Safe != 2 {
		t.Errorf("the worker let go with %+v", p)
	}
	awaitStored(t, bucket, only(want, func(n int) bool { return n < 2 }))
}

// A worker with room has processes ready for what others work on, and takes
// over with them.
func TestTakeoverUsesWarmEncoders(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := makeLog(t, 0, fmt.Sprintf(withSound, 8))
	p := startWorker(t, db, bucket, nil)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	now.Width, now.Height, now.FrameRate, now.Carry.Settings = 320, 180, 30, *l.events[0].settings
	if err := lease.Renew(t.Context(), db, "demo", now); err != nil {
		t.Fatal(err)
	}
	warm := func() int {
		p.warm.mu.Lock()
		defer p.warm.mu.Unlock()
		return len(p.warm.waiting)
	}
	await(t, "two encoders are warm", func() bool { return warm() == 2 })
	src := startSource(t, l, 3*time.Second)
	c := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 2}, Live: 1, Backfill: 1, Index: true})
	await(t, "the segment is finished", func() bool { return c.progress().Finished >= 2 })
	if n := testutil.ToFloat64(p.metrics.coldStarts); n != 0 {
		t.Errorf("%v encoders were started cold", n)
	}
	await(t, "no encoder is kept for a broadcast of our own", func() bool { return warm() == 0 })
}

// Twice as many broadcasts as there is room for: each keeps its source, the
// highest rungs go first, and what isn't made lists a stand-in. Rungs come
// back when there is room.
func TestOverload(t *testing.T) {
	t.Parallel()
	l := makeLog(t, 0, fmt.Sprintf(withSound, 6))
	f, err := testFFmpeg()
	if err != nil {
		t.Fatal(err)
	}
	specs, err := parseLadder(testLadder)
	if err != nil {
		t.Fatal(err)
	}
	rungs := buildLadder(specs, 320, 180, 30, 1)
	b := newBudget(2.1 * estimateCost(320, 180, 30, rungs))
	m := newMetrics(prometheus.NewRegistry(), b)
	var all []*worker
	sheds := 0
	for range 4 {
		rec := newRecord()
		w := newWorker(workerConfig{
			Grant: firstGrant, FFmpeg: f, Preset: "ultrafast", Ladder: specs, Budget: b, Publish: rec, Metrics: m,
			Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		})
		all = append(all, w)
		shed := 0
		err := w.run(t.Context(), func(ctx context.Context, out chan<- logEvent) error {
			for _, e := range l.from(0) {
				if e.mark != nil && e.mark.Kind == relay.Open {
					for w.unmade.Load() > 0 {
						time.Sleep(time.Millisecond) // polls a condition
					}
					shed = int(testutil.ToFloat64(m.rungsShed))
				}
				out <- e
			}
			return errLogEnded
		})
		if err != nil {
			t.Fatal(err)
		}
		// What the encoders cost here is measured as it goes: by the second
		// broadcast there may be room for one rung only.
		if before := sheds; w.encoding.shed < before || shed != w.encoding.shed || len(all) == 1 && shed != 0 || len(all) > 2 && shed != 2 {
			t.Errorf("broadcast %d: %d rungs are shed after %d, the metric says %d", len(all), w.encoding.shed, before, shed)
		}
		sheds = w.encoding.shed
		for _, name := range []string{sourceName, audioName, "96p30", "64p30"} {
			for n := range 3 {
				if rec.entries[fmt.Sprintf("%s/%d", name, n)].Type != index.TypeSegment {
					t.Errorf("broadcast %d: %s has no segment %d", len(all), name, n)
				}
			}
		}
	}
	b.release(all[0])
	late := all[3]
	s := &segment{tl: newTimeline(relay.Mark{Sequence: 9}, *late.settings)}
	late.segments = []*segment{s}
	if got := []int{late.balance(s), late.balance(s)}; got[0] == 0 {
		t.Errorf("with room again, %v rungs are made", got)
	}
	late.discardSpares()
}

// A worker without room doesn't wait for jobs, as those do that have some: Redis
// gives one to whoever waits. What nobody waits for it takes.
func TestJobsGoToWorkersWithRoom(t *testing.T) {
	t.Parallel()
	db := testenv.Redis(t)
	if err := db.XGroupCreateMkStream(t.Context(), jobs.Stream, jobs.Group, "0").Err(); err != nil {
		t.Fatal(err)
	}
	full := &Service{budget: newBudget(0), cfg: Config{Redis: db}}
	full.budget.cores = 0
	const looks = 3
	began := time.Now()
	for range looks {
		if job, err := full.nextJob(t.Context(), "full"); job != nil || err != nil {
			t.Fatalf("%+v, %v", job, err)
		}
	}
	if took := time.Since(began); took < looks*busyPause || took > looks*jobBlock {
		t.Errorf("a worker without room looked for jobs %d times in %s", looks, took)
	}
	if err := db.XAdd(t.Context(), &redis.XAddArgs{Stream: jobs.Stream, Values: map[string]any{jobs.Field: `{"broadcast":"b","ingest":"x"}`}}).Err(); err != nil {
		t.Fatal(err)
	}
	if job, err := full.nextJob(t.Context(), "full"); job == nil || err != nil {
		t.Errorf("a job that nobody else takes isn't taken: %v", err)
	}
}

// A rung that lags is shed, the highest first, but not at a short contention;
// catching up with the log is none.
func TestLaggingRungsAreShed(t *testing.T) {
	t.Parallel()
	const second = media.VideoTimescale
	for _, c := range []struct {
		name  string
		lags  []media.Ticks // of the segment before, at each mark
		burst bool
		stood bool // the process stood still just before
		again bool // the segment was begun again
		want  int
	}{
		{"on time", []media.Ticks{second / 10, second / 10}, false, false, false, 2},
		{"late once", []media.Ticks{second, second / 10}, false, false, false, 2},
		{"late twice", []media.Ticks{second, second}, false, false, false, 1},
		{"very late once", []media.Ticks{2 * second}, false, false, false, 1},
		{"very late for long", []media.Ticks{2 * second, 2 * second}, false, false, false, 0},
		{"catching up", []media.Ticks{2 * second, 2 * second}, true, false, false, 2},
		{"woken up", []media.Ticks{2 * second, 2 * second}, false, true, false, 2},
		{"begun again", []media.Ticks{2 * second, 2 * second}, false, false, true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBudget(0)
			w := newWorker(workerConfig{Budget: b, Metrics: newMetrics(prometheus.NewRegistry(), b), Log: slog.New(slog.DiscardHandler)})
			w.settings = &relay.Settings{Video: true, FrameRate: 30}
			w.video = &media.AVCConfig{Width: 320, Height: 180}
			w.encoding.rungs = buildLadder([]rungSpec{{96, 30, 150000}, {64, 30, 80000}}, 320, 180, 30, 1)
			w.encoding.patience = calmSegments
			got := 0
			for n, lag := range c.lags {
				start := media.Ticks(10+2*n) * second
				old := &segment{tl: newTimeline(relay.Mark{Start: start - 2*second}, *w.settings)}
				old.tl.cuts[0].at = start - lag // what is written until there
				r := &rungWork{segment: old, again: c.again}
				r.out = newRendering(old.tl, jobs.Epoch{}, "96p30", "", "p", second, 1)
				old.rungs = []*rungWork{r}
				s := &segment{tl: newTimeline(relay.Mark{Start: start}, *w.settings)}
				w.segments = []*segment{old, s}
				w.encoding.read = time.Now()
				if !c.burst {
					w.encoding.read = time.Now().Add(-2 * time.Second)
				}
				if c.stood {
					w.stood = time.Now()
				}
				got = w.balance(s)
			}
			if got != c.want {
				t.Errorf("%d rungs are made, want %d", got, c.want)
			}
		})
	}
}

// What one broadcast sheds, since its rungs are late, isn't room for another one;
// later, shed rungs come back one broadcast at a time.
func TestShedRungsComeBackOneByOne(t *testing.T) {
	t.Parallel()
	b := newBudget(1)
	one, two, now := &worker{}, &worker{}, time.Unix(1000, 0)
	for _, c := range []struct {
		name  string
		w     *worker
		cost  float64
		late  bool
		after time.Duration
		want  bool
	}{
		{"nothing is late", one, 0.3, false, 0, true},
		{"another one just before", two, 0.3, false, addPause / 2, false},
		{"the next", two, 0.3, false, addPause, true},
		{"a rung is late", one, 0.4, true, calmTime / 2, false},
		{"calm again", one, 0.4, false, calmTime, true},
		{"no room", two, 0.7, false, calmTime, false},
	} {
		if c.late {
			b.fellBehind(now)
		}
		now = now.Add(c.after)
		if got := b.add(c.w, c.cost, now); got != c.want {
			t.Errorf("%s: added %v, want %v", c.name, got, c.want)
		}
	}
}
