package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/testenv"
)

// startRecorder runs a recorder that looks whether all is there still each check, until the test's end or stop.
func startRecorder(t *testing.T, db redis.UniversalClient, check time.Duration) (r *recorder, stop func()) {
	t.Helper()
	r = newRecorder(recorderConfigOf(db, check))
	return r, runRecorder(t, r)
}

// recorderConfigOf is that of a recorder by itself.
func recorderConfigOf(db redis.UniversalClient, check time.Duration) recorderConfig {
	return recorderConfig{
		Redis: db, Expire: time.Hour, Check: check, Log: slog.New(slog.DiscardHandler), Metrics: newMetrics(nil),
		Written: func(string, index.Entry) {}, Again: func(string) {},
	}
}

func runRecorder(t *testing.T, r *recorder) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.run(ctx, time.Second) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return stop
}

// indexed returns the sequences in a broadcast's index, in order.
func indexed(t *testing.T, db redis.UniversalClient) (sequences []uint64) {
	t.Helper()
	messages, err := db.XRange(t.Context(), index.StreamKey("b"), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		e, err := index.Parse([]byte(m.Values[index.Field].(string)))
		if err != nil {
			t.Fatal(err)
		}
		sequences = append(sequences, e.Sequence)
	}
	return sequences
}

// eventually fails the test when is isn't true within half a minute.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	testenv.Eventually(t, 30*time.Second, func() error {
		if !is() {
			return fmt.Errorf("waited in vain until %s", what)
		}
		return nil
	})
}

// cutAnswers is a connection on which answers are lost while cut is set.
type cutAnswers struct {
	net.Conn
	cut *atomic.Bool
}

func (c cutAnswers) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.cut.Load() {
		c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// The write got through and its answer didn't: tried again, it is no duplicate.
func TestRecorderRetryIsNoDuplicate(t *testing.T) {
	server := testenv.StartRedis(t)
	var cut atomic.Bool
	db := redis.NewClient(&redis.Options{
		MaxRetries: 2, ContextTimeoutEnabled: true,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(server.URL(), "unix://"))
			return cutAnswers{c, &cut}, err
		},
	})
	t.Cleanup(func() { _ = db.Close() })
	if err := db.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	// No look may break the one connection before the writes use it.
	r, stop := startRecorder(t, db, time.Hour)
	direct := server.Client()
	r.add("b", segmentEntry("v", 0), 1000)
	eventually(t, "the first entry is written", func() bool { return len(indexed(t, direct)) == 1 })
	cut.Store(true)
	for n := uint64(1); n < 4; n++ {
		r.add("b", segmentEntry("v", n), 1000)
	}
	eventually(t, "an answer is lost", func() bool { return len(indexed(t, direct)) > 1 && value(t, r.Metrics.indexErrors) > 0 })
	cut.Store(false)
	r.add("b", segmentEntry("v", 4), 1000)
	eventually(t, "the last entry is written", func() bool { n := indexed(t, direct); return n[len(n)-1] == 4 })
	stop()
	if got := fmt.Sprint(indexed(t, direct)); got != "[0 1 2 3 4]" {
		t.Errorf("the index has %s", got)
	}
}

// A failover may lose what was acknowledged: it is written again, and only that.
func TestRecorderWritesAgainWhatRedisLost(t *testing.T) {
	db := testenv.Redis(t)
	r, stop := startRecorder(t, db, 100*time.Millisecond)
	for n := range uint64(4) {
		r.add("b", segmentEntry("v", n), 1000)
	}
	eventually(t, "four are written", func() bool { return len(indexed(t, db)) == 4 })
	stream, err := db.Dump(t.Context(), index.StreamKey("b")).Result()
	if err != nil {
		t.Fatal(err)
	}
	counts, err := db.Dump(t.Context(), countsKey("b")).Result()
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(4); n < 7; n++ {
		r.add("b", segmentEntry("v", n), 1000)
	}
	eventually(t, "seven are written", func() bool { return len(indexed(t, db)) == 7 })
	// The replica that becomes the master hasn't got the last three.
	_, err = db.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		p.RestoreReplace(t.Context(), index.StreamKey("b"), 0, stream)
		p.RestoreReplace(t.Context(), countsKey("b"), 0, counts)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Nothing new comes: a look finds it.
	eventually(t, "they are written again", func() bool { return len(indexed(t, db)) == 7 })
	r.add("b", segmentEntry("v", 7), 1000)
	eventually(t, "the next one is written", func() bool { return len(indexed(t, db)) >= 8 })
	stop()
	if got := fmt.Sprint(indexed(t, db)); got != "[0 1 2 3 4 5 6 7]" {
		t.Errorf("the index has %s", got)
	}
	if n := value(t, r.Metrics.indexLost); n != 3 {
		t.Errorf("%g are counted as lost, want 3", n)
	}
}

