package storage

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

func TestStorage(t *testing.T) {
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	r := startStorage(t, Config{Redis: db, Bucket: bucket})
	p := r.Open("b", "c", grantOf(1, 3, 3))
	p.Broadcast(index.Broadcast{TargetDuration: 4, PartTarget: 1, Renditions: []index.Rendition{{Name: "v"}, {Name: "a"}}})
	for _, rendition := range []string{"v", "a"} {
		p.Init(rendition, &media.Init{Hash: "i", Data: []byte("init")}, index.Entry{Epoch: 7})
		p.Init(rendition, &media.Init{Hash: "i", Data: []byte("init")}, index.Entry{Epoch: 7})
		for n := uint64(3); n < 6; n++ {
			publish(t, p, rendition, n)
		}
	}
	p.Gap(index.Entry{Rendition: "v", Sequence: 6, Duration: second})
	p.Skip("v", 7)
	p.End(8, "done")

	count := map[index.Type]int{}
	for _, e := range readIndex(t, db, "b", 11) {
		count[e.Type]++
		if e.Type == index.TypeSegment {
			got, err := bucket.Get(t.Context(), objects.SegmentKey("b", e.Epoch, e.Rendition, e.Sequence, e.Profile))
			if err != nil || string(got) != wholeData(e.Rendition, e.Sequence) || len(got) != e.Size {
				t.Errorf("%s%d in S3 is %q, %v", e.Rendition, e.Sequence, got, err)
			}
		}
	}
	if count[index.TypeBroadcast] != 1 || count[index.TypeInit] != 2 || count[index.TypeSegment] != 6 || count[index.TypeGap] != 1 || count[index.TypeEnd] != 1 {
		t.Errorf("the index has %v", count)
	}
	awaitSafe(t, p, 6) // a6 doesn't exist
	r.stop()
	if n := value(t, r.metrics.uploads.WithLabelValues("ok")); n != 8 {
		t.Errorf("%g uploads, want 8", n)
	}
	ttl, err := db.PTTL(t.Context(), index.StreamKey("b")).Result()
	if err != nil || ttl < 2*time.Hour || ttl > 3*time.Hour {
		t.Errorf("the index lives for %s, %v", ttl, err)
	}
	for _, key := range []string{endedKey, activeKey} {
		if at, err := db.ZScore(t.Context(), key, "b").Result(); err != nil || time.Since(time.UnixMilli(int64(at))) > time.Minute {
			t.Errorf("%s has b at %f, %v", key, at, err)
		}
	}
	if p.Part(partEntry("a", 6, 0), []byte("x")) != nil {
		t.Error("publishing after the end of the service fails")
	}
}

func TestStorageSurvivesS3(t *testing.T) {
	for _, fault := range []string{"503", "hang", "closed"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			db := testenv.Redis(t)
			bucket, s3, start := newFaultyS3(t)
			if fault != "closed" {
				s3.set(fault)
				start()
			}
			r := startStorage(t, Config{Redis: db, Bucket: bucket})
			p := r.Open("b", "c", grantOf(1, 0, 0))
			for n := range uint64(20) {
				publish(t, p, "v", n)
			}
			r.waitSpooled()
			if fault != "closed" {
				<-s3.refused
			}
			if s, f := p.Safe(), p.Finished(); s != 0 || f != 20 {
				t.Errorf("safe %d, finished %d", s, f)
			}
			if fault == "closed" {
				start()
			}
			s3.set("")
			r.waitUploaded()
			if got := len(readIndex(t, db, "b", 20)); got != 20 {
				t.Errorf("%d entries in the index, want 20", got)
			}
			awaitSafe(t, p, 20)
		})
	}
}

