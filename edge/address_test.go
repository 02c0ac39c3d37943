package edge

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"millrace/edge/playlist"
)

func TestParseAddress(t *testing.T) {
	tests := []struct {
		path string
		want address // the zero value: refused
	}{
		{"/hls/demo/index.m3u8", address{kind: kindMultivariant, channel: "demo"}},
		{"/hls/demo/b1/thumbnail.jpg", address{kind: kindThumbnail, channel: "demo", broadcast: "b1"}},
		{"/hls/demo/b1/source/index.m3u8", address{kind: kindMedia, channel: "demo", broadcast: "b1", rendition: "source"}},
		{"/hls/demo/b1/480p30/7.12.ab3.m4s", address{kind: kindSegment, channel: "demo", broadcast: "b1", rendition: "480p30", epoch: 7, sequence: 12, part: playlist.NoPart, profile: "ab3"}},
		{"/hls/demo/b1/480p30/7.12.3.ab3.m4s", address{kind: kindPart, channel: "demo", broadcast: "b1", rendition: "480p30", epoch: 7, sequence: 12, part: 3, profile: "ab3"}},
		{"/hls/demo/b1/480p30/init-00ff.mp4", address{kind: kindInit, channel: "demo", broadcast: "b1", rendition: "480p30", profile: "00ff"}},
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
		got, err := parseAddress(tt.path)
		if (err == nil) != (tt.want != address{}) || err == nil && got != tt.want {
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
		a, err := parseAddress(path)
		if err != nil {
			return
		}
		// What is accepted is written in one way only, and can't leave its folder.
		want := "/hls/" + a.channel
		switch a.kind {
		case kindMultivariant:
			want += "/index.m3u8"
		case kindThumbnail:
			want += "/" + a.broadcast + "/thumbnail.jpg"
		case kindMedia:
			want += "/" + a.broadcast + "/" + a.rendition + "/index.m3u8"
		case kindInit:
			want += "/" + a.broadcast + "/" + a.rendition + "/init-" + a.profile + ".mp4"
		default:
			want += "/" + a.broadcast + "/" + a.rendition + "/" + string(playlist.AppendURI(nil, a.epoch, a.sequence, a.part, a.profile))
		}
		if path != want {
			t.Errorf("%q was read as %q", path, want)
		}
		for _, name := range []string{a.broadcast, a.rendition, a.profile} {
			if strings.ContainsAny(name, "./%\\") {
				t.Errorf("%q has the name %q", path, name)
			}
		}
	})
}

func TestParseDirectives(t *testing.T) {
	tests := []struct {
		query string
		want  directives
		err   bool
	}{
		{query: "", want: directives{part: -1}},
		{query: "x=1&CMCD=sid%3D%22a%22", want: directives{part: -1}},
		{query: "_HLS_msn=5", want: directives{blocking: true, sequence: 5, part: -1}},
		{query: "_HLS_part=2&_HLS_msn=5", want: directives{blocking: true, sequence: 5, part: 2}},
		{query: "_HLS_msn=5&_HLS_part=2&_HLS_skip=YES", want: directives{blocking: true, sequence: 5, part: 2, skip: playlist.SkipYes}},
		{query: "_HLS_skip=v2", want: directives{part: -1, skip: playlist.SkipV2}},
		{query: "_HLS_skip=NO", want: directives{part: -1}},
		{query: "_HLS_skip=", want: directives{part: -1}},
		{query: "_HLS_new=1", want: directives{part: -1}},
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
		got, err := parseDirectives(tt.query)
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
		d, err := parseDirectives(query)
		if err == nil && (d.part < playlist.NoPart || d.part != playlist.NoPart && !d.blocking || d.skip >= playlist.Flavours) {
			t.Errorf("%q: %+v", query, d)
		}
	})
}

func TestSessionID(t *testing.T) {
	long := strings.Repeat("x", 65)
	tests := []struct{ query, header, want string }{
		{query: "CMCD=" + url.QueryEscape(`br=100,sid="6e2f,b5",v=1`), want: "6e2f,b5"},
		{query: "a=b&CMCD=" + url.QueryEscape(`bs,sid="a\"b"`), want: `a"b`},
		{header: `sid="h"`, query: "CMCD=" + url.QueryEscape(`sid="q"`), want: "h"},
		{header: `cid="c",sid="h"`, want: "h"},
		{query: "CMCD=" + url.QueryEscape(`sid=""`)},
		{query: "CMCD=" + url.QueryEscape(`sid="open`)},
		{query: "CMCD=" + url.QueryEscape(`sid="`+long+`"`)},
		{query: "CMCD=%zz"},
		{query: "CMCD="},
		{},
	}
	for _, tt := range tests {
		r := &http.Request{URL: &url.URL{RawQuery: tt.query}, Header: http.Header{}}
		if tt.header != "" {
			r.Header.Set("CMCD-Session", tt.header)
		}
		if got := sessionID(r); got != tt.want {
			t.Errorf("%q %q: %q, want %q", tt.query, tt.header, got, tt.want)
		}
	}
}

func FuzzCMCD(f *testing.F) {
	for _, seed := range []string{`br=100,sid="6e2f",v=1`, `bs,sid="a\"b"`, `sid=`, `=,=,"`, `sid="x`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if sid := cmcdSession(s); len(sid) > maxSessionID {
			t.Errorf("%d characters", len(sid))
		}
	})
}
