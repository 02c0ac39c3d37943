package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/index"
	"millrace/internal/objects"
	"millrace/internal/testenv"
	"millrace/internal/window"
)

func TestOneFetchForAll(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	hold := make(chan struct{})
	st.worker.mu.Lock()
	st.worker.hold = hold
	st.worker.mu.Unlock()
	path := window.Media{Broadcast: "b1", Rendition: "source", Epoch: 7, Sequence: 1, Part: 3, Profile: testProfile}.Path()

	// The one that begins the fetch leaves; the fetch goes on for the others.
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = st.fetch(ctx, st.media("source/7.1.3.p1.m4s"))
	}()
	st.eventually("something is fetched", func() bool { return st.worker.fetched(path) > 0 })
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			a, err := st.fetch(t.Context(), st.media("source/7.1.3.p1.m4s"))
			if err != nil || a.body != string(partData("source", 1, 3)) {
				t.Errorf("%d %v", a.status, err)
			}
		})
	}
	st.eventually("all are aboard", func() bool { return st.service.cache.aboard() == 21 })
	cancel()
	<-gone
	st.eventually("the first one has left", func() bool { return st.service.cache.aboard() == 20 })
	close(hold)
	group.Wait()
	if n := st.worker.fetched(path); n != 1 {
		t.Errorf("%d fetches for 21 requests, want 1", n)
	}
}

func TestSegmentIsJoinedFromCachedParts(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	for part := range partsEach {
		st.want(200, st.media(fmt.Sprintf("source/7.0.%d.p1.m4s", part)))
	}
	if a := st.want(200, st.media("source/7.0.p1.m4s")); a.body != string(segmentData("source", 0)) {
		t.Error("the segment differs")
	}
	path := window.Media{Broadcast: "b1", Rendition: "source", Epoch: 7, Sequence: 0, Part: window.WholeSegment, Profile: testProfile}.Path()
	if n := st.worker.fetched(path); n != 0 {
		t.Errorf("the segment was fetched %d times", n)
	}
}

func TestPartIsCutFromCachedSegment(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	st.want(200, st.media("source/7.0.p1.m4s"))
	if a := st.want(200, st.media("source/7.0.4.p1.m4s")); a.body != string(partData("source", 0, 4)) {
		t.Error("the part differs")
	}
	path := window.Media{Broadcast: "b1", Rendition: "source", Epoch: 7, Sequence: 0, Part: 4, Profile: testProfile}.Path()
	if n := st.worker.fetched(path); n != 0 {
		t.Errorf("the part was fetched %d times", n)
	}
}

