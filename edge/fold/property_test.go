package fold_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/edge/fold"
	"millrace/edge/fold/foldtest"
	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

// wholeBroadcast returns what one worker says of a broadcast, line by line, in
// the order of its making.
func wholeBroadcast(t *rapid.T, writer jobs.Epoch, profile string, durations [][]media.Ticks, disc []uint64) [][]index.Entry {
	lines := [][]index.Entry{{{Type: index.TypeBroadcast, Writer: writer, Broadcast: foldtest.Settings()}}}
	at := foldtest.Settings().Started
	for n, parts := range durations {
		var total media.Ticks
		for i, d := range parts {
			e := index.Entry{
				Type: index.TypePart, Writer: writer, Rendition: "source", Init: "i", Epoch: 7, Sequence: uint64(n), Part: i,
				Profile: profile, Duration: d, Size: 100, Independent: i == 0, Time: at, Discontinuity: disc[n],
			}
			total += d
			line := []index.Entry{e}
			if i == len(parts)-1 {
				e.Type, e.Part, e.Parts, e.Duration, e.Size = index.TypeSegment, 0, len(parts), total, 100*len(parts)
				line = append(line, e)
			}
			lines = append(lines, line)
		}
		at = at.Add(total.Duration())
	}
	return lines
}

// TestFoldProperties feeds two workers' lines in any interleaving, with repeats
// and losses, and checks after each line what must hold whatever comes.
func TestFoldProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 30).Draw(t, "segments")
		workers := drawWorkers(t, count)
		lossy := rapid.Bool().Draw(t, "lossy")

		f := fold.New(30 * time.Second)
		now := foldtest.Settings().Started
		if rapid.Bool().Draw(t, "cold") {
			defer f.Begin()
		} else {
			f.Begin()
		}
		shown := &observer{fold: f, shown: map[uint64]string{}}
		for next := [2]int{}; next[0] < len(workers[0]) || next[1] < len(workers[1]); {
			w := rapid.IntRange(0, 1).Draw(t, "worker")
			if next[w] >= len(workers[w]) {
				w = 1 - w
			}
			at := next[w]
			event := rapid.IntRange(0, 9).Draw(t, "event")
			if event == 2 && lossy { // time passes
				now = now.Add(4 * time.Second)
				f.GiveUp(now)
				continue
			}
			if event == 0 { // the follow stream broke: the worker repeats some of it
				at = rapid.IntRange(0, at).Draw(t, "again")
			} else {
				next[w]++
			}
			if event == 1 && lossy && at > 0 {
				continue // this line is lost
			}
			f.Apply(workers[w][at])
			shown.check(t)
		}
		f.Begin()
		f.Apply([]index.Entry{{Type: index.TypeEnd, Writer: highGrant, Sequence: uint64(count)}})
		for range 2 * count {
			now = now.Add(7 * time.Second)
			f.GiveUp(now)
			shown.check(t)
		}
		shown.checkEnd(t, count, lossy)
	})
}

// Two workers of one lease, as in a handover or with a hot standby.
var lowGrant, highGrant = jobs.Epoch{Lease: 1, Grant: 1}, jobs.Epoch{Lease: 1, Grant: 2}

// drawWorkers returns what two workers say of a broadcast of so many segments:
// the same, or of other profiles, of which p3 has an init section of its own.
func drawWorkers(t *rapid.T, count int) [2][][]index.Entry {
	durations := make([][]media.Ticks, count)
	disc := make([]uint64, count)
	for n := range durations {
		parts := rapid.IntRange(1, 8).Draw(t, "parts")
		for range parts {
			durations[n] = append(durations[n], media.Ticks(rapid.IntRange(15000, int(foldtest.PartTicks)).Draw(t, "ticks")))
		}
		if n > 0 {
			disc[n] = disc[n-1] + uint64(rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2}).Draw(t, "breaks"))
		}
	}
	workers := [2][][]index.Entry{
		wholeBroadcast(t, lowGrant, "p1", durations, disc),
		wholeBroadcast(t, highGrant, rapid.SampledFrom([]string{"p1", "p2", "p3"}).Draw(t, "profile"), durations, disc),
	}
	for _, line := range workers[1] {
		for i := range line {
			if line[i].Profile == "p3" {
				line[i].Init = "i3"
			}
		}
	}
	return workers
}

// observer remembers what a fold has shown.
type observer struct {
	fold *fold.Fold
	now  *fold.Snapshot

	shown          map[uint64]string
	first, disc    uint64
	lastMSN        uint64
	lastPart       int
	any, endedOnce bool
	// listed is the open segment as it was.
	listed map[uint64]playlist.Segment
}

// check looks at what is shown now.
func (o *observer) check(t *rapid.T) {
	foldtest.Answer(o.fold)
	o.now = o.fold.Snapshot(o.now)
	r := o.now.Find("source")
	if r == nil || r.TargetDuration == 0 {
		return
	}
	if _, _, ok := r.Last(); !ok {
		if o.any {
			t.Fatal("what was shown is gone")
		}
		return
	}
	first := r.Open
	if len(r.Segments) > 0 {
		first = r.Segments[0]
	}
	o.checkPosition(t, r, first)
	o.checkSegments(t, r, first)
	o.checkOpen(t, r)
	checkTexts(t, r)
}

