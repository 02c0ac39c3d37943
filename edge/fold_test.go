package edge

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

var update = flag.Bool("update", false, "write the golden files anew")

// script is a sequence of entries in a short notation, one follow line a line,
// entries of one line separated by " + ":
//
//	broadcast [audio-only] [ladder] [window=seconds]
//	init R HASH [codec=] [size=WxH]
//	part R SEQUENCE PART [ticks=] [independent] [init=] [disc=] [profile=] [writer=L.G] [time=seconds]
//	segment R SEQUENCE [ticks=] [parts=] [bytes=] ...
//	whole R FROM TO ...      segments with 6 parts each; the last part shares a line with its segment
//	gap R SEQUENCE, pause [SEQUENCE], end SEQUENCE
//	begin, wait SECONDS, finish
type script struct {
	t    testing.TB
	fold *fold
	now  time.Time
}

func (s *script) run(text string) {
	s.t.Helper()
	s.now = testSettings().Started
	s.fold = newFold(20 * time.Second)
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if line != "" {
			s.line(strings.TrimSpace(line))
		}
	}
}

func (s *script) line(line string) {
	s.t.Helper()
	words := strings.Fields(line)
	switch words[0] {
	case "begin":
		s.fold.begin()
		return
	case "finish":
		s.fold.finish()
		return
	case "wait":
		s.fold.giveUp(s.now, 6*time.Second)
		s.now = s.now.Add(time.Duration(s.number(words[1])) * time.Second)
		s.fold.giveUp(s.now, 6*time.Second)
		return
	case "whole":
		from, to := s.number(words[2]), s.number(words[3])
		options := strings.Join(words[4:], " ")
		for n := from; n <= to; n++ {
			for part := range partsEach {
				entry := fmt.Sprintf("part %s %d %d %s", words[1], n, part, options)
				if part == 0 {
					entry += " independent"
				}
				if part == partsEach-1 {
					entry += fmt.Sprintf(" + segment %s %d parts=6 %s", words[1], n, options)
				}
				s.line(entry)
			}
		}
		return
	}
	var entries []index.Entry
	for text := range strings.SplitSeq(line, " + ") {
		entries = append(entries, s.entry(strings.Fields(text)))
	}
	// Through the wire form, as a worker would send it.
	doc, err := index.AppendLine(nil, entries)
	if err != nil {
		s.t.Fatal(err)
	}
	if entries, err = index.ParseLine(doc); err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	s.fold.apply(entries)
}

func (s *script) number(word string) int {
	s.t.Helper()
	n, err := strconv.Atoi(word)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) entry(words []string) index.Entry {
	s.t.Helper()
	e := index.Entry{Type: index.Type(words[0]), Writer: jobs.Epoch{Lease: 1, Grant: 1}, Epoch: 7, Profile: testProfile}
	words = words[1:]
	take := func() string {
		word := words[0]
		words = words[1:]
		return word
	}
	switch e.Type {
	case index.TypeBroadcast:
		e.Broadcast = testSettings()
	case index.TypeInit:
		e.Rendition, e.Init = take(), take()
	case index.TypePart, index.TypeSegment, index.TypeGap:
		e.Rendition = take()
		e.Sequence = uint64(s.number(take()))
		e.Time = testSettings().Started.Add(time.Duration(e.Sequence) * 2 * time.Second)
		e.Init = "i" + e.Rendition
		e.Duration = partsEach * partTicks
		if e.Type == index.TypePart {
			e.Part, e.Duration, e.Size = s.number(take()), partTicks, 1000
		} else if e.Type == index.TypeSegment {
			e.Size = 6000
		}
	case index.TypePause, index.TypeEnd:
		if len(words) > 0 {
			e.Sequence = uint64(s.number(take()))
		}
	}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "window":
			s.fold.window = media.Ticks(s.number(value)) * media.VideoTimescale
		case "audio-only":
			e.Broadcast.Renditions = e.Broadcast.Renditions[1:]
		case "ladder":
			e.Broadcast.Renditions = append(e.Broadcast.Renditions, index.Rendition{
				Name: "360p30", Kind: media.Video, Codec: "avc1.4d401e", Width: 640, Height: 360, FrameRate: 30, MaxBitrate: 800_000,
			})
		case "ticks":
			e.Duration = media.Ticks(s.number(value))
		case "independent":
			e.Independent = true
		case "init":
			e.Init = value
		case "disc":
			e.Discontinuity = uint64(s.number(value))
		case "profile":
			e.Profile = value
		case "parts":
			e.Parts = s.number(value)
		case "bytes":
			e.Size = s.number(value)
		case "epoch":
			e.Epoch = uint64(s.number(value))
		case "codec":
			e.Codec = value
		case "size":
			if _, err := fmt.Sscanf(value, "%dx%d", &e.Width, &e.Height); err != nil {
				s.t.Fatal(err)
			}
		case "time":
			e.Time = testSettings().Started.Add(time.Duration(s.number(value)) * time.Second)
		case "notime":
			e.Time = time.Time{}
		case "writer":
			if _, err := fmt.Sscanf(value, "%d.%d", &e.Writer.Lease, &e.Writer.Grant); err != nil {
				s.t.Fatal(err)
			}
		default:
			s.t.Fatalf("unknown option %s", word)
		}
	}
	return e
}

