package storage

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/window"
)

// FuzzWindowFile asks the catalogue for a file of any name.
func FuzzWindowFile(f *testing.F) {
	f.Add("12.3.m4s", "7.p")
	f.Add("init-ab.mp4", "")
	b := newCatalogue("b", second, second, 100)
	b.reopen(grantOf(1, 0, 0))
	var out outcome
	if err := (change{b, b.writer, &out}).finish(partEntry("v", 12, 0), []byte("x"), segmentEntry("v", 12)); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, version string) {
		if file, ok := window.ParseFile(name, version); ok {
			b.media("v", file)
		}
	})
}

func TestWindowHTTP(t *testing.T) {
	s := newIdleStorage()
	mux := http.NewServeMux()
	s.Routes(mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	p := s.Open("b", "c", grantOf(1, 4, 4))
	p.Init("v", &media.Init{Hash: "ab", Data: []byte("init")}, index.Entry{Epoch: 7})
	publish(t, p, "v", 4)
	if err := p.Part(partEntry("v", 5, 0), partData("v", 5, 0)); err != nil {
		t.Fatal(err)
	}
	if err := p.Part(partEntry("v", 6, 0), partData("v", 6, 0)); err != nil { // held back
		t.Fatal(err)
	}
	p.Thumbnail([]byte("old"))
	p.Thumbnail([]byte("jpeg"))
	m := func(sequence uint64, part int) string {
		return window.Media{Broadcast: "b", Rendition: "v", Epoch: 7, Sequence: sequence, Part: part, Profile: "p"}.Path()
	}
	for _, c := range []struct{ path, want, contentType string }{
		{m(4, window.WholeSegment), "v/4.0;v/4.1;", "video/mp4"},
		{m(4, 0), "v/4.0;", "video/mp4"},
		{m(4, 1), "v/4.1;", "video/mp4"},
		{m(5, 0), "v/5.0;", "video/mp4"},
		{window.InitPath("b", "v", "ab"), "init", "video/mp4"},
		{window.ThumbnailPath("b"), "jpeg", "image/jpeg"},
		{m(4, 2), "", ""},
		{m(5, window.WholeSegment), "", ""},
		{m(6, 0), "", ""},
		{"/window/b/v/4.m4s", "", ""},
		{"/window/b/v/4.m4s?v=8.p", "", ""},
		{"/window/b/v/4.m4s?v=7.q", "", ""},
		{"/window/b/w/4.m4s?v=7.p", "", ""},
		{"/window/c/v/4.m4s?v=7.p", "", ""},
		{window.InitPath("b", "v", "cd"), "", ""},
		{window.ThumbnailPath("c"), "", ""},
	} {
		res, err := server.Client().Get(server.URL + c.path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if c.want == "" {
			if res.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s, want 404", c.path, res.Status)
			}
			continue
		}
		if res.StatusCode != http.StatusOK || string(body) != c.want || res.ContentLength != int64(len(c.want)) || res.Header.Get("Content-Type") != c.contentType {
			t.Errorf("%s: %s, %q, length %d, %s", c.path, res.Status, body, res.ContentLength, res.Header.Get("Content-Type"))
		}
	}
}
