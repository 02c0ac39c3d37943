package storage

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

const second = media.VideoTimescale

func TestCatalogueHoldsLaterSegmentsBack(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*bench)
		want string
	}{
		"in order": {
			func(b *bench) { b.whole("v", 5); b.whole("v", 6) },
			"v5.0 | v5.1 v5 | v6.0 | v6.1 v6",
		},
		"one ahead": {
			func(b *bench) { b.part("v", 5, 0); b.part("v", 6, 0); b.finish("v", 5); b.finish("v", 6) },
			"v5.0 | v5.1 v5 | v6.0 | v6.1 v6",
		},
		"the later ones are ready first": {
			func(b *bench) { b.whole("v", 7); b.whole("v", 6); b.part("v", 8, 0); b.whole("v", 5) },
			"v5.0 | v5.1 v5 | v6.0 | v6.1 v6 | v7.0 | v7.1 v7 | v8.0",
		},
		"renditions don't wait for each other": {
			func(b *bench) { b.part("v", 5, 0); b.whole("a", 5); b.part("a", 6, 0) },
			"v5.0 | a5.0 | a5.1 a5 | a6.0",
		},
		"a gap releases": {
			func(b *bench) {
				b.part("v", 6, 0)
				_ = b.call().gap(index.Entry{Rendition: "v", Sequence: 5})
			},
			"v5! | v6.0",
		},
		"a gap waits as well": {
			func(b *bench) {
				_ = b.call().gap(index.Entry{Rendition: "v", Sequence: 6})
				b.part("v", 7, 0)
				b.whole("v", 5)
			},
			"v5.0 | v5.1 v5 | v6! | v7.0",
		},
		"a skip releases and says nothing": {
			func(b *bench) { b.part("v", 6, 0); _ = b.call().skip("v", 5) },
			"v6.0",
		},
		"backfill doesn't wait": {
			func(b *bench) { b.part("v", 5, 0); b.whole("v", 4); b.whole("v", 3) },
			"v5.0 | v4.0 | v4.1 v4 | v3.0 | v3.1 v3",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, grantOf(1, 5, 3))
			c.do(b)
			b.said(c.want)
		})
	}
}

func TestCatalogueGivesUpWhatHoldsUpTooMuch(t *testing.T) {
	b := newBench(t, grantOf(1, 0, 0))
	b.part("v", 0, 0)
	b.out = outcome{}
	for n := uint64(1); n <= heldSegments; n++ {
		b.whole("v", n)
	}
	b.said("")
	b.part("v", heldSegments+1, 0)
	if b.out.late != 1 {
		t.Errorf("%d segments were given up, want 1", b.out.late)
	}
	want := []string{"v0!"}
	for n := 1; n <= heldSegments; n++ {
		want = append(want, fmt.Sprintf("v%d.0", n), fmt.Sprintf("v%d.1 v%d", n, n))
	}
	b.said(strings.Join(append(want, fmt.Sprintf("v%d.0", heldSegments+1)), " | "))

	if err := b.call().part(partEntry("v", 0, 0), partData("v", 0, 0)); !errors.Is(err, errGap) {
		t.Errorf("a part of the segment given up: %v, want %v", err, errGap)
	}
	if b.s.bytes != heldSegments*(6+6)+6 {
		t.Errorf("%d bytes are counted", b.s.bytes)
	}
}

func TestCataloguePartsTwice(t *testing.T) {
	other := func(e index.Entry, profile string) index.Entry { e.Profile = profile; return e }
	for name, c := range map[string]struct {
		entry index.Entry
		data  []byte
		want  error
	}{
		"equal":                   {partEntry("v", 5, 0), partData("v", 5, 0), nil},
		"different":               {partEntry("v", 5, 0), []byte("else"), errDiffers},
		"of a complete segment":   {partEntry("v", 4, 1), partData("v", 4, 1), nil},
		"past its end":            {partEntry("v", 4, 2), []byte("more"), errOrder},
		"one is missing":          {partEntry("v", 5, 2), []byte("more"), errOrder},
		"not the first":           {partEntry("a", 5, 1), []byte("more"), errOrder},
		"another profile":         {other(partEntry("v", 5, 0), "q"), partData("v", 5, 0), errVersion},
		"another profile, before": {other(partEntry("v", 4, 0), "q"), partData("v", 4, 0), errVersion},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, grantOf(1, 4, 4))
			b.whole("v", 4)
			b.whole("a", 4)
			b.part("v", 5, 0)
			b.out = outcome{}
			err := b.call().part(c.entry, c.data)
			if !errors.Is(err, c.want) || (c.want == nil && err != nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			b.said("")
		})
	}
}

