package fold_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"millrace/edge/fold"
	"millrace/edge/fold/foldtest"
	"millrace/edge/playlist"
)

var update = flag.Bool("update", false, "write the golden files anew")

// script is a fold that is told what a script says.
type script struct{ *foldtest.Script }

func play(t testing.TB, text string) *script {
	t.Helper()
	return &script{foldtest.Play(t, text)}
}

// snapshot returns what is shown.
func (s *script) snapshot() *fold.Snapshot { return s.Fold.Snapshot(nil) }

// render returns the playlist with a golden file's name: "index.m3u8",
// "{rendition}.m3u8", "{rendition}.skip.m3u8", "{rendition}.v2.m3u8".
func (s *script) render(name string) []byte {
	s.T.Helper()
	name = strings.TrimSuffix(name, ".m3u8")
	shown := s.snapshot()
	if name == "index" {
		m := shown.Multivariant(fold.Place{Base: "b1/"})
		return m.Append(nil)
	}
	name, flavour, _ := strings.Cut(name, ".")
	skip := map[string]playlist.Skip{"skip": playlist.SkipYes, "v2": playlist.SkipV2}[flavour]
	r := shown.Find(name)
	if r == nil {
		s.T.Fatalf("no rendition %s", name)
	}
	return r.Append(nil, skip, shown.Reports(name))
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := play(t, string(archive.Files[0].Data))
			for i := 1; i < len(archive.Files); i++ {
				f := &archive.Files[i]
				got := s.render(f.Name)
				foldtest.CheckPlaylist(t, string(got))
				if *update {
					f.Data = got
				} else if !bytes.Equal(got, f.Data) {
					t.Errorf("%s differs; got\n%s\nwant\n%s", f.Name, got, f.Data)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Where nothing was expected any more, the first new media says at once that
// more comes; what is only told again doesn't.
func TestFoldNewMediaEndsSilence(t *testing.T) {
	s := play(t, "begin\nbroadcast\nwhole source 0 1\npart source 2 0 independent")
	hinted := func() bool {
		_, ok := s.snapshot().Find("source").Hint()
		return ok
	}
	s.Fold.SetAway(true)
	s.Line("part source 2 0 independent")
	s.Line("segment source 1 parts=6")
	if hinted() {
		t.Error("a part is to be expected after what is known")
	}
	s.Line("part source 2 1")
	if !hinted() {
		t.Error("no part is to be expected after a new one")
	}
}

// What a lower epoch says changes nothing that viewers see: not of the
// broadcast as a whole, nor of a segment that a higher one makes otherwise.
func TestFoldRefusesLowerEpochs(t *testing.T) {
	for _, stale := range []string{
		"pause 2 writer=1.9",
		"end 1 writer=1.9",
		"init source isource codec=avc1.640020 size=16x16 writer=1.9",
		"broadcast ladder writer=1.9",
		"part source 1 1 profile=other writer=1.9",
		"gap source 1 writer=1.9",
		"segment source 1 parts=1 profile=other writer=1.9",
		"part source 1 1 epoch=6 writer=2.1", // of the ingest before
	} {
		t.Run(stale, func(t *testing.T) {
			s := play(t, `begin
				broadcast writer=2.1
				init source isource codec=avc1.64001f size=1280x720 writer=2.1
				whole source 0 0 writer=2.1
				whole audio 0 0 writer=2.1
				part source 1 0 independent writer=2.1
				part audio 1 0 independent writer=2.1`)
			seen := func() string {
				complete, _ := s.snapshot().Listable()
				return fmt.Sprintf("%s\n%s\nall are listed: %t", s.render("index.m3u8"), s.render("source.m3u8"), complete)
			}
			before := seen()
			s.Line(stale)
			if after := seen(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if n := s.Fold.TakeRefused()[fold.RefusedStale]; n != 1 {
				t.Errorf("%d entries are counted as refused", n)
			}
		})
	}
}

// Where other ingests went on, all that those before left out is filled in one
// step, by an edge that was there and by one that comes later.
func TestFoldFillsAnOrphansHolesAtOnce(t *testing.T) {
	const told = `broadcast
		whole source 0 1
		part source 3 0 independent
		part source 5 0 independent epoch=8 disc=1 writer=2.1
		part source 8 0 independent epoch=9 disc=2 writer=3.1`
	shown := func(t *testing.T, s *script) {
		t.Helper()
		r := s.snapshot().Find("source")
		if last, part, ok := r.Last(); !ok || last != 8 || part != 0 {
			t.Errorf("it stands at part %d of segment %d", part, last)
		}
		for i, s := range r.Segments {
			if want := r.Segments[0].Sequence + uint64(i); s.Sequence != want {
				t.Errorf("segment %d stands where %d should", s.Sequence, want)
			}
		}
	}
	t.Run("later", func(t *testing.T) {
		s := play(t, told+"\nbegin")
		shown(t, s)
	})
	t.Run("from the start", func(t *testing.T) {
		s := play(t, "begin\n"+told)
		s.GiveUp(s.Now)
		s.GiveUp(s.Now.Add(fold.OrphanPatience))
		shown(t, s)
	})
}

// Without a picture that every player can play the playlist isn't shown where
// one is to come: players load it once. The source may be missing.
func TestListableWithSourceInAnotherFormat(t *testing.T) {
	const begin = "begin\nbroadcast source=hvc1.1.6.L93.B0 720p ladder\npart audio 0 0 independent\n"
	for told, want := range map[string]bool{
		"part source 0 0 independent":                              false,
		"part 360p30 0 0 independent":                              true,
		"part 720p30 0 0 independent\npart source 0 0 independent": true,
	} {
		complete, playable := play(t, begin+told).snapshot().Listable()
		if complete || playable != want {
			t.Errorf("%s: complete %t, playable %t", told, complete, playable)
		}
	}
	if complete, _ := play(t, begin+"part source 0 0\npart 720p30 0 0\npart 360p30 0 0").snapshot().Listable(); !complete {
		t.Error("all are ready")
	}
}

// What an ingest left open is closed as it stands once another one went on, or is
// a gap where nobody can serve it. Until that is answered nothing comes after it.
func TestFoldAsksBeforeItClosesShort(t *testing.T) {
	for served, want := range map[bool]string{
		true:  "#EXT-X-PART:DURATION=0.33333,URI=\"7.1.0.p1.m4s\",INDEPENDENT=YES\n#EXTINF:0.33333,\n7.1.p1.m4s\n#EXT-X-DISCONTINUITY\n",
		false: "#EXT-X-GAP\n#EXTINF:0.33333,\n7.1.p1.m4s\n#EXT-X-DISCONTINUITY\n",
	} {
		s := play(t, `begin
			broadcast
			whole source 0 0
			part source 1 0 independent
			part source 2 0 independent epoch=8 disc=1 writer=2.1`)
		s.Fold.GiveUp(s.Now)
		s.Fold.GiveUp(s.Now.Add(fold.OrphanPatience))
		if last, _, _ := s.snapshot().Find("source").Last(); last != 1 {
			t.Errorf("it went on to %d without an answer", last)
		}
		q, ok := s.Fold.Question()
		if !ok || q.Rendition != "source" || q.Segment.Sequence != 1 || len(q.Segment.Parts) != 1 {
			t.Fatalf("it asks %+v, %t", q, ok)
		}
		s.Fold.Answer(q, served)
		if _, again := s.Fold.Question(); again {
			t.Error("it asks again")
		}
		got := string(s.render("source.m3u8"))
		if !strings.Contains(got, want) || !strings.Contains(got, "8.2.0.p1.m4s") {
			t.Errorf("served %t:\n%s", served, got)
		}
	}
}

// A source may come back in another format; a rung is what it was announced as,
// whatever stands in for it.
func TestFoldRungsKeepTheirFormat(t *testing.T) {
	s := play(t, `begin
		broadcast source=hvc1.1.6.L93.B0 720p
		init 720p30 i codec=avc1.640020 size=1280x720
		init 720p30 isource codec=hvc1.1.6.L93.B0 size=1920x1080
		init source isource codec=av01.0.08M.08 size=1920x1080
		part source 0 0 independent
		part 720p30 0 0 independent
		part audio 0 0 independent`)
	got := string(s.render("index.m3u8"))
	for _, want := range []string{
		`CODECS="avc1.640020,mp4a.40.2",RESOLUTION=1280x720`, `CODECS="av01.0.08M.08,mp4a.40.2",RESOLUTION=1920x1080`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
}
