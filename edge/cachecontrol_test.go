package edge

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"millrace/internal/index"
	"millrace/internal/window"
)

const (
	keepForever = "public, max-age=31536000, immutable"
	keepShared  = "public, max-age=0, s-maxage=1" // for others, not for the viewer
	keepReload  = "public, max-age=0, s-maxage=24"
)

// What a viewer's own cache may keep is what never changes: a player that asks again
// for the same address wants news. Shared caches may keep a little more.
func TestCacheControl(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	st.worker.put(window.ThumbnailPath(st.broadcast), []byte("a picture"))
	for _, c := range []struct {
		status      int
		path, cache string
		header      []string
	}{
		{200, "/hls/demo/index.m3u8", "no-cache", nil},
		{200, "source/index.m3u8", keepShared, nil},
		{200, "source/index.m3u8?_HLS_skip=YES", keepShared, nil},
		{200, "source/index.m3u8?_HLS_msn=0&_HLS_part=0", keepShared, nil}, // long there: it shows the end
		{200, "source/index.m3u8?_HLS_msn=2&_HLS_part=0", keepReload, nil},
		{200, "source/index.m3u8?_HLS_msn=2&_HLS_part=0&_HLS_skip=YES", keepReload, nil},
		{200, "source/init-isource.mp4", keepForever, nil},
		{200, "source/7.2.0.p1.m4s", keepForever, nil},
		{200, "source/7.1.p1.m4s", keepForever, nil},
		{206, "source/7.1.p1.m4s", keepForever, []string{"Range", "bytes=0-1"}},
		{416, "source/7.1.p1.m4s", "", []string{"Range", "bytes=900000-"}},
		{200, "thumbnail.jpg", "public, max-age=2", nil},
		{404, "nope/index.m3u8", keepShared, nil},
		{404, "source/7.2.3.p1.m4s", keepShared, nil},
		{404, "source/7.9.p1.m4s", keepShared, nil},
		{404, "source/nothing", keepShared, nil},
		{404, "/hls/demo/b2/source/index.m3u8", keepShared, nil},
		{404, "/hls/nobody/index.m3u8", keepShared, nil},
		{400, "source/index.m3u8?_HLS_msn=x", "no-store", nil},
		{400, "source/index.m3u8?_HLS_msn=4", "no-store", nil},
		{404, "/hls/demo/steering.json", keepShared, nil}, // of an edge without --edge-url
	} {
		path := c.path
		if path[0] != '/' {
			path = st.media(path)
		}
		a := st.want(c.status, path, c.header...)
		if got := a.header.Get("Cache-Control"); got != c.cache {
			t.Errorf("GET %s = %d, Cache-Control %q, want %q", c.path, a.status, got, c.cache)
		}
	}

	// A reload that is waited for is kept as long as one that isn't, by shared caches.
	done := make(chan answer, 1)
	go func() {
		a, err := st.fetch(t.Context(), st.media("source/index.m3u8?_HLS_msn=2&_HLS_part=1"))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	st.waiting(1)
	st.worker.part(st.epoch, 2, 1)
	if a := <-done; a.header.Get("Cache-Control") != keepReload {
		t.Errorf("a blocking reload: Cache-Control %q", a.header.Get("Cache-Control"))
	}

	// The unchanged playlist of a pause is news to nobody.
	st.worker.say(index.Entry{Type: index.TypePause, Writer: st.epoch})
	st.until(st.media("source/index.m3u8"), func(a answer) bool { return a.header.Get("Cache-Control") == "no-store" })
}

// An address with capital letters in the channel's name leads to the one without, for
// players of other origins, too.
func TestCapitalLettersRedirect(t *testing.T) {
	st := newEdge(t)
	for path, want := range map[string]string{
		"/hls/S21/index.m3u8?a=B":               "/hls/s21/index.m3u8?a=B",
		"/hls/S21/b1/Source/index.m3u8":         "/hls/s21/b1/Source/index.m3u8",
		"/hls/s21/index.m3u8":                   "",
		"/hls/S21/../../evil.example/index.m3u": "",
	} {
		w := httptest.NewRecorder()
		st.service.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil).WithContext(t.Context()))
		h := w.Header()
		if h.Get("Location") != want || (w.Code == http.StatusMovedPermanently) != (want != "") || h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("GET %s = %d %v, want a redirect to %q", path, w.Code, h, want)
		}
		if want != "" && h.Get("Cache-Control") != "public, max-age=86400" {
			t.Errorf("GET %s: Cache-Control %q", path, h.Get("Cache-Control"))
		}
	}
}