func TestBucketServesWhatNoWorkerHas(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	st.worker.mu.Lock()
	clear(st.worker.media)
	st.worker.mu.Unlock()
	if code(t, st.want(404, st.media("source/7.0.p1.m4s"))) != "unknown_media" {
		t.Error("found nowhere, but answered")
	}
	for key, data := range map[string]string{
		objects.SegmentKey("b1", 7, "source", 0, testProfile): string(segmentData("source", 0)),
		objects.InitKey("b1", 7, "source", "isource"):         "init",
	} {
		if err := st.bucket.Put(t.Context(), key, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if a := st.want(200, st.media("source/7.0.1.p1.m4s")); a.body != string(partData("source", 0, 1)) {
		t.Error("the part cut from the object differs")
	}
	if a := st.want(200, st.media("source/7.0.p1.m4s")); a.body != string(segmentData("source", 0)) {
		t.Error("the segment differs")
	}
	if a := st.want(200, st.media("source/init-isource.mp4")); a.body != "init" {
		t.Error("the init section differs")
	}
}

// The worker that made a part died with it: who asks waits until the next one has
// made it again.
func TestPartOfADeadWorkerIsWaitedFor(t *testing.T) {
	t.Parallel()
	st := newStage(t, func(s *Service) { s.partPatience = time.Minute })
	st.want(200, "/hls/demo/index.m3u8")
	st.worker.mu.Lock()
	clear(st.worker.media)
	st.worker.mu.Unlock()
	answered := make(chan answer, 1)
	go func() {
		a, err := st.fetch(t.Context(), st.media("source/7.2.0.p1.m4s"))
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	path := window.Media{Broadcast: "b1", Rendition: "source", Epoch: 7, Sequence: 2, Part: 0, Profile: testProfile}.Path()
	testenv.Await(t.Context(), func() bool { return st.worker.fetched(path) > 1 })
	st.worker.put(path, partData("source", 2, 0))
	if a := <-answered; a.status != 200 || a.body != string(partData("source", 2, 0)) {
		t.Errorf("%d %.100s", a.status, a.body)
	}
}

func TestWrongSizeIsRefused(t *testing.T) {
	t.Parallel()
	st := newStage(t, func(s *Service) { s.partPatience = 0 })
	st.want(200, "/hls/demo/index.m3u8")
	path := window.Media{Broadcast: "b1", Rendition: "source", Epoch: 7, Sequence: 1, Part: 0, Profile: testProfile}.Path()
	for _, data := range []string{"short", strings.Repeat("long", 1000)} {
		st.worker.put(path, []byte(data))
		a := st.want(502, st.media("source/7.1.0.p1.m4s"))
		if code(t, a) != "upstream_failed" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%v %s", a.header, a.body)
		}
	}
	st.worker.put(path, partData("source", 1, 0))
	st.want(200, st.media("source/7.1.0.p1.m4s"))
}

func TestColdStartFromRedisAndBucket(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newEdge(t)
	st.goLive()
	put := func(e index.Entry) {
		doc, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.db.XAdd(t.Context(), xadd("b1", doc)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	put(index.Entry{Type: index.TypeBroadcast, Writer: st.epoch, Broadcast: testSettings()})
	say := func(sequence uint64) {
		for _, r := range []string{"source", "audio"} {
			data := segmentData(r, sequence)
			if err := st.bucket.Put(t.Context(), objects.SegmentKey("b1", 7, r, sequence, testProfile), data); err != nil {
				t.Fatal(err)
			}
			put(index.Entry{
				Type: index.TypeSegment, Writer: st.epoch, Rendition: r, Init: "i" + r, Epoch: 7, Sequence: sequence,
				Profile: testProfile, Duration: 180000, Size: len(data), Parts: partsEach,
				Time: testSettings().Started.Add(time.Duration(sequence) * 2 * time.Second),
			})
		}
	}
	// 8 never came, so the playlist begins after it.
	for _, sequence := range []uint64{6, 7, 10, 9, 11} {
		say(sequence)
	}
	st.want(200, "/hls/demo/index.m3u8")
	a := st.want(200, st.media("source/index.m3u8"))
	if !strings.Contains(a.body, "#EXT-X-MEDIA-SEQUENCE:9\n") || !strings.Contains(a.body, "7.11.p1.m4s") {
		t.Errorf("%s", a.body)
	}
	if a := st.want(200, st.media("audio/7.10.p1.m4s")); a.body != string(segmentData("audio", 10)) {
		t.Error("the segment differs")
	}
	// Without a worker in reach the index goes on through Redis.
	say(12)
	st.until(st.media("source/index.m3u8"), func(a answer) bool { return strings.Contains(a.body, "7.12.p1.m4s") })
}

// A segment is listed, and then dropped on its way to S3. It is served for as
// long as anybody has it; the first request that finds it nowhere makes it a gap.
func TestLostSegmentIsAGap(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	playlist := st.want(200, st.media("source/index.m3u8")).body
	whole := window.Media{Broadcast: st.broadcast, Rendition: "source", Epoch: 7, Sequence: 0, Part: window.WholeSegment, Profile: testProfile}
	for sequence := range uint64(2) {
		st.worker.say(index.Entry{
			Type: index.TypeGap, Writer: st.epoch, Rendition: "source", Init: "isource", Epoch: 7, Sequence: sequence,
			Profile: testProfile, Duration: partsEach * partTicks,
		})
	}
	st.worker.part(st.epoch, 2, 1)
	const next = "#EXT-X-PART:DURATION=0.33333,URI=\"7.2.1" // it was hinted at before
	told := func(a answer) bool { return strings.Contains(a.body, next) }
	got, _, _ := strings.Cut(st.until(st.media("source/index.m3u8"), told).body, next)
	if before, _, _ := strings.Cut(playlist, "#EXT-X-PRELOAD-HINT"); got != before {
		t.Errorf("what is listed changed although it is there:\n%s", got)
	}
	st.want(200, st.media("source/7.1.p1.m4s"))

	st.worker.mu.Lock()
	delete(st.worker.media, whole.Path())
	st.worker.mu.Unlock()
	st.want(404, st.media("source/7.0.other.m4s"))
	st.want(404, st.media("source/7.0.p1.m4s"))
	got = st.want(200, st.media("source/index.m3u8")).body
	if !strings.Contains(got, "#EXT-X-GAP\n#EXTINF:2.00000,\n7.0.p1.m4s\n") || strings.Count(got, "EXT-X-GAP") != 1 || strings.Count(got, "GAP=YES") != partsEach {
		t.Errorf("it isn't listed as a gap:\n%s", got)
	}
	st.want(200, st.media("source/7.1.p1.m4s"))
}
