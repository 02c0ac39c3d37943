package edge

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/seal"
	"millrace/internal/testenv"
	"millrace/internal/viewers"
	"millrace/internal/window"
)

func code(t testing.TB, a answer) string {
	t.Helper()
	var doc struct{ Code, Message string }
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || doc.Message == "" {
		t.Fatalf("not a JSON error: %q (%v)", a.body, err)
	}
	return doc.Code
}

func TestNotLive(t *testing.T) {
	st := newEdge(t)
	a := st.want(404, "/hls/nobody/index.m3u8")
	if code(t, a) != "not_live" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v %s", a.header, a.body)
	}
	for path, want := range map[string]string{
		"/hls/nobody/b1/source/index.m3u8": "unknown_broadcast",
		"/hls/":                            "not_found",
		"/hls/No!/index.m3u8":              "not_found",
		"/hls/nobody/b1/source/x.ts":       "not_found",
	} {
		if got := code(t, st.want(404, path)); got != want {
			t.Errorf("GET %s: %s, want %s", path, got, want)
		}
	}
}

func TestNotLiveIsLookedUpOnce(t *testing.T) {
	st := newEdge(t)
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			if a, err := st.fetch(t.Context(), "/hls/nobody/index.m3u8"); err != nil || a.status != 404 {
				t.Errorf("%d %v", a.status, err)
			}
		})
	}
	group.Wait()
	calls := st.db.Info(t.Context(), "commandstats").Val()
	for line := range strings.SplitSeq(calls, "\r\n") {
		if n := 0; strings.HasPrefix(line, "cmdstat_evalsha:") || strings.HasPrefix(line, "cmdstat_eval:") {
			if _, err := fmt.Sscanf(line[strings.Index(line, "calls="):], "calls=%d", &n); err != nil || n > 3 {
				t.Errorf("%s", line)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	tests := []struct {
		status     int
		path, code string
	}{
		{404, "nope/index.m3u8", "unknown_rendition"},
		{400, "source/index.m3u8?_HLS_part=1", "bad_directive"},
		{400, "source/index.m3u8?_HLS_msn=x", "bad_directive"},
		{400, "source/index.m3u8?_HLS_msn=4", "too_far_ahead"},
		{400, "source/index.m3u8?_HLS_msn=2&_HLS_part=10", "too_far_ahead"},
		{404, "source/7.2.3.p1.m4s", "unknown_media"},
		{404, "source/7.1.1.p2.m4s", "unknown_media"},
		{404, "source/8.1.1.p1.m4s", "unknown_media"},
		{404, "source/7.2.p1.m4s", "unknown_media"},
		{404, "source/7.9.p1.m4s", "unknown_media"},
		{404, "source/init-zzz.mp4", "unknown_media"},
		{404, "thumbnail.jpg", "unknown_media"},
	}
	for _, tt := range tests {
		a := st.want(tt.status, st.media(tt.path))
		if got := code(t, a); got != tt.code {
			t.Errorf("GET %s: %s, want %s", tt.path, got, tt.code)
		}
	}
}

func TestBlockingReload(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	const viewersWaiting = 200
	var group sync.WaitGroup
	for range viewersWaiting {
		group.Go(func() {
			a, err := st.fetch(t.Context(), st.media("source/index.m3u8?_HLS_msn=2&_HLS_part=1"))
			if err != nil || a.status != 200 || !strings.Contains(a.body, `URI="7.2.1.p1.m4s"`+"\n") {
				t.Errorf("%d %v\n%s", a.status, err, a.body)
			}
		})
	}
	st.waiting(viewersWaiting)
	before := st.metric("playlist_renders_total")
	st.worker.part(st.epoch, 2, 1)
	group.Wait()
	if n := st.metric("playlist_renders_total") - before; n != 1 {
		t.Errorf("%g renders for %d waiting viewers, want 1", n, viewersWaiting)
	}

	// One without a part waits for the whole segment.
	done := make(chan answer, 1)
	go func() {
		a, err := st.fetch(t.Context(), st.media("source/index.m3u8?_HLS_msn=2"))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	st.waiting(1)
	for part := 2; part < partsEach; part++ {
		st.worker.part(st.epoch, 2, part)
	}
	if a := <-done; !strings.Contains(a.body, "7.2.p1.m4s") {
		t.Errorf("the segment isn't listed\n%s", a.body)
	}
	// A part past the segment's end is part 0 of the next.
	go func() {
		a, err := st.fetch(t.Context(), st.media("source/index.m3u8?_HLS_msn=2&_HLS_part=6"))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	st.waiting(1)
	st.worker.part(st.epoch, 3, 0)
	if a := <-done; !strings.Contains(a.body, `URI="7.3.0.p1.m4s",IND`) {
		t.Errorf("part 0 of the next segment isn't listed\n%s", a.body)
	}
	// What is there already is answered at once, and in whole.
	st.want(200, st.media("source/index.m3u8?_HLS_msn=0&_HLS_part=0"))
}

func TestWaiterThatLeavesIsForgotten(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := st.fetch(ctx, st.media("source/index.m3u8?_HLS_msn=2&_HLS_part=1"))
		done <- err
	}()
	st.waiting(1)
	cancel()
	if err := <-done; err == nil {
		t.Error("there was an answer")
	}
	st.waiting(0)
}

func TestHintedPartIsWaitedFor(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	done := make(chan answer, 2)
	for range 2 {
		go func() {
			a, err := st.fetch(t.Context(), st.media("source/7.2.1.p1.m4s"))
			if err != nil {
				t.Error(err)
			}
			done <- a
		}()
	}
	st.waiting(2)
	st.worker.part(st.epoch, 2, 1)
	for range 2 {
		if a := <-done; a.status != 200 || a.body != string(partData("source", 2, 1)) {
			t.Errorf("%d %q", a.status, a.body)
		}
	}
	path := window.Media{Broadcast: "b1", Rendition: "source", Epoch: 7, Sequence: 2, Part: 1, Profile: testProfile}.Path()
	if n := st.worker.fetched(path); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
	// A hinted part that never comes is 404 as soon as that is clear.
	go func() {
		a, err := st.fetch(t.Context(), st.media("source/7.2.2.p1.m4s"))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	st.waiting(1)
	st.worker.say(index.Entry{Type: index.TypeSegment, Writer: st.epoch, Rendition: "source", Init: "isource", Epoch: 7, Sequence: 2, Parts: 2, Profile: testProfile, Duration: 2 * partTicks})
	if a := <-done; a.status != 404 {
		t.Errorf("%d %q", a.status, a.body)
	}
}

func TestGzipRangeHeadOptions(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	plain := st.want(200, st.media("source/index.m3u8"), "Accept-Encoding", "identity")
	zipped := st.want(200, st.media("source/index.m3u8"), "Accept-Encoding", "br, gzip;q=0.8")
	if zipped.header.Get("Content-Encoding") != "gzip" || zipped.header.Get("Vary") != "Accept-Encoding" {
		t.Fatalf("header %v", zipped.header)
	}
	r, err := gzip.NewReader(strings.NewReader(zipped.body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != plain.body {
		t.Errorf("unzipped differs: %v", err)
	}
	if a := st.want(200, st.media("source/index.m3u8"), "Accept-Encoding", "gzip;q=0"); a.header.Get("Content-Encoding") != "" {
		t.Error("compressed although refused")
	}
	part := string(partData("source", 1, 0))
	if a := st.want(206, st.media("source/7.1.0.p1.m4s"), "Range", "bytes=10-19"); a.body != part[10:20] || a.header.Get("Content-Range") != fmt.Sprintf("bytes 10-19/%d", len(part)) {
		t.Errorf("range: %q %v", a.body, a.header)
	}
	if a := st.want(206, st.media("source/7.1.0.p1.m4s"), "Range", "bytes=0-9007199254740991"); a.body != part {
		t.Error("the open range differs")
	}
	st.want(416, st.media("source/7.1.0.p1.m4s"), "Range", "bytes=99999-")
	for method, want := range map[string]int{"HEAD": 200, "OPTIONS": 204, "POST": 405} {
		req, err := http.NewRequestWithContext(t.Context(), method, st.server.URL+st.media("source/7.1.0.p1.m4s"), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", method, resp.StatusCode, want)
		}
		if method == "HEAD" && resp.ContentLength != int64(len(part)) {
			t.Errorf("HEAD: length %d", resp.ContentLength)
		}
	}
}

func TestAnotherWorkerTakesOver(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	st.worker.part(st.epoch, 2, 1)
	done := make(chan answer, 1)
	go func() {
		a, err := st.fetch(t.Context(), st.media("source/index.m3u8?_HLS_msn=2&_HLS_part=2"))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	st.waiting(1)
	st.worker.kill()
	second := newFakeWorker(t, "b1")
	st.epoch.Grant++
	second.begin(st.epoch)
	for part := range 3 { // the unfinished segment again, from its first part
		second.part(st.epoch, 2, part)
	}
	start := time.Now()
	st.slot(0, second)
	a := <-done
	if a.status != 200 || strings.Count(a.body, `URI="7.2.`) != 4 || strings.Contains(a.body, "DISCONTINUITY\n") {
		t.Errorf("%d\n%s", a.status, a.body)
	}
	t.Logf("found the second worker after %s", time.Since(start))
	if a := st.want(200, st.media("source/7.2.2.p1.m4s")); a.body != string(partData("source", 2, 2)) {
		t.Error("the part differs")
	}
}

func TestRedisAway(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	st.redis.Stop()
	for sequence := uint64(2); sequence < 4; sequence++ {
		for part := range partsEach {
			if sequence == 2 && part == 0 {
				continue
			}
			st.worker.part(st.epoch, sequence, part)
			a := st.want(200, st.media(fmt.Sprintf("source/index.m3u8?_HLS_msn=%d&_HLS_part=%d", sequence, part)))
			if !strings.Contains(a.body, fmt.Sprintf("7.%d.%d.p1", sequence, part)) {
				t.Fatalf("part is missing\n%s", a.body)
			}
		}
	}
	st.want(200, "/hls/demo/index.m3u8")
	if got := code(t, st.want(503, "/hls/other/index.m3u8")); got != "unavailable" {
		t.Errorf("another channel: %s", got)
	}
	// Redis comes back with nothing in it: what is live stays live.
	before := st.metric("redis_errors_total")
	st.redis.Start()
	st.until("/hls/other/index.m3u8", func(a answer) bool { return a.status == 404 })
	if before == 0 {
		t.Error("no error of Redis was counted")
	}
	st.want(200, "/hls/demo/index.m3u8")
}

func TestViewersAreReported(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	for _, sid := range []string{"a", "b", "a"} {
		st.want(200, st.media("source/7.1.0.p1.m4s?CMCD=bl%3D100%2Csid%3D%22"+sid+"%22"))
		st.want(200, st.media("source/index.m3u8?CMCD=bl%3D100%2Csid%3D%22"+sid+"%22"))
	}
	st.want(200, st.media("source/7.1.p1.m4s"), "CMCD-Session", `sid="c"`)
	st.want(200, st.media("source/7.1.p1.m4s"))
	// These took no media.
	st.want(200, st.media("source/index.m3u8"), "CMCD-Session", `sid="d"`)
	st.want(200, st.media("source/init-isource.mp4"), "CMCD-Session", `sid="e"`)
	st.want(404, st.media("source/7.0.p2.m4s"), "CMCD-Session", `sid="f"`)
	if a := st.head(st.media("source/7.1.p1.m4s"), "CMCD-Session", `sid="g"`); a.status != 200 {
		t.Errorf("HEAD: %d", a.status)
	}
	counts := st.service.audience.sweep(time.Now())
	if counts["demo"] != 4 { // a, b, c, and the one without an id
		t.Errorf("%d viewers, want 4", counts["demo"])
	}
	st.service.audience.report(t.Context(), st.db, "edge-1", st.service.log, counts)
	if n, err := viewers.Count(t.Context(), st.db, "demo"); err != nil || n != 4 {
		t.Errorf("%d %v", n, err)
	}
}

func TestChannelsDontDisturbEachOther(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	// A channel whose worker says garbage, and one whose worker doesn't exist.
	for channel, address := range map[string]string{"garbage": "", "nowhere": "http://127.0.0.1:1"} {
		record, _, err := lease.Acquire(t.Context(), st.db, channel, "b"+channel, "http://ingest", time.Minute, 0)
		if err != nil {
			t.Fatal(err)
		}
		if address == "" {
			w := newFakeWorker(t, record.Broadcast)
			w.mu.Lock()
			w.lines = [][]byte{[]byte(strings.Repeat("x", index.MaxLine+10) + "\n"), []byte("[{}]\n")}
			w.mu.Unlock()
			address = w.URL
		}
		if err := lease.SetSlot(t.Context(), st.db, record.Broadcast, 0, jobs.Slot{Address: testenv.Sealed(t, seal.Worker, record.Broadcast, address)}); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	for _, channel := range []string{"garbage", "nowhere"} {
		group.Go(func() {
			if a, err := st.fetch(t.Context(), "/hls/"+channel+"/index.m3u8"); err != nil || a.status != 503 || !strings.Contains(a.body, "starting") {
				t.Errorf("%s: %d %v %s", channel, a.status, err, a.body)
			}
		})
	}
	for part := 1; part < partsEach; part++ {
		st.worker.part(st.epoch, 2, part)
		st.want(200, st.media(fmt.Sprintf("source/index.m3u8?_HLS_msn=2&_HLS_part=%d", part)))
	}
	group.Wait()
	st.eventually("the line without end is noticed", func() bool { return st.metric("follow_breaks_total", "line_too_long") > 0 })
}

// A worker that hangs keeps its connection open; its silence is noticed.
func TestHungWorker(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newEdge(t)
	st.goLive()
	hung := newHungWorker(t)
	if err := lease.SetSlot(t.Context(), st.db, st.broadcast, 0, jobs.Slot{Address: testenv.Sealed(t, seal.Worker, st.broadcast, hung), Epoch: st.epoch}); err != nil {
		t.Fatal(err)
	}
	// The second slot has a standby that works.
	standby := newFakeWorker(t, st.broadcast)
	standby.begin(st.epoch)
	standby.part(st.epoch, 0, 0)
	st.slot(1, standby)
	st.want(200, "/hls/demo/index.m3u8")
	st.eventually("the silence is noticed", func() bool { return st.metric("follow_breaks_total", "quiet") > 0 })
	standby.part(st.epoch, 0, 1)
	st.want(200, st.media("source/index.m3u8?_HLS_msn=0&_HLS_part=1"))
	// Media is found at the worker that has it.
	st.want(200, st.media("source/7.0.1.p1.m4s"))
}