// board returns what viewers see.
func (s *script) board() *board {
	b := newBoard(0)
	b.fold = s.fold
	b.update(func(*fold) bool { return true })
	return b
}

// render returns the playlist with a golden file's name: "index.m3u8",
// "{rendition}.m3u8", "{rendition}.skip.m3u8", "{rendition}.v2.m3u8".
func (s *script) render(b *board, name string) []byte {
	s.t.Helper()
	name = strings.TrimSuffix(name, ".m3u8")
	if name == "index" {
		return b.now.Load().variants("demo", "b1", "", nil, false)
	}
	name, flavour, _ := strings.Cut(name, ".")
	skip := map[string]playlist.Skip{"skip": playlist.SkipYes, "v2": playlist.SkipV2}[flavour]
	r := b.now.Load().renditions[name]
	if r == nil {
		s.t.Fatalf("no rendition %s", name)
	}
	return b.media(r, skip, false, newMetrics(discard{}))
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
			s := &script{t: t}
			s.run(string(archive.Files[0].Data))
			b := s.board()
			for i := 1; i < len(archive.Files); i++ {
				f := &archive.Files[i]
				got := s.render(b, f.Name)
				checkPlaylist(t, string(got))
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

// checkPlaylist tests what every media playlist must obey, whatever is in it.
func checkPlaylist(t interface {
	Helper()
	Errorf(string, ...any)
}, text string,
) {
	t.Helper()
	if !strings.HasPrefix(text, "#EXTM3U\n") || !strings.HasSuffix(text, "\n") {
		t.Errorf("not a playlist: %q", text)
	}
	if strings.Contains(text, "INDEPENDENT-SEGMENTS") {
		t.Errorf("EXT-X-INDEPENDENT-SEGMENTS must not be there")
	}
	var target, partTarget float64
	dated, ended, segments := false, false, 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		tag, value, _ := strings.Cut(line, ":")
		switch tag {
		case "#EXT-X-TARGETDURATION":
			target, _ = strconv.ParseFloat(value, 64)
		case "#EXT-X-PART-INF":
			partTarget, _ = strconv.ParseFloat(strings.TrimPrefix(value, "PART-TARGET="), 64)
		case "#EXT-X-PROGRAM-DATE-TIME":
			dated = true
		case "#EXT-X-DISCONTINUITY", "#EXT-X-MAP":
			if dated {
				t.Errorf("%s stands behind EXT-X-PROGRAM-DATE-TIME:\n%s", tag, text)
			}
		case "#EXT-X-PART":
			d, _ := strconv.ParseFloat(strings.TrimPrefix(strings.Split(value, ",")[0], "DURATION="), 64)
			if d > partTarget || !dated {
				t.Errorf("%s: longer than %f, or before the segment's date", line, partTarget)
			}
		case "#EXTINF":
			d, _ := strconv.ParseFloat(strings.TrimSuffix(value, ","), 64)
			if int(d+.5) > int(target) || !dated {
				t.Errorf("%s: longer than %f, or without a date", line, target)
			}
			dated = false
			segments++
		case "#EXT-X-ENDLIST":
			ended = true
		case "#EXT-X-PRELOAD-HINT":
			if ended {
				t.Errorf("a hint after the end")
			}
		}
	}
}

// Where nothing was expected any more, the first new media says at once that
// more comes; what is only told again doesn't.
func TestFoldNewMediaEndsSilence(t *testing.T) {
	s, b := boardOf(t, twoSegments)
	hinted := func() bool {
		b.update(func(*fold) bool { return true })
		_, ok := b.now.Load().renditions["source"].Hint()
		return ok
	}
	s.fold.setAway(true)
	s.line("part source 2 0 independent")
	s.line("segment source 1 parts=6")
	if hinted() {
		t.Error("a part is to be expected after what is known")
	}
	s.line("part source 2 1")
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
			s, b := boardOf(t, `begin
				broadcast writer=2.1
				init source isource codec=avc1.64001f size=1280x720 writer=2.1
				whole source 0 0 writer=2.1
				whole audio 0 0 writer=2.1
				part source 1 0 independent writer=2.1
				part audio 1 0 independent writer=2.1`)
			seen := func() string {
				b.update(func(*fold) bool { return true })
				complete, _ := b.now.Load().listable()
				return fmt.Sprintf("%s\n%s\nall are listed: %t", s.render(b, "index.m3u8"), s.render(b, "source.m3u8"), complete)
			}
			before := seen()
			s.line(stale)
			if after := seen(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if n := s.fold.refused[errStale.Error()]; n != 1 {
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
	shown := func(t *testing.T, f *fold) {
		t.Helper()
		r := &f.renditions["source"].media
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
		s, _ := boardOf(t, told+"\nbegin")
		shown(t, s.fold)
	})
	t.Run("from the start", func(t *testing.T) {
		s, _ := boardOf(t, "begin\n"+told)
		s.fold.giveUp(s.now, 6*time.Second)
		s.fold.giveUp(s.now.Add(orphanPatience), 6*time.Second)
		shown(t, s.fold)
	})
}
