package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/seal"
	"millrace/internal/testenv"
	"millrace/internal/window"
)

// next gives slot 0 to another worker under a higher epoch.
func (st *stage) next(w *fakeWorker) {
	st.t.Helper()
	st.epoch.Grant++
	st.slot(0, w)
}

// eventually waits until ok says true.
func (st *stage) eventually(what string, ok func() bool) {
	st.t.Helper()
	testenv.Eventually(st.t, 20*time.Second, func() error {
		if !ok() {
			return errors.New(what)
		}
		return nil
	})
}

// TestFormerWorkerIsHeard: a worker that handed its slot over still tells of
// the segment that it finishes.
func TestFormerWorkerIsHeard(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	old, oldEpoch := st.worker, st.epoch
	w := newFakeWorker(t, st.broadcast)
	st.next(w)
	w.begin(st.epoch)
	st.eventually("the next worker is followed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.follows > 0
	})
	w.part(st.epoch, 3, 0)
	for part := 1; part < partsEach; part++ {
		old.part(oldEpoch, 2, part)
	}
	st.until(st.media("source/index.m3u8"), func(a answer) bool {
		return strings.Contains(a.body, "7.2.p1.m4s") && strings.Contains(a.body, "7.3.0.p1.m4s")
	})
	st.want(200, st.media("source/7.2.5.p1.m4s"))

	// Its end is no fault.
	breaks := st.metric("follow_breaks_total")
	old.kill()
	st.eventually("the former worker is forgotten", func() bool { return st.metric("follows") == 1 })
	if n := st.metric("follow_breaks_total"); n != breaks {
		t.Errorf("%v breaks counted for a worker without a slot", n-breaks)
	}
}

// stopWindow has a worker accept requests for media and never answer, as a
// process does that was sent SIGSTOP.
func (w *fakeWorker) stopWindow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = make(chan struct{})
}

func TestFetchIsHedged(t *testing.T) {
	st := newStage(t)
	w := newFakeWorker(t, st.broadcast)
	st.want(200, "/hls/demo/index.m3u8")
	st.worker.stopWindow() // the only one that told of the segment so far
	path := window.Media{Broadcast: st.broadcast, Rendition: "source", Epoch: 7, Sequence: 1, Part: 3, Profile: testProfile}.Path()
	w.put(path, partData("source", 1, 3))
	st.next(w)
	w.begin(st.epoch)
	st.eventually("the next worker is known", func() bool { return st.metric("follows") == 2 })
	// The one that told of it is asked first, and lets the fetch wait.
	if got := st.want(200, st.media("source/7.1.3.p1.m4s")).body; got != string(partData("source", 1, 3)) {
		t.Error("the part differs")
	}
	if st.worker.fetched(path) != 1 || w.fetched(path) != 1 || st.metric("hedged_fetches_total") != 1 {
		t.Errorf("%d and %d fetches, %v hedged", st.worker.fetched(path), w.fetched(path), st.metric("hedged_fetches_total"))
	}
	// For a while it is asked last.
	path = window.Media{Broadcast: st.broadcast, Rendition: "source", Epoch: 7, Sequence: 1, Part: 4, Profile: testProfile}.Path()
	w.put(path, partData("source", 1, 4))
	st.want(200, st.media("source/7.1.4.p1.m4s"))
	if n := st.worker.fetched(path); n != 0 {
		t.Errorf("the worker that hangs was asked %d times", n)
	}
}