func TestCatalogueFinish(t *testing.T) {
	b := newBench(t, grantOf(1, 0, 0))
	b.whole("v", 0)
	if len(b.out.stores) != 1 {
		t.Fatalf("%d objects go to S3, want 1", len(b.out.stores))
	}
	o := b.out.stores[0]
	if o.key != "broadcasts/b/7/v/0.p.m4s" || string(slices.Concat(o.data...)) != "v/0.0;v/0.1;" || o.entry.Size != 12 || o.entry.Parts != 2 {
		t.Errorf("the object is %s %q, %+v", o.key, o.data, o.entry)
	}
	if len(b.out.records) != 0 {
		t.Error("Redis is told before the PUT")
	}
	b.upload("v", 0)
	if len(b.out.records) != 1 {
		t.Error("Redis isn't told after the PUT")
	}
	b.said("v0.0 | v0.1 v0")

	b.finish("v", 0) // said again
	b.said("")
	if err := b.call().finish(index.Entry{}, nil, segmentEntry("v", 0)); err != nil {
		t.Errorf("finished again without a part: %v", err)
	}
	// All parts are published, the mark comes after the last one.
	b.part("v", 1, 0)
	if err := b.call().finish(index.Entry{}, nil, segmentEntry("v", 1)); err != nil {
		t.Error(err)
	}
	b.said("v1.0 | v1")
	if err := b.call().finish(index.Entry{}, nil, segmentEntry("v", 2)); !errors.Is(err, errOrder) {
		t.Errorf("a segment without parts: %v, want %v", err, errOrder)
	}
	wrong := segmentEntry("v", 2)
	wrong.Parts = 5
	if err := b.call().finish(partEntry("v", 2, 0), []byte("x"), wrong); !errors.Is(err, errOrder) {
		t.Errorf("a segment of 5 parts with one: %v, want %v", err, errOrder)
	}
}

func TestCatalogueSafe(t *testing.T) {
	b := newBench(t, grantOf(1, 5, 3))
	check := func(what string, safe, finished uint64) {
		t.Helper()
		if s, f := b.s.safe(grantOf(1, 5, 3)), b.s.finished(grantOf(1, 5, 3)); s != safe || f != finished {
			t.Errorf("%s: safe %d and finished %d, want %d and %d", what, s, f, safe, finished)
		}
	}
	check("at the start", 3, 5)
	b.call().announceBroadcast(index.Broadcast{TargetDuration: 4, PartTarget: 1, Renditions: []index.Rendition{{Name: "v"}, {Name: "a"}, {Name: "w"}}})
	for _, r := range []string{"v", "a"} {
		for _, n := range []uint64{5, 6, 4, 3} {
			b.whole(r, n)
		}
	}
	check("one rendition hasn't begun", 3, 5)
	for n := uint64(3); n <= 6; n++ {
		_ = b.call().skip("w", n)
	}
	check("it is skipped", 3, 7)
	b.upload("v", 3)
	b.upload("a", 3)
	b.upload("v", 5)
	check("v4 and a4 aren't uploaded", 4, 7)
	b.call().lost(segmentEntry("v", 4), "why")
	b.upload("a", 4)
	check("v4 is lost for good", 5, 7)
	b.upload("a", 5)
	b.upload("a", 6)
	check("v6 isn't uploaded", 6, 7)
	old := segmentEntry("v", 6)
	old.Profile = "another"
	b.call().uploaded(old)
	check("another version of v6 is uploaded", 6, 7)
	b.upload("v", 6)
	check("all is uploaded", 7, 7)
}

func TestCatalogueLost(t *testing.T) {
	b := newBench(t, grantOf(1, 0, 0))
	b.whole("v", 0)
	b.out = outcome{}
	b.call().lost(segmentEntry("v", 0), "the spool is full")
	if len(b.out.records) != 1 || b.out.records[0].Reason != "the spool is full" || b.out.records[0].Duration != 2*second {
		t.Errorf("Redis is told %+v", b.out.records)
	}
	b.said("v0!")
	b.call().lost(segmentEntry("v", 0), "again")
	b.said("")
}