// checkPosition: a playlist's begin and end never go back.
func (o *observer) checkPosition(t *rapid.T, r *fold.Rendition, first *playlist.Segment) {
	sequence, part, _ := r.Last()
	before := first.Discontinuity - uint64(first.Breaks)
	switch {
	case o.any && first.Sequence < o.first:
		t.Fatalf("media sequence went back from %d to %d", o.first, first.Sequence)
	case o.any && before < o.disc:
		t.Fatalf("discontinuity sequence went back from %d to %d", o.disc, before)
	case o.any && (sequence < o.lastMSN || sequence == o.lastMSN && part < o.lastPart && r.Media.Find(sequence).Parts != nil):
		t.Fatalf("the end went back from %d.%d to %d.%d", o.lastMSN, o.lastPart, sequence, part)
	case o.endedOnce && !r.Ended:
		t.Fatal("it went on after the end")
	}
	o.first, o.disc, o.lastMSN, o.lastPart, o.any, o.endedOnce = first.Sequence, before, sequence, part, true, r.Ended
}

// checkSegments: what was shown never changes, and has no hole.
func (o *observer) checkSegments(t *rapid.T, r *fold.Rendition, first *playlist.Segment) {
	number := first.Discontinuity - uint64(first.Breaks)
	for i, s := range r.Segments {
		if s.Sequence != first.Sequence+uint64(i) {
			t.Fatalf("segment %d stands where %d should", s.Sequence, first.Sequence+uint64(i))
		}
		number += uint64(s.Breaks)
		if number != s.Discontinuity {
			t.Fatalf("segment %d: the tags count to %d, its number is %d", s.Sequence, number, s.Discontinuity)
		}
		text := fmt.Sprintf("%d %s %s %d %v %d", s.Epoch, s.Profile, s.Init, s.Duration, s.Gap, s.Discontinuity)
		if old, ok := o.shown[s.Sequence]; ok && old != text {
			t.Fatalf("segment %d changed from %s to %s", s.Sequence, old, text)
		}
		o.shown[s.Sequence] = text
		if !s.Gap && len(s.Parts) > 0 {
			var sum media.Ticks
			for _, p := range s.Parts {
				sum += p.Duration
			}
			if sum != s.Duration {
				t.Fatalf("segment %d: parts of %d, %d in all", s.Sequence, sum, s.Duration)
			}
		}
	}
}

// checkOpen: parts that were listed stay, under the init section that they had,
// and all parts of a segment need the same one.
func (o *observer) checkOpen(t *rapid.T, r *fold.Rendition) {
	for s := range o.listed {
		if now := r.Media.Find(s); now != nil && now.Parts != nil {
			for i, p := range o.listed[s].Parts {
				if now.Init != o.listed[s].Init || now.Parts[i] != p {
					t.Fatalf("part %d of segment %d, listed as %+v under %s, is %+v under %s", i, s, p, o.listed[s].Init, now.Parts[i], now.Init)
				}
			}
		}
	}
	o.listed = map[uint64]playlist.Segment{}
	if r.Open == nil {
		return
	}
	o.listed[r.Open.Sequence] = *r.Open
	for _, p := range r.Open.Parts {
		if (p.Profile == "p3") != (r.Open.Init == "i3") {
			t.Fatalf("segment %d is mixed: %+v", r.Open.Sequence, r.Open)
		}
	}
	if len(r.Open.Parts) == 0 || len(r.Segments) > 0 && r.Open.Sequence != r.Segments[len(r.Segments)-1].Sequence+1 {
		t.Fatalf("open segment %+v", r.Open)
	}
}

// checkTexts: whatever the playlist ends with is there, and what comes next isn't.
func checkTexts(t *rapid.T, r *fold.Rendition) {
	for _, skip := range []playlist.Skip{playlist.SkipNone, playlist.SkipYes, playlist.SkipV2} {
		text := string(r.Append(nil, skip, nil))
		foldtest.CheckPlaylist(t, text)
		if skip == playlist.SkipNone && strings.Contains(text, "EXT-X-SKIP") {
			t.Fatal("a delta that nobody asked for")
		}
	}
	if sequence, part, _ := r.Last(); part != playlist.NoPart && !r.Has(sequence, part) {
		t.Fatalf("it ends with %d.%d, but doesn't have it", sequence, part)
	}
	if h, ok := r.Hint(); ok {
		if r.Has(h.Sequence, h.Part) || r.TooFar(h.Sequence, h.Part) {
			t.Fatalf("the hint %d.%d is there already or too far", h.Sequence, h.Part)
		}
	}
}

// checkEnd: after the end, and with enough patience, all of it is shown.
func (o *observer) checkEnd(t *rapid.T, count int, lossy bool) {
	r := o.now.Find("source")
	if r == nil {
		return // both broadcast lines were lost
	}
	if drafts := o.fold.Drafts("source"); !r.Ended || drafts != 0 {
		t.Fatalf("not ended after the end of %d segments: %d drafts", count, drafts)
	}
	if lossy {
		return
	}
	if last := r.Segments[len(r.Segments)-1]; last.Sequence != uint64(count-1) {
		t.Fatalf("the last segment is %d of %d", last.Sequence, count)
	}
	for _, s := range r.Segments {
		if s.Gap {
			t.Fatalf("segment %d is a gap, although nothing was lost", s.Sequence)
		}
	}
}