// TestFetchWaitsForNextWorker: a part that was told of by a worker that died
// is served when the next one has made it.
func TestFetchWaitsForNextWorker(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	st.worker.kill()
	got := make(chan answer, 1)
	go func() {
		a, _ := st.fetch(context.Background(), st.media("source/7.2.0.p1.m4s"))
		got <- a
	}()
	st.eventually("the dead worker was asked", func() bool { return st.metric("upstream_fetches_total", "worker", "error") > 0 })
	w := newFakeWorker(t, st.broadcast)
	w.begin(jobs.Epoch{Lease: 1, Grant: 2})
	w.part(jobs.Epoch{Lease: 1, Grant: 2}, 2, 0)
	st.next(w)
	if a := <-got; a.status != 200 || a.body != string(partData("source", 2, 0)) {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

// TestSilenceIsAPause: an ingest that died with its workers says no word of it.
func TestSilenceIsAPause(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t, withSilence)
	playlist := st.media("source/index.m3u8")
	st.until(playlist, func(a answer) bool { return strings.Contains(a.body, "PRELOAD-HINT") })
	st.until(playlist+"?_HLS_msn=1", func(a answer) bool { return !strings.Contains(a.body, "PRELOAD-HINT") })
	st.eventually("it is counted", func() bool { return st.metric("broadcasts_paused") == 1 })
	if a := st.want(200, playlist+"?_HLS_msn=2&_HLS_part=1"); strings.Contains(a.body, "7.2.1.p1.m4s") || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a released reload: %v\n%s", a.header, a.body)
	}
	// A player that found nothing new asks without directives: it learns of the
	// next part as soon as it is there.
	got := make(chan answer, 1)
	go func() {
		a, _ := st.fetch(context.Background(), playlist)
		got <- a
	}()
	st.waiting(1)
	st.worker.part(st.epoch, 2, 1)
	if a := <-got; a.status != 200 || !strings.Contains(a.body, "7.2.1.p1.m4s") {
		t.Errorf("a reload in the pause: %d\n%s", a.status, a.body)
	}
	st.until(playlist, func(a answer) bool {
		return strings.Contains(a.body, "7.2.1.p1.m4s") && strings.Contains(a.body, "PRELOAD-HINT")
	})
	st.eventually("it is no longer counted", func() bool { return st.metric("broadcasts_paused") == 0 })
}

// TestServesWithoutUpstream: all that is held is served while Redis, workers
// and S3 are gone, to new viewers too, and it goes on when they are back.
func TestServesWithoutUpstream(t *testing.T) {
	st := newStage(t, withSilence)
	st.want(200, "/hls/demo/index.m3u8")
	st.want(200, st.media("source/7.1.p1.m4s"))
	st.want(200, st.media("source/init-isource.mp4"))
	st.worker.kill()
	st.redis.Stop()
	st.eventually("it is noticed", func() bool { return st.metric("upstream_lost") == 1 })
	for range 3 {
		st.want(200, "/hls/demo/index.m3u8")
		st.want(200, st.media("source/index.m3u8"))
		st.want(200, st.media("source/index.m3u8?_HLS_msn=2&_HLS_part=1"))
		st.want(200, st.media("source/7.1.p1.m4s"))
		st.want(200, st.media("source/init-isource.mp4"))
	}
	st.redis.Start()
	w := newFakeWorker(t, st.broadcast)
	st.epoch.Grant++
	w.begin(st.epoch)
	w.segment(st.epoch, 1)
	w.segment(st.epoch, 2)
	w.part(st.epoch, 3, 0)
	// As ingest does once it can.
	st.eventually("Redis takes the record", func() bool { return lease.Renew(t.Context(), st.db, "demo", st.record) == nil })
	st.slot(0, w)
	st.until(st.media("source/index.m3u8"), func(a answer) bool { return strings.Contains(a.body, "7.3.0.p1.m4s") })
	st.eventually("it is noticed", func() bool { return st.metric("upstream_lost") == 0 })
}

// TestSlotsAreKept: a Redis that lost its memory names no worker; those known
// are followed on.
func TestSlotsAreKept(t *testing.T) {
	b := newBroadcast(&channel{service: &Service{metrics: newMetrics(discard{})}}, "b1", slog.New(slog.DiscardHandler), func() {})
	epoch := jobs.Epoch{Lease: 1, Grant: 1}
	b.setSlots(map[int]worker{0: {"http://worker", epoch}})
	b.setSlots(nil)
	if got := b.workers.slotted(); len(got) != 1 || got["http://worker"] != epoch {
		t.Errorf("the workers are %v", got)
	}
}