func TestCatalogueTakeover(t *testing.T) {
	b := newBench(t, grantOf(1, 0, 0))
	b.whole("v", 0)
	b.whole("a", 0)
	b.part("v", 1, 0)
	b.whole("a", 1)
	b.part("v", 2, 0) // held
	b.out = outcome{}

	b.reopen(grantOf(2, 1, 0))
	b.whole("a", 1)
	b.part("v", 1, 0)
	b.said("") // all of it exists
	b.finish("v", 1)
	if w := b.out.lines[0][0].Writer; w != (jobs.Epoch{Lease: 1, Grant: 2}) {
		t.Errorf("the new part's writer is %v", w)
	}
	b.said("v1.1 v1")

	// A worker of another profile makes the unfinished segment anew.
	b.part("v", 2, 0)
	b.out = outcome{}
	b.reopen(grantOf(3, 2, 0))
	p, g := partEntry("v", 2, 0), segmentEntry("v", 2)
	p.Profile, g.Profile = "q", "q"
	if err := b.call().finish(p, []byte("other"), g); err != nil {
		t.Error(err)
	}
	b.said("v2.0 v2")
	var versions []string
	for _, line := range b.s.snapshot() {
		for _, e := range line {
			if e.Sequence == 2 {
				versions = append(versions, string(e.Type)+e.Profile)
			}
		}
	}
	if want := []string{"partq", "segmentq"}; !slices.Equal(versions, want) {
		t.Errorf("a new reader is told %v of segment 2, want %v", versions, want)
	}
}

func TestCatalogueRestore(t *testing.T) {
	earlier := func(e index.Entry) index.Entry { e.Writer = jobs.Epoch{Lease: 1, Grant: 1}; return e }
	b := newBench(t, grantOf(2, 12, 10))
	gap := earlier(segmentEntry("v", 10))
	gap.Type = index.TypeGap
	b.call().restore([]index.Entry{
		earlier(index.Entry{Type: index.TypeBroadcast, Broadcast: &index.Broadcast{TargetDuration: 4, PartTarget: 1, Renditions: []index.Rendition{{Name: "v"}}}}),
		earlier(index.Entry{Type: index.TypeInit, Rendition: "v", Init: "i", Epoch: 7}),
		earlier(segmentEntry("v", 9)), gap, earlier(segmentEntry("v", 11)),
	})
	b.said("broadcast init v9 v10! v11")
	if s := b.s.safe(grantOf(2, 12, 10)); s != 12 {
		t.Errorf("safe is %d, want 12", s)
	}
	if len(b.out.stores)+len(b.out.records) > 0 {
		t.Error("what came from Redis is written again")
	}
	// The gap is backfilled after all: the newer writer wins.
	b.whole("v", 10)
	b.said("v10.0 | v10.1 v10")
	if got := say(b.s.snapshot()); got != "broadcast init v9 v10.0 v10.1 v10 v11" {
		t.Errorf("a new reader is told %s", got)
	}
	// The init section is only known by name: announcing it stores it.
	b.call().announceInit("v", &media.Init{Hash: "i", Data: []byte("x")}, index.Entry{Epoch: 7})
	b.call().announceInit("v", &media.Init{Hash: "i", Data: []byte("x")}, index.Entry{Epoch: 7})
	if len(b.out.stores) != 1 || b.out.stores[0].key != "broadcasts/b/7/v/init-i.mp4" {
		t.Errorf("the stored init sections are %+v", b.out.stores)
	}
}