func TestStorageDropsTheOldest(t *testing.T) {
	db := testenv.Redis(t)
	bucket, s3, start := newFaultyS3(t)
	s3.set("503")
	start()
	const bound = 2 << 10
	r := startStorage(t, Config{Redis: db, Bucket: bucket, SpoolBytes: bound, Uploads: 1})
	p := r.Open("b", "c", grantOf(1, 0, 0))
	p.Init("v", &media.Init{Hash: "i", Data: []byte("init")}, index.Entry{Epoch: 7})
	_, follow := p.store.follow()
	for n := range uint64(30) {
		publish(t, p, "v", n)
		r.waitSpooled()
		r.uploader.mu.Lock()
		if r.uploader.disk > bound {
			t.Errorf("the spool has %d bytes, the bound is %d", r.uploader.disk, bound)
		}
		r.uploader.mu.Unlock()
	}
	s3.set("")
	r.waitUploaded()
	r.stop()

	var gaps []uint64
	for len(follow.lines) > 0 {
		entries, err := index.ParseLine(<-follow.lines)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Type == index.TypeGap {
				gaps = append(gaps, e.Sequence)
				if !strings.Contains(e.Reason, dropFull) {
					t.Errorf("the reason of a gap is %q", e.Reason)
				}
			}
		}
	}
	if !slices.IsSorted(gaps) || len(gaps) < 20 {
		t.Errorf("the gaps are %v", gaps)
	}
	if n := value(t, r.metrics.spoolDropped.WithLabelValues(dropFull)); int(n) != len(gaps) {
		t.Errorf("%g drops are counted, %d gaps announced", n, len(gaps))
	}
	inIndex := map[uint64]index.Type{}
	for _, e := range readIndex(t, db, "b", 31) {
		if e.Type == index.TypeInit {
			continue
		}
		inIndex[e.Sequence] = e.Type
	}
	for n := range uint64(30) {
		ok, err := bucket.Exists(t.Context(), objects.SegmentKey("b", 7, "v", n, "p"))
		if err != nil {
			t.Fatal(err)
		}
		if gone := slices.Contains(gaps, n); ok == gone || (inIndex[n] == index.TypeGap) != gone {
			t.Errorf("segment %d: in S3 %t, a gap %t, in the index a %s", n, ok, gone, inIndex[n])
		}
	}
	if ok, err := bucket.Exists(t.Context(), objects.InitKey("b", 7, "v", "i")); err != nil || !ok {
		t.Errorf("the init section was dropped: %v", err)
	}
	awaitSafe(t, p, 30)
}

