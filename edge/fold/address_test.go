package fold

import (
	"strings"
	"testing"

	"millrace/edge/playlist"
)

func TestParseAddress(t *testing.T) {
	tests := []struct {
		path string
		want Address // the zero value: refused
	}{
		{"/hls/demo/index.m3u8", Address{Kind: KindMultivariant, Channel: "demo"}},
		{"/hls/demo/b1/thumbnail.jpg", Address{Kind: KindThumbnail, Channel: "demo", Broadcast: "b1"}},
		{"/hls/demo/b1/source/index.m3u8", Address{Kind: KindMedia, Channel: "demo", Broadcast: "b1", Rendition: "source"}},
		{"/hls/demo/b1/480p30/7.12.ab3.m4s", Address{Kind: KindSegment, Channel: "demo", Broadcast: "b1", Rendition: "480p30", Epoch: 7, Sequence: 12, Part: playlist.NoPart, Profile: "ab3"}},
		{"/hls/demo/b1/480p30/7.12.3.ab3.m4s", Address{Kind: KindPart, Channel: "demo", Broadcast: "b1", Rendition: "480p30", Epoch: 7, Sequence: 12, Part: 3, Profile: "ab3"}},
		{"/hls/demo/b1/480p30/init-00ff.mp4", Address{Kind: KindInit, Channel: "demo", Broadcast: "b1", Rendition: "480p30", Profile: "00ff"}},
		{path: ""},
		{path: "/hls"},
		{path: "/hls/demo"},
		{path: "/hls//index.m3u8"},
		{path: "/hls/Demo/index.m3u8"},
		{path: "/hls/_demo/index.m3u8"},
		{path: "/hls/embed/index.m3u8"},
		{path: "/hls/" + strings.Repeat("a", 26) + "/index.m3u8"},
		{path: "/hls/demo/../b1/index.m3u8"},
		{path: "/hls/demo/b1/source/../../x"},
		{path: "/hls/demo/b1/source/7.12.m4s"},
		{path: "/hls/demo/b1/source/07.12.p.m4s"},
		{path: "/hls/demo/b1/source/7.+12.p.m4s"},
		{path: "/hls/demo/b1/source/7.-1.p.m4s"},
		{path: "/hls/demo/b1/source/7.12.99999.p.m4s"},
		{path: "/hls/demo/b1/source/7.12.1.2.p.m4s"},
		{path: "/hls/demo/b1/source/7.12.1..m4s"},
		{path: "/hls/demo/b1/source/99999999999999999999.1.p.m4s"},
		{path: "/hls/demo/b1/source/init-.mp4"},
		{path: "/hls/demo/b1/source/init-a/b.mp4"},
	}
	for _, tt := range tests {
		got, err := ParseAddress(tt.path)
		if (err == nil) != (tt.want != Address{}) || err == nil && got != tt.want {
			t.Errorf("%s: %+v, %v", tt.path, got, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{
		"/hls/demo/index.m3u8", "/hls/demo/b1/thumbnail.jpg", "/hls/demo/b1/source/index.m3u8",
		"/hls/demo/b1/source/7.12.ab3.m4s", "/hls/demo/b1/source/7.12.3.ab3.m4s", "/hls/demo/b1/source/init-00ff.mp4",
		"/hls/demo/b1/source/7.0012.ab3.m4s", "/hls/../x", "/hls/demo/b1/source/.....m4s",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		a, err := ParseAddress(path)
		if err != nil {
			return
		}
		// What is accepted is written in one way only, and can't leave its folder.
		want := "/hls/" + a.Channel
		switch a.Kind {
		case KindMultivariant:
			want += "/index.m3u8"
		case KindThumbnail:
			want += "/" + a.Broadcast + "/thumbnail.jpg"
		case KindMedia:
			want += "/" + a.Broadcast + "/" + a.Rendition + "/index.m3u8"
		case KindInit:
			want += "/" + a.Broadcast + "/" + a.Rendition + "/init-" + a.Profile + ".mp4"
		default:
			want += "/" + a.Broadcast + "/" + a.Rendition + "/" + string(playlist.AppendURI(nil, a.Epoch, a.Sequence, a.Part, a.Profile))
		}
		if path != want {
			t.Errorf("%q was read as %q", path, want)
		}
		for _, name := range []string{a.Broadcast, a.Rendition, a.Profile} {
			if strings.ContainsAny(name, "./%\\") {
				t.Errorf("%q has the name %q", path, name)
			}
		}
	})
}

func TestParseDirectives(t *testing.T) {
	tests := []struct {
		query string
		want  Directives
		err   bool
	}{
		{query: "", want: Directives{Part: -1}},
		{query: "x=1&CMCD=sid%3D%22a%22", want: Directives{Part: -1}},
		{query: "_HLS_msn=5", want: Directives{Blocking: true, Sequence: 5, Part: -1}},
		{query: "_HLS_part=2&_HLS_msn=5", want: Directives{Blocking: true, Sequence: 5, Part: 2}},
		{query: "_HLS_msn=5&_HLS_part=2&_HLS_skip=YES", want: Directives{Blocking: true, Sequence: 5, Part: 2, Skip: playlist.SkipYes}},
		{query: "_HLS_skip=v2", want: Directives{Part: -1, Skip: playlist.SkipV2}},
		{query: "_HLS_skip=NO", want: Directives{Part: -1}},
		{query: "_HLS_skip=", want: Directives{Part: -1}},
		{query: "_HLS_new=1", want: Directives{Part: -1}},
		{query: "_HLS_part=2", err: true},
		{query: "_HLS_msn=", err: true},
		{query: "_HLS_msn=-1", err: true},
		{query: "_HLS_msn=%2B1", err: true},
		{query: "_HLS_msn=1.5", err: true},
		{query: "_HLS_msn=%zz", err: true},
		{query: "_HLS_msn=99999999999999999999", err: true},
		{query: "_HLS_msn=1&_HLS_part=4294967296", err: true},
		{query: "_HLS_msn=1&_HLS_msn=2", err: true},
	}
	for _, tt := range tests {
		got, err := ParseDirectives(tt.query)
		if (err != nil) != tt.err || err == nil && got != tt.want {
			t.Errorf("%q: %+v, %v", tt.query, got, err)
		}
	}
}

func FuzzParseDirectives(f *testing.F) {
	for _, seed := range []string{"", "_HLS_msn=5&_HLS_part=2&_HLS_skip=YES", "_HLS_part=1", "_HLS_skip=v2&a=%", "_HLS_msn=%35"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		d, err := ParseDirectives(query)
		if err == nil && (d.Part < playlist.NoPart || d.Part != playlist.NoPart && !d.Blocking || d.Skip >= playlist.Flavours) {
			t.Errorf("%q: %+v", query, d)
		}
	})
}

func TestLowerPath(t *testing.T) {
	for path, want := range map[string]string{ // "": none
		"/hls/S21/index.m3u8":                      "/hls/s21/index.m3u8",
		"/hls/Demo/steering.json":                  "/hls/demo/steering.json",
		"/hls/DEMO/b1/Source/7.12.3.aB3.m4s":       "/hls/demo/b1/Source/7.12.3.aB3.m4s",
		"/hls/demo/index.m3u8":                     "",
		"/hls/DEMO":                                "",
		"/hls/DEMO/nothing":                        "",
		"/hls/API/index.m3u8":                      "",
		"/hls/DE%0d%0aMO/index.m3u8":               "",
		"/hls/DEMO/b1/source/\r\nLocation: x.m3u8": "",
		"/HLS/demo/index.m3u8":                     "",
	} {
		if got, ok := LowerPath(path); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v, want %q", path, got, ok, want)
		}
	}
}