func TestCatalogueSnapshot(t *testing.T) {
	b := newBench(t, grantOf(1, 0, 0))
	b.call().announceBroadcast(index.Broadcast{TargetDuration: 1, PartTarget: 1, Renditions: []index.Rendition{{Name: "v"}, {Name: "a"}}})
	b.call().announceInit("a", &media.Init{Hash: "i", Data: []byte("x")}, index.Entry{Epoch: 7})
	for n := range uint64(4) {
		b.whole("a", n)
		b.whole("v", n)
	}
	b.part("v", 4, 0)
	b.call().pause(0, "away")
	b.call().pause(0, "still away")
	// Parts of the newest 3 s, rounded up to whole segments.
	want := "broadcast init v0 a0 v1 a1 v2.0 v2.1 v2 a2.0 a2.1 a2 v3.0 v3.1 v3 a3.0 a3.1 a3 v4.0 pause"
	if got := say(b.s.snapshot()); got != want {
		t.Errorf("a new reader is told\n     %s\nwant %s", got, want)
	}
	b.finish("v", 4)
	b.call().end(5, "done")
	got := say(b.s.snapshot())
	if strings.Contains(got, "pause") || !strings.HasSuffix(got, "v4 end") {
		t.Errorf("after the end a new reader is told %s", got)
	}
}

func TestCatalogueBoundsRecordsAndMedia(t *testing.T) {
	b := newBench(t, grantOf(1, 0, 0))
	const n = 500
	for i := range uint64(n) {
		b.whole("v", i)
		b.upload("v", i)
	}
	v := b.s.tracks["v"]
	// 600 s of DVR and 3 target durations of 4 s, in segments of 2 s.
	if got := len(v.records); got != 306 {
		t.Errorf("%d records, want 306", got)
	}
	// 30 s.
	if got := len(v.segments); got != 15 {
		t.Errorf("%d segments in memory, want 15", got)
	}
	if v.records[0].Sequence != n-306 || v.segments[0].sequence != n-15 {
		t.Errorf("the oldest record is %d, the oldest segment %d", v.records[0].Sequence, v.segments[0].sequence)
	}
	sum := 0
	for _, g := range v.segments {
		sum += g.size
	}
	if sum != b.s.bytes {
		t.Errorf("%d bytes are counted, %d are held", b.s.bytes, sum)
	}
	if b.out.evicted != 0 {
		t.Error("something unsafe was evicted")
	}

	// S3 is away: what isn't safe stays, up to the bound in bytes.
	b.s.maxBytes = 1000
	for i := range uint64(200) {
		b.whole("v", n+i)
	}
	if b.s.bytes > 1000 || b.s.bytes < 900 || b.out.evicted == 0 {
		t.Errorf("%d bytes of 1000 are held, %d segments were evicted unsafe", b.s.bytes, b.out.evicted)
	}
}

func TestCatalogueRepeatsSettingsInRedis(t *testing.T) {
	b := newBench(t, grantOf(1, 0, 0))
	b.call().announceBroadcast(index.Broadcast{TargetDuration: 4, PartTarget: 1, Renditions: []index.Rendition{{Name: "v"}}})
	b.call().announceInit("v", &media.Init{Hash: "i", Data: []byte("x")}, index.Entry{Epoch: 7})
	length := b.s.indexLength()
	var types []index.Type
	for i := range uint64(3 * length) {
		b.whole("v", i)
		b.upload("v", i)
		for _, e := range b.out.records {
			types = append(types, e.Type)
		}
		b.out = outcome{}
		// What a trimmed stream holds must name the settings and the init section.
		tail := types[max(0, len(types)-length):]
		if i > 3 && (!slices.Contains(tail, index.TypeBroadcast) || int(i) > length && !slices.Contains(tail, index.TypeInit)) {
			t.Fatalf("after %d segments the index lacks the settings", i)
		}
	}
}

func TestCatalogueRefusesNonsense(t *testing.T) {
	b := newBench(t, grantOf(1, 0, 0))
	for name, e := range map[string]index.Entry{
		"no rendition": {Profile: "p"}, "no profile": {Rendition: "v"},
		"negative part": {Rendition: "v", Profile: "p", Part: -1}, "too many parts": {Rendition: "v", Profile: "p", Part: index.MaxParts},
	} {
		if b.call().part(e, []byte("x")) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if b.call().part(partEntry("v", 0, 0), nil) == nil {
		t.Error("an empty part: accepted")
	}
	if b.call().finish(partEntry("v", 1, 0), []byte("x"), segmentEntry("v", 0)) == nil {
		t.Error("a last part of another segment: accepted")
	}
	if !reflect.DeepEqual(b.out, outcome{}) {
		t.Errorf("something was announced: %+v", b.out)
	}
}
