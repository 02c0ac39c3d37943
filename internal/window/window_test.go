package window

import (
	"net/url"
	"path"
	"testing"
)

func TestParseFile(t *testing.T) {
	for _, c := range []struct {
		name, version string
		want          File
		ok            bool
	}{
		{"12.m4s", "7.p", File{Sequence: 12, Part: WholeSegment, Epoch: 7, Profile: "p"}, true},
		{"12.3.m4s", "7.p.q", File{Sequence: 12, Part: 3, Epoch: 7, Profile: "p.q"}, true},
		{"init-ab.mp4", "", File{Init: "ab"}, true},
		{"init-.mp4", "", File{}, false},
		{"init-ab.m4s", "", File{}, false},
		{"12.m4s", "", File{}, false},
		{"12.m4s", "7.", File{}, false},
		{"12.m4s", "x.p", File{}, false},
		{"12.-1.m4s", "7.p", File{}, false},
		{"12.3.4.m4s", "7.p", File{}, false},
		{"-1.m4s", "7.p", File{}, false},
		{".m4s", "7.p", File{}, false},
		{"99999999999999999999.m4s", "7.p", File{}, false},
		{"12.mp4", "7.p", File{}, false},
		{"", "", File{}, false},
	} {
		got, ok := ParseFile(c.name, c.version)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%q with %q: %+v, %t; want %+v, %t", c.name, c.version, got, ok, c.want, c.ok)
		}
	}
}

// The golden addresses: a worker and an edge of different versions must agree.
func TestPaths(t *testing.T) {
	m := Media{Broadcast: "b1", Rendition: "480p30", Epoch: 7, Sequence: 12, Part: WholeSegment, Profile: "c408ceb4"}
	part := m
	part.Part = 3
	for got, want := range map[string]string{
		m.Path():                          "/window/b1/480p30/12.m4s?v=7.c408ceb4",
		part.Path():                       "/window/b1/480p30/12.3.m4s?v=7.c408ceb4",
		InitPath("b1", "480p30", "f0a94"): "/window/b1/480p30/init-f0a94.mp4",
		ThumbnailPath("b1"):               "/window/b1/thumbnail.jpg",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// FuzzParseFile reads any name and version. What is accepted is written and
// read again without a change.
func FuzzParseFile(f *testing.F) {
	f.Add("12.3.m4s", "7.p")
	f.Add("12.m4s", "7.p.q")
	f.Add("init-ab.mp4", "")
	f.Fuzz(func(t *testing.T, name, version string) {
		file, ok := ParseFile(name, version)
		if !ok {
			return
		}
		address := InitPath("b", "v", file.Init)
		if file.Init == "" {
			address = Media{"b", "v", file.Epoch, file.Sequence, file.Part, file.Profile}.Path()
		}
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if file.Init != "" && path.Base(u.Path) != name {
			return // a hash with a slash: no file has it
		}
		if again, ok := ParseFile(path.Base(u.Path), u.Query().Get(VersionParameter)); !ok || again != file {
			t.Fatalf("%s became %+v, %t", address, again, ok)
		}
	})
}