// A Redis that comes back with nothing gets all that the worker knows.
func TestStorageWritesAWholeIndexAgain(t *testing.T) {
	server := testenv.StartRedis(t)
	db, bucket := server.Client(), testenv.Bucket(t)
	r := startStorage(t, Config{Redis: db, Bucket: bucket})
	p := r.Open("b", "c", grantOf(1, 0, 0))
	p.Broadcast(index.Broadcast{TargetDuration: 4, PartTarget: 1, Renditions: []index.Rendition{{Name: "v"}}})
	p.Init("v", &media.Init{Hash: "i", Data: []byte("init")}, index.Entry{Epoch: 7})
	for n := range uint64(100) {
		publish(t, p, "v", n)
	}
	p.Gap(index.Entry{Rendition: "v", Sequence: 100, Duration: second})
	readIndex(t, db, "b", 103)
	server.Stop()
	server.Start()
	publish(t, p, "v", 101)
	p.End(102, "done")
	count := map[string]int{}
	eventually(t, "the index is whole", func() bool {
		clear(count)
		messages, err := db.XRange(t.Context(), index.StreamKey("b"), "-", "+").Result()
		if err != nil {
			return false
		}
		for _, m := range messages {
			e, err := index.Parse([]byte(m.Values[index.Field].(string)))
			if err != nil {
				t.Fatal(err)
			}
			count[say([][]index.Entry{{e}})]++
		}
		return len(count) == 105
	})
	for _, key := range []string{endedKey, activeKey} {
		eventually(t, "the sweep knows of the broadcast", func() bool { return db.ZCard(t.Context(), key).Val() == 1 })
	}
	if left := server.Client().HLen(t.Context(), countsKey("b")).Val(); left != 1 {
		t.Errorf("%d counts, want 1", left)
	}
}

// A process that dies when S3 has a segment and Redis doesn't know it yet tells
// of it when it starts again.
func TestStorageTellsOfWhatItStoredBeforeItDied(t *testing.T) {
	server := testenv.StartRedis(t)
	db, bucket, dir := server.Client(), testenv.Bucket(t), t.TempDir()
	server.Stop()
	first := startStorage(t, Config{Redis: db, Bucket: bucket, SpoolDir: dir})
	p := first.Open("b", "c", grantOf(1, 0, 0))
	for n := range uint64(5) {
		publish(t, p, "v", n)
	}
	first.waitUploaded()
	awaitSafe(t, p, 5)
	first.stop()
	server.Start()
	again := startStorage(t, Config{Redis: db, Bucket: bucket, SpoolDir: dir})
	found := map[string]bool{}
	for _, e := range readIndex(t, db, "b", 5) {
		found[say([][]index.Entry{{e}})] = true
	}
	if len(found) != 5 {
		t.Errorf("the index has %v", found)
	}
	again.waitUntil("the spool is empty", func(u *uploader) bool { return len(u.items) == 0 })
}

// While Redis is away, files of what S3 has make room before anything is dropped.
func TestSpoolMakesRoomWithoutRedis(t *testing.T) {
	server := testenv.StartRedis(t)
	db, bucket := server.Client(), testenv.Bucket(t)
	server.Stop()
	const bound = 2 << 10
	r := startStorage(t, Config{Redis: db, Bucket: bucket, SpoolBytes: bound})
	p := r.Open("b", "c", grantOf(1, 0, 0))
	for n := range uint64(30) {
		publish(t, p, "v", n)
		r.waitUploaded()
		r.uploader.mu.Lock()
		if r.uploader.disk > bound {
			t.Errorf("the spool has %d bytes, the bound is %d", r.uploader.disk, bound)
		}
		r.uploader.mu.Unlock()
	}
	server.Start()
	for _, e := range readIndex(t, db, "b", 30) {
		if e.Type != index.TypeSegment {
			t.Errorf("segment %d is a %s", e.Sequence, e.Type)
		}
	}
}

// The index is whole after each kind of Sentinel failover, and a client of the
// kind that the services use writes again within seconds.
func TestRecorderOutlivesFailovers(t *testing.T) {
	s := testenv.Sentinel(t)
	o, err := redis.ParseFailoverURL(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	o.ContextTimeoutEnabled, o.DialerRetries, o.MaxRetries = true, 1, 2
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = time.Second, time.Second, time.Second
	db := redis.NewFailoverClient(o)
	t.Cleanup(func() { _ = db.Close() })
	var n atomic.Uint64
	var r *recorder
	c := recorderConfigOf(db, 100*time.Millisecond)
	// A master that Sentinel has replaced acknowledges writes until it is told,
	// for a second or two: more than the tail holds.
	c.Again = func(string) {
		for sequence := range n.Load() {
			r.add("b", segmentEntry("v", sequence), 100000)
		}
	}
	r = newRecorder(c)
	stop := runRecorder(t, r)

	whole := func(when string) {
		t.Helper()
		begin := time.Now()
		next := n.Add(1) - 1
		r.add("b", segmentEntry("v", next), 100000)
		eventually(t, "the index is whole "+when, func() bool {
			messages, err := db.XRange(t.Context(), index.StreamKey("b"), "-", "+").Result()
			if err != nil {
				return false
			}
			found := map[uint64]bool{}
			for _, m := range messages {
				e, err := index.Parse([]byte(m.Values[index.Field].(string)))
				if err != nil {
					t.Fatal(err)
				}
				found[e.Sequence] = true
			}
			return len(found) == int(next)+1
		})
		t.Logf("whole %s after %s, %d entries", when, time.Since(begin).Round(time.Millisecond), next+1)
	}
	feed := make(chan struct{})
	var feeding sync.WaitGroup
	feeding.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-feed:
				return
			case <-tick.C:
				r.add("b", segmentEntry("v", n.Add(1)-1), 100000)
			}
		}
	})
	eventually(t, "it is written", func() bool { return db.XLen(t.Context(), index.StreamKey("b")).Val() > 20 })
	s.Failover()
	hung := s.Master()
	s.Signal(hung, syscall.SIGSTOP)
	s.AwaitMaster(hung)
	s.Signal(hung, syscall.SIGCONT)
	close(feed)
	feeding.Wait()
	whole("after a planned failover and a hung master")
	stop()
	if n := value(t, r.Metrics.indexDropped.WithLabelValues("queue full")); n != 0 {
		t.Errorf("%g entries were dropped", n)
	}
	if err := db.Ping(t.Context()).Err(); err != nil && !errors.Is(err, redis.Nil) {
		t.Error(err)
	}
}
