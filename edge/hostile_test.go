package edge

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/index"
	"millrace/internal/objects"
)

// fetchesOf counts what was asked of the worker.
func (w *fakeWorker) fetchesOf() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, times := range w.fetches {
		n += times
	}
	return n
}

// HEAD is answered from what the fold knows.
func TestHeadFetchesNothing(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	st.worker.say(index.Entry{Type: index.TypeInit, Writer: st.epoch, Rendition: "source", Init: "sized", Epoch: 7, Size: 700})
	st.worker.part(st.epoch, 2, 1)
	st.until(st.media("source/index.m3u8"), func(a answer) bool { return strings.Contains(a.body, "7.2.1.p1.m4s\"\n") })
	tests := map[string]struct {
		status, size int
	}{
		"source/7.1.p1.m4s":       {200, len(segmentData("source", 1))},
		"audio/7.1.p1.m4s":        {200, len(segmentData("audio", 1))},
		"source/7.1.2.p1.m4s":     {200, len(partData("source", 1, 2))},
		"source/7.2.0.p1.m4s":     {200, len(partData("source", 2, 0))},
		"source/init-sized.mp4":   {200, 700},
		"source/init-isource.mp4": {200, -1},
		"source/7.1.p2.m4s":       {404, 0},
		"source/8.1.p1.m4s":       {404, 0},
		"source/7.2.p1.m4s":       {404, 0},
		"source/7.1.9.p1.m4s":     {404, 0},
		"nope/init-isource.mp4":   {404, 0},
	}
	for name, want := range tests {
		a := st.head(st.media(name), "Accept-Encoding", "identity")
		size, err := strconv.Atoi(a.header.Get("Content-Length"))
		if a.header.Get("Content-Length") == "" {
			size, err = -1, nil
		}
		if err != nil || a.status != want.status || a.status == 200 && size != want.size || a.body != "" {
			t.Errorf("HEAD %s: %d, %d bytes, want %d, %d", name, a.status, size, want.status, want.size)
		}
		if a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("HEAD %s may be sniffed", name)
		}
	}
	st.eventually("HEAD of a playlist tells the size of what GET answers", func() bool {
		get, head := st.get(st.media("source/index.m3u8")), st.head(st.media("source/index.m3u8"), "Accept-Encoding", "identity")
		return head.status == 200 && head.body == "" && head.header.Get("Content-Length") == strconv.Itoa(len(get.body))
	})
	if n := st.worker.fetchesOf(); n != 0 {
		t.Errorf("%d fetches for HEAD", n)
	}
	if n := st.metric("requests_total", "0"); n != 0 || st.metric("requests_total", "segment", "200") != 2 {
		t.Errorf("%g requests are counted with code 0", n)
	}
}

// What no index told of is asked of nobody.
func TestNamesThatDontExistFetchNothing(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	before := st.worker.fetchesOf()
	h := st.service.Handler()
	ask := func(path string) {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil)); w.Code != 404 {
			t.Errorf("GET %s: %d %s", path, w.Code, w.Body)
		}
	}
	for i := range 100 {
		n := strconv.Itoa(i)
		for _, name := range []string{
			"r" + n + "/init-isource.mp4", "r" + n + "/7.0.p1.m4s", "r" + n + "/7.0.1.p1.m4s", "r" + n + "/index.m3u8",
			"source/7.0.p" + n + "x.m4s", "source/" + n + "00.1.p1.m4s", "source/7." + n + "9.p1.m4s", "source/7.1.1.q" + n + ".m4s",
		} {
			ask(st.media(name))
		}
		ask("/hls/demo/b" + n + "x/source/7.0.p1.m4s")
	}
	if n := st.worker.fetchesOf() - before; n != 0 {
		t.Errorf("%d fetches from the worker", n)
	}
	if n := st.metric("upstream_fetches_total", "bucket"); n != 0 {
		t.Errorf("%g fetches from S3", n)
	}
}