// TestOrphanedSegmentIsClosed: ingest and worker died together; what they left
// open is closed when another ingest's media is there.
func TestOrphanedSegmentIsClosed(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	st.want(200, st.media("source/7.2.0.p1.m4s")) // a viewer has the part: the cache does
	st.worker.kill()
	w := newFakeWorker(t, st.broadcast)
	st.epoch = jobs.Epoch{Lease: 2, Grant: 1}
	w.begin(st.epoch)
	for _, r := range []string{"source", "audio"} {
		w.say(index.Entry{
			Type: index.TypePart, Writer: st.epoch, Rendition: r, Init: "i" + r, Epoch: 9, Sequence: 3, Profile: testProfile,
			Duration: partTicks, Size: 100, Independent: true, Discontinuity: 1, Time: testSettings().Started.Add(time.Minute),
		})
	}
	st.slot(0, w)
	a := st.until(st.media("source/index.m3u8"), func(a answer) bool { return strings.Contains(a.body, "9.3.0.p1.m4s") })
	if !strings.Contains(a.body, "#EXTINF:0.33333,\n7.2.p1.m4s\n#EXT-X-DISCONTINUITY\n") || strings.Contains(a.body, "GAP") {
		t.Errorf("the open segment isn't closed as it stands:\n%s", a.body)
	}
	if got := st.want(200, st.media("source/7.2.p1.m4s")).body; got != string(partData("source", 2, 0)) {
		t.Error("the segment differs from its part")
	}
	// Nobody has the sound's part: a gap, not a 404 that nobody told of.
	if a := st.want(200, st.media("audio/index.m3u8")); !strings.Contains(a.body, "#EXT-X-GAP\n#EXTINF:0.33333,\n7.2.p1.m4s\n") {
		t.Errorf("sound:\n%s", a.body)
	}
}

func TestRecordIsOver(t *testing.T) {
	now := time.Now()
	tests := map[string]struct {
		r    lease.Record
		want bool
	}{
		"live":                 {lease.Record{State: lease.Live, Age: time.Second, Seen: now, Grace: time.Minute}, false},
		"ended":                {lease.Record{State: lease.Ended, Grace: time.Minute}, true},
		"ingest silent":        {lease.Record{State: lease.Live, Age: 89 * time.Second, Seen: now, Grace: time.Minute}, false},
		"ingest gone":          {lease.Record{State: lease.Live, Age: 91 * time.Second, Seen: now, Grace: time.Minute}, true},
		"waiting":              {lease.Record{State: lease.Reconnecting, Age: time.Second, Seen: now, Lost: now.Add(-80 * time.Second), Grace: time.Minute}, false},
		"waited too long":      {lease.Record{State: lease.Reconnecting, Age: time.Second, Seen: now, Lost: now.Add(-90 * time.Second), Grace: time.Minute}, true},
		"a long grace period":  {lease.Record{State: lease.Reconnecting, Age: 20 * time.Minute, Seen: now, Lost: now, Grace: time.Hour}, false},
		"a short grace period": {lease.Record{State: lease.Live, Age: 36 * time.Second, Seen: now, Grace: 5 * time.Second}, true},
	}
	for name, tt := range tests {
		if got := isOver(&tt.r); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestKnownWorkerIsRetriedWithoutRedis: the worker is restarted at its address
// while Redis is away.
func TestKnownWorkerIsRetriedWithoutRedis(t *testing.T) {
	st := newEdge(t)
	st.goLive()
	var serving atomic.Pointer[fakeWorker]
	proxy := testenv.PrivateServer(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w := serving.Load(); w != nil {
			w.routes.ServeHTTP(rw, r)
			return
		}
		http.Error(rw, "starting", http.StatusServiceUnavailable)
	}))
	t.Cleanup(func() { proxy.CloseClientConnections(); proxy.Close() })
	first := newFakeWorker(t, st.broadcast)
	first.begin(st.epoch)
	first.segment(st.epoch, 0)
	serving.Store(first)
	if err := lease.SetSlot(t.Context(), st.db, st.broadcast, 0, jobs.Slot{Address: testenv.Sealed(t, seal.Worker, st.broadcast, proxy.URL), Epoch: st.epoch}); err != nil {
		t.Fatal(err)
	}
	st.until(st.media("source/index.m3u8"), func(a answer) bool { return strings.Contains(a.body, "7.0.p1.m4s") })
	st.redis.Stop()
	serving.Store(nil)
	proxy.CloseClientConnections()
	st.eventually("the worker is missed", func() bool { return st.metric("follows") == 0 })
	second := newFakeWorker(t, st.broadcast)
	second.begin(st.epoch)
	second.segment(st.epoch, 0)
	second.segment(st.epoch, 1)
	serving.Store(second)
	st.until(st.media("source/index.m3u8"), func(a answer) bool { return strings.Contains(a.body, "7.1.p1.m4s") })
	st.redis.Start()
}
