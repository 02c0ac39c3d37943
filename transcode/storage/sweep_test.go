package storage

import (
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

func TestSweep(t *testing.T) {
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	now := time.Now()
	ago := func(d time.Duration) float64 { return float64(now.Add(-d).UnixMilli()) }
	for _, c := range []struct {
		id            string
		ended, active time.Duration // ago; 0 means never
		gone          bool
	}{
		{"live", 0, time.Minute, false},
		{"ended", time.Hour, time.Hour, false},
		{"ended-long-ago", 130 * time.Minute, 130 * time.Minute, true},
		{"silent", 0, 150 * time.Minute, false},
		{"silent-for-long", 0, 190 * time.Minute, true},
	} {
		ctx := t.Context()
		for n := range uint64(3) {
			if err := bucket.Put(ctx, objects.SegmentKey(c.id, 7, "v", n, "p"), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		db.XAdd(ctx, &redis.XAddArgs{Stream: index.StreamKey(c.id), Values: []any{index.Field, "{}"}})
		db.ZAdd(ctx, activeKey, redis.Z{Score: ago(c.active), Member: c.id})
		if c.ended > 0 {
			db.ZAdd(ctx, endedKey, redis.Z{Score: ago(c.ended), Member: c.id})
		}
	}
	m := newMetrics(nil)
	s := &sweeper{db: db, bucket: bucket, retention: 2 * time.Hour, silence: 3 * time.Hour, log: slog.New(slog.DiscardHandler), metrics: m}

	// Another worker is at it.
	if err := db.Set(t.Context(), sweepKey, "another", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.sweep(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if v := db.Get(t.Context(), sweepKey).Val(); v != "another" {
		t.Errorf("the other worker's lock is %q", v)
	}
	if n := value(t, m.sweptObjects); n != 0 {
		t.Errorf("%g objects were deleted under another's lock", n)
	}
	db.Del(t.Context(), sweepKey)

	if err := s.sweep(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	for id, stays := range map[string]bool{"live": true, "ended": true, "ended-long-ago": false, "silent": true, "silent-for-long": false} {
		ok, err := bucket.Exists(t.Context(), objects.SegmentKey(id, 7, "v", 1, "p"))
		if err != nil || ok != stays {
			t.Errorf("%s is in S3: %t, %v; want %t", id, ok, err, stays)
		}
		if n := db.Exists(t.Context(), index.StreamKey(id)).Val(); n == 1 != stays {
			t.Errorf("%s has %d indexes in Redis", id, n)
		}
	}
	if n, b := value(t, m.sweptObjects), value(t, m.sweptBroadcasts); n != 6 || b != 2 {
		t.Errorf("%g objects of %g broadcasts were deleted, want 6 of 2", n, b)
	}
	if n := db.Exists(t.Context(), sweepKey).Val(); n != 0 {
		t.Error("the lock is kept")
	}
	// The ended one stays on the list until it has been silent: a segment that
	// comes late is deleted then.
	if err := bucket.Put(t.Context(), objects.SegmentKey("ended-long-ago", 7, "v", 9, "p"), []byte("late")); err != nil {
		t.Fatal(err)
	}
	if err := s.sweep(t.Context(), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if ok, err := bucket.Exists(t.Context(), objects.SegmentKey("ended-long-ago", 7, "v", 9, "p")); err != nil || ok {
		t.Errorf("a late segment stays: %t, %v", ok, err)
	}
	if _, err := db.ZScore(t.Context(), activeKey, "ended-long-ago").Result(); err != redis.Nil {
		t.Errorf("it stays on the list: %v", err)
	}
}

func TestSweepByManyWorkers(t *testing.T) {
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	now := time.Now()
	const broadcasts = sweepBroadcasts + 5
	for n := range broadcasts {
		db.ZAdd(t.Context(), endedKey, redis.Z{Score: 1, Member: "b" + strconv.Itoa(n)})
	}
	if err := bucket.Put(t.Context(), objects.SegmentKey("b7", 7, "v", 1, "p"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	sweepers := make([]*sweeper, 4)
	var wg sync.WaitGroup
	for i := range sweepers {
		sweepers[i] = &sweeper{db: db, bucket: bucket, retention: time.Hour, silence: 2 * time.Hour, log: slog.New(slog.DiscardHandler), metrics: newMetrics(nil)}
		wg.Go(func() {
			if err := sweepers[i].sweep(t.Context(), now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := db.ZCard(t.Context(), endedKey).Val(); n > broadcasts-sweepBroadcasts {
		t.Errorf("%d broadcasts are left", n)
	}
	if err := sweepers[0].sweep(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if n := db.ZCard(t.Context(), endedKey).Val(); n != 0 {
		t.Errorf("%d broadcasts are left after the second pass", n)
	}
	if ok, err := bucket.Exists(t.Context(), objects.SegmentKey("b7", 7, "v", 1, "p")); err != nil || ok {
		t.Errorf("the object stays: %t, %v", ok, err)
	}
}