// An init section that nobody told of yet is waited for, by few and for a moment: another
// edge that is ahead may have listed it.
func TestUnknownInitIsWaitedFor(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	done := make(chan answer, 1)
	go func() {
		a, err := st.fetch(t.Context(), st.media("source/init-new.mp4"))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	st.waiting(1)
	st.worker.put("/window/b1/source/init-new.mp4", []byte("new"))
	st.worker.say(index.Entry{Type: index.TypeInit, Writer: st.epoch, Rendition: "source", Init: "new", Epoch: 7})
	st.worker.part(st.epoch, 2, 1)
	if a := <-done; a.status != 200 && a.status != 404 { // 404 on a machine that takes a second for that
		t.Errorf("%d %s", a.status, a.body)
	}
	st.service.waiters.inits.Add(maxInitWaiters)
	start := time.Now()
	st.want(404, st.media("source/init-other.mp4"))
	if took := time.Since(start); took >= initPatience {
		t.Errorf("one more than may wait for unknown init sections waited %s", took)
	}
	st.service.waiters.inits.Add(-maxInitWaiters)
}

// What lies within the DVR window and is listed nowhere here is asked of S3, but not
// without bounds.
func TestSegmentsBeforeTheFirstKnown(t *testing.T) {
	st := newEdge(t)
	st.goLive()
	st.worker = newFakeWorker(t, st.broadcast)
	st.worker.begin(st.epoch)
	for sequence := uint64(1000); sequence < 1003; sequence++ {
		st.worker.segment(st.epoch, sequence)
	}
	st.slot(0, st.worker)
	st.want(200, "/hls/demo/index.m3u8")
	for _, sequence := range []uint64{600, 990} {
		if err := st.bucket.Put(t.Context(), objects.SegmentKey("b1", 7, "source", sequence, testProfile), []byte("older")); err != nil {
			t.Fatal(err)
		}
	}
	if a := st.want(200, st.media("source/7.990.p1.m4s")); a.body != "older" {
		t.Errorf("%q", a.body)
	}
	if a := st.head(st.media("source/7.990.p1.m4s")); a.status != 200 {
		t.Errorf("HEAD: %d", a.status)
	}
	st.want(404, st.media("source/7.600.p1.m4s")) // more than the window before it
	st.want(404, st.media("source/9.990.p1.m4s")) // of an ingest that wasn't there yet
	refused := 0
	for i := range 200 {
		if st.get(st.media(fmt.Sprintf("source/7.%d.p1x.m4s", 800+i))).status == http.StatusServiceUnavailable {
			refused++
		}
	}
	if asked := st.metric("upstream_fetches_total", "bucket", "missing"); refused == 0 || asked > 150 {
		t.Errorf("%g of 200 made-up names were asked of S3, %d refused", asked, refused)
	}
}

// Names of channels that there are none of never take the place of one.
func TestUnknownChannelsTakeNoPlace(t *testing.T) {
	st := newStage(t)
	stopped := ""
	s := st.service
	s.mu.Lock()
	for i := range maxChannels {
		c := newChannel(s, "c"+strconv.Itoa(i), nil)
		c.stop = func() { stopped = c.name }
		s.channels[c.name] = c
	}
	s.mu.Unlock()
	for i := range 300 {
		st.want(404, "/hls/nobody"+strconv.Itoa(i)+"/index.m3u8")
	}
	if len(s.channels) != maxChannels || s.absent.order[299] == "" {
		t.Errorf("%d channels", len(s.channels))
	}
	if got := code(t, st.want(503, "/hls/demo/index.m3u8")); got != "busy" {
		t.Errorf("one more channel, and all are asked for: %s", got)
	}
	s.mu.Lock()
	s.channels["c7"].asked.Store(time.Now().Add(-2 * idleAfter).UnixNano())
	s.mu.Unlock()
	st.want(200, "/hls/demo/index.m3u8")
	if stopped != "c7" || len(s.channels) != maxChannels {
		t.Errorf("%q made room; %d channels", stopped, len(s.channels))
	}
}

// Who asks for channels that aren't live again and again is refused before Redis is asked; one
// that is live costs nothing.
func TestLookupsOfAnAddressAreBounded(t *testing.T) {
	st := newStage(t)
	by := &caller{}
	by.lookups.Add(lookupLimit.Size, lookupLimit, time.Now().Add(time.Minute)) // full for as long as this test takes
	if _, err := st.service.channel(t.Context(), "nobody", by); err != errGreedy {
		t.Errorf("one lookup too many: %v", err)
	}
	by = &caller{}
	for i := range 2 * int(lookupLimit.Size) {
		c, err := st.service.channel(t.Context(), "demo", by)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if _, err := c.await(t.Context()); err != nil {
			t.Fatal(err)
		}
		st.service.drop(c, nil)
		c.stop()
	}
}

func TestRequestsOfAnAddressAreBounded(t *testing.T) {
	c := newCallers([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, newMetrics(discard{}))
	now := time.Now()
	var entered []*caller
	for i := range maxRequests {
		k, err := c.enter(viewerRequest(fmt.Sprintf("[2001:db8::%x]:5", i), "", ""), now)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		entered = append(entered, k)
	}
	if _, err := c.enter(viewerRequest("[2001:db8::1:1]:5", "", ""), now); err == nil {
		t.Error("one too many of a /64 is let in")
	}
	if _, err := c.enter(viewerRequest("10.0.0.1:5", "", "2001:db8::2"), now); err == nil {
		t.Error("one too many by way of a proxy is let in")
	}
	for _, who := range []*http.Request{viewerRequest("[2001:db8:0:1::1]:5", "", ""), viewerRequest("10.0.0.1:5", "", ""), viewerRequest("10.0.0.1:5", "", "5.6.7.8")} {
		if _, err := c.enter(who, now); err != nil {
			t.Errorf("%s: %v", who.RemoteAddr, err)
		}
	}
	entered[0].leave()
	if _, err := c.enter(viewerRequest("[2001:db8::1:1]:5", "", ""), now); err != nil {
		t.Error("after one was answered: ", err)
	}
	// Addresses of which nothing is under way are forgotten.
	for i := range maxCallers + 10 {
		c.find(netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32), now).leave()
	}
	if len(c.known) > maxCallers || c.known[entered[0].from] != entered[0] {
		t.Errorf("%d addresses are known, the busy one among them: %t", len(c.known), c.known[entered[0].from] != nil)
	}
}

// A school of 200 behind one address, each with a seek of its own, gets all that it asks for.
func TestSchoolThatSeeks(t *testing.T) {
	t.Parallel() // it waits more than it computes
	const pupils, segments = 200, 40
	st := newEdge(t)
	st.goLive()
	st.worker = newFakeWorker(t, st.broadcast)
	st.worker.begin(st.epoch)
	for sequence := range uint64(segments) {
		st.worker.segment(st.epoch, sequence)
	}
	st.slot(0, st.worker)
	st.want(200, "/hls/demo/index.m3u8")
	st.until(st.media("source/index.m3u8"), func(a answer) bool { return strings.Contains(a.body, fmt.Sprintf("7.%d.p1.m4s", segments-1)) })
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pupils}}
	defer client.CloseIdleConnections()
	var group sync.WaitGroup
	for pupil := range pupils {
		group.Go(func() {
			for i := range 3 {
				sequence := (pupil*7 + i) % segments
				r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, st.server.URL+st.media(fmt.Sprintf("source/7.%d.p1.m4s", sequence)), nil)
				resp, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("pupil %d: %s", pupil, resp.Status)
				}
			}
		})
	}
	group.Wait()
}

// A reader who is cut off gets a broken answer, never a short one that looks whole.
func TestCutOffAnswerIsBroken(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	began := make(chan *response, 1)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &response{ResponseWriter: rw}
		w.delivery.writer = rw
		began <- w
		defer st.service.finish(w, time.Now())
		serveBytes(w, r, typeVideo, forever, make([]byte, 256<<20))
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	(<-began).delivery.end()
	n := 0
	for b := make([]byte, 64<<10); err == nil; {
		var m int
		m, err = conn.Read(b)
		n += m
	}
	if n >= 256<<20 {
		t.Error("all of it came")
	}
	s.CloseClientConnections()
}