func TestStorageRestart(t *testing.T) {
	db := testenv.Redis(t)
	bucket, _, start := newFaultyS3(t)
	dir := t.TempDir()
	c := Config{Redis: db, Bucket: bucket, SpoolDir: dir, Drain: time.Millisecond}
	first := startStorage(t, c)
	p := first.Open("b", "c", grantOf(1, 0, 0))
	p.Init("v", &media.Init{Hash: "i", Data: []byte("init")}, index.Entry{Epoch: 7})
	for n := range uint64(5) {
		publish(t, p, "v", n)
	}
	first.waitSpooled()

	second := New(Config{Redis: db, Bucket: bucket, SpoolDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err := second.Run(t.Context()); !errors.Is(err, errSpoolInUse) {
		t.Errorf("a second process in the same spool: %v, want %v", err, errSpoolInUse)
	}
	first.stop()

	start()
	again := startStorage(t, c)
	p = again.Open("b", "c", grantOf(2, 3, 0))
	publish(t, p, "v", 3) // it is in the spool already
	again.waitUploaded()
	found := map[string]bool{}
	for _, e := range readIndex(t, db, "b", 6) {
		found[say([][]index.Entry{{e}})] = true
	}
	for _, want := range []string{"init", "v0", "v1", "v2", "v3", "v4"} {
		if !found[want] {
			t.Errorf("the index lacks %s: %v", want, found)
		}
	}
	for n := range uint64(5) {
		if got, err := bucket.Get(t.Context(), objects.SegmentKey("b", 7, "v", n, "p")); err != nil || string(got) != wholeData("v", n) {
			t.Errorf("segment %d in S3 is %q, %v", n, got, err)
		}
	}
	awaitSafe(t, p, 5)
}

// What gives way to newer segments in a spool that an earlier process left is a
// gap in the index, though this process has never worked on that broadcast.
func TestStorageDropsWhatAnEarlierProcessLeft(t *testing.T) {
	db := testenv.Redis(t)
	bucket, _, _ := newFaultyS3(t)
	const segments = 5
	c := Config{Redis: db, Bucket: bucket, SpoolDir: t.TempDir(), Drain: time.Millisecond}
	first := startStorage(t, c)
	p := first.Open("b", "c", grantOf(1, 0, 0))
	for n := range uint64(segments) {
		publish(t, p, "v", n)
	}
	first.waitSpooled()
	first.stop()

	c.SpoolBytes, c.Uploads = first.uploader.disk/segments*3, 1
	again := startStorage(t, c)
	publish(t, again.Open("c", "c", grantOf(2, 0, 0)), "v", 0)
	again.waitSpooled()
	dropped := int(value(t, again.metrics.spoolDropped.WithLabelValues(dropFull)))
	if dropped == 0 {
		t.Fatal("nothing gave way")
	}
	gaps := map[uint64]bool{} // one that is just being uploaded stays
	for _, e := range readIndex(t, db, "b", dropped) {
		gaps[e.Sequence] = true
		if e.Type != index.TypeGap || e.Rendition != "v" || e.Duration != segmentEntry("v", e.Sequence).Duration || !strings.Contains(e.Reason, dropFull) {
			t.Errorf("the index has %+v", e)
		}
	}
	if len(gaps) != dropped {
		t.Errorf("%d drops are counted, the gaps are %v", dropped, gaps)
	}
}

func TestStorageDrainsAtTheEnd(t *testing.T) {
	db := testenv.Redis(t)
	bucket, s3, start := newFaultyS3(t)
	s3.set("503")
	start()
	r := startStorage(t, Config{Redis: db, Bucket: bucket, Drain: time.Minute})
	p := r.Open("b", "c", grantOf(1, 0, 0))
	for n := range uint64(8) {
		publish(t, p, "v", n)
	}
	go func() {
		<-s3.refused
		<-r.stopped
		s3.set("")
	}()
	r.stop()
	if got := len(readIndex(t, db, "b", 8)); got != 8 {
		t.Errorf("%d entries in the index, want 8", got)
	}
}

// The process gives its services 2 s to stop, and Redis has a share of them.
func TestStorageStopsInTime(t *testing.T) {
	db := testenv.Redis(t)
	bucket, s3, start := newFaultyS3(t)
	s3.set("hang")
	start()
	r := startStorage(t, Config{Redis: db, Bucket: bucket})
	p := r.Open("b", "c", grantOf(1, 0, 0))
	publish(t, p, "v", 0)
	r.waitSpooled()
	<-s3.refused
	begin := time.Now()
	r.stop()
	if took := time.Since(begin); took >= 1500*time.Millisecond {
		t.Errorf("stopping while S3 hangs took %s, want less than 1.5 s", took)
	}
}

func TestStorageSurvivesRedis(t *testing.T) {
	server := testenv.StartRedis(t)
	db, bucket := server.Client(), testenv.Bucket(t)
	server.Stop()
	r := startStorage(t, Config{Redis: db, Bucket: bucket})
	p := r.Open("b", "c", grantOf(1, 0, 0))
	for n := range uint64(300) {
		publish(t, p, "v", n)
	}
	p.End(300, "done")
	r.waitUploaded()
	server.Start()
	found := map[string]int{}
	for _, e := range readIndex(t, db, "b", 301) {
		found[say([][]index.Entry{{e}})]++
	}
	if len(found) != 301 {
		t.Errorf("%d different entries in the index, want 301", len(found))
	}
	r.stop()
	for _, key := range []string{endedKey, activeKey} {
		if n, err := db.ZCard(t.Context(), key).Result(); err != nil || n != 1 {
			t.Errorf("%s has %d broadcasts, %v; want 1", key, n, err)
		}
	}
}

func TestStorageConflict(t *testing.T) {
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	if err := bucket.Put(t.Context(), objects.SegmentKey("b", 7, "v", 0, "p"), []byte("made by another worker")); err != nil {
		t.Fatal(err)
	}
	r := startStorage(t, Config{Redis: db, Bucket: bucket})
	p := r.Open("b", "c", grantOf(1, 0, 0))
	publish(t, p, "v", 0)
	publish(t, p, "v", 1)
	readIndex(t, db, "b", 1)
	r.waitUploaded()
	r.stop()
	if n := value(t, r.metrics.conflicts.WithLabelValues("object")); n != 1 {
		t.Errorf("%g alarms, want 1", n)
	}
	if n := value(t, r.metrics.uploads.WithLabelValues("conflict")); n != 1 {
		t.Errorf("%g conflicts, want 1: they aren't retried", n)
	}
	awaitSafe(t, p, 2)
	if err := p.Part(partEntry("v", 1, 0), []byte("else")); !errors.Is(err, errDiffers) {
		t.Errorf("a part with other bytes: %v, want %v", err, errDiffers)
	}
	if n := value(t, r.metrics.conflicts.WithLabelValues("part")); n != 1 {
		t.Errorf("%g alarms for parts, want 1", n)
	}
}

func TestStorageFencesAnEarlierGrant(t *testing.T) {
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	first := s.Open("b", "c", grantOf(1, 0, 0))
	publish(t, first, "v", 0)
	second := s.Open("b", "c", grantOf(2, 1, 0))
	if err := first.Part(partEntry("v", 1, 0), []byte("x")); !errors.Is(err, ErrFenced) {
		t.Errorf("the earlier grant: %v, want %v", err, ErrFenced)
	}
	first.End(1, "no")
	first.Close()
	third := s.Open("b", "c", grantOf(1, 0, 0))
	if third.Part(partEntry("v", 1, 0), []byte("x")) == nil {
		t.Error("a grant that comes late may publish from the live mark on")
	}
	third.Close()
	publish(t, second, "v", 1)
	if got := say(second.store.catalogue.snapshot()); got != "v0.0 v0.1 v0 v1.0 v1.1 v1" {
		t.Errorf("a new reader is told %s", got)
	}
	s.forget(time.Now().Add(time.Hour))
	if s.find("b") == nil {
		t.Fatal("a broadcast with a claim is forgotten")
	}
	second.Close()
	s.forget(time.Now().Add(ForgetAfter / 2))
	if s.find("b") == nil {
		t.Fatal("it is forgotten early")
	}
	s.forget(time.Now().Add(ForgetAfter))
	if s.find("b") != nil {
		t.Error("it isn't forgotten")
	}
}

func TestPublicationConcurrently(t *testing.T) {
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	r := startStorage(t, Config{Redis: db, Bucket: bucket})
	mux := http.NewServeMux()
	r.Routes(mux)
	p := r.Open("b", "c", grantOf(1, 0, 0))
	renditions := []string{"v", "w", "a"}
	const segments = 12
	var makers, readers sync.WaitGroup
	for _, rendition := range renditions {
		// Several processes make a rendition's segments at a time, two make each.
		const parallel = 4
		makers.Go(func() {
			for first := uint64(0); first < segments; first += parallel {
				var round sync.WaitGroup
				for i := range uint64(2 * parallel) {
					round.Go(func() {
						n := first + i%parallel
						for part := range 2 {
							if err := p.Part(partEntry(rendition, n, part), partData(rendition, n, part)); err != nil {
								t.Error(err)
							}
						}
						if err := p.Finish(index.Entry{}, nil, segmentEntry(rendition, n)); err != nil {
							t.Error(err)
						}
						p.Thumbnail([]byte("jpeg"))
					})
				}
				round.Wait()
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		readers.Go(func() {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/follow/b", nil))
			next := map[string]uint64{}
			for line := range strings.Lines(w.Body.String()) {
				entries, err := index.ParseLine([]byte(line))
				if err != nil {
					t.Error(err)
				}
				for _, e := range entries {
					if e.Type != index.TypeSegment {
						continue
					}
					if e.Sequence != next[e.Rendition] {
						t.Errorf("%s%d was shown, %d is next", e.Rendition, e.Sequence, next[e.Rendition])
					}
					next[e.Rendition] = e.Sequence + 1
				}
			}
		})
		readers.Go(func() {
			for n := 0; ctx.Err() == nil; n = (n + 1) % segments {
				w := httptest.NewRecorder()
				f := "/window/b/v/" + string(rune('0'+n%10)) + ".m4s?v=7.p"
				mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", f, nil))
				if w.Code == http.StatusOK && w.Body.String() != wholeData("v", uint64(n%10)) {
					t.Errorf("%s is %q", f, w.Body)
				}
			}
		})
	}
	makers.Wait()
	p.End(segments, "done")
	readIndex(t, db, "b", segments*len(renditions)+1)
	cancel()
	readers.Wait()
	awaitSafe(t, p, segments)
}
