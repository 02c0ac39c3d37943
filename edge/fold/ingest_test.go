package fold_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/edge/fold"
	"millrace/edge/fold/foldtest"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

// TestFoldOtherIngest: an ingest and its worker die in mid-segment, another
// ingest goes on, and the worker wakes up and says things that it has no right
// to any more, in any order and with repeats.
func TestFoldOtherIngest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(2, 12).Draw(t, "segments")
		durations, disc := make([][]media.Ticks, count), make([]uint64, count)
		for n := range durations {
			for range rapid.IntRange(1, 6).Draw(t, "parts") {
				durations[n] = append(durations[n], foldtest.PartTicks)
			}
		}
		first := uint64(rapid.IntRange(1, count-1).Draw(t, "first of the other ingest"))
		told := drawOtherIngest(t, durations, disc, first)

		f := fold.New(time.Minute)
		f.Begin()
		now := foldtest.Settings().Started
		shown := &observer{fold: f, shown: map[uint64]string{}}
		say := func(line []index.Entry) {
			f.Apply(line)
			shown.check(t)
		}
		for _, line := range told.before {
			say(line)
		}
		for i, line := range told.after {
			say(line)
			if i < 1 {
				continue
			}
			for range rapid.IntRange(0, 2).Draw(t, "stale lines") {
				say(rapid.SampledFrom(told.stale).Draw(t, "stale line"))
			}
			if rapid.Bool().Draw(t, "time passes") {
				now = now.Add(fold.OrphanPatience)
				f.GiveUp(now)
				shown.check(t)
			}
		}
		for _, line := range told.late {
			say(line)
		}
		for range 3 {
			now = now.Add(fold.OrphanPatience)
			f.GiveUp(now)
			shown.check(t)
		}
		shown.checkOtherIngest(t, count, first)
	})
}

// otherIngest is what is told when another ingest goes on.
type otherIngest struct {
	// before the death of the first one, all that it would have said, and what it
	// says of segments that aren't its own any more; after: what the other says.
	before, stale, late, after [][]index.Entry
}

// drawOtherIngest returns what is told of a broadcast that another ingest goes on
// with from segment first on.
func drawOtherIngest(t *rapid.T, durations [][]media.Ticks, disc []uint64, first uint64) (told otherIngest) {
	told.stale = wholeBroadcast(t, jobs.Epoch{Lease: 1, Grant: 2}, "p1", durations, disc)
	profile := rapid.SampledFrom([]string{"p1", "p2"}).Draw(t, "profile")
	other := wholeBroadcast(t, jobs.Epoch{Lease: 2, Grant: 1}, profile, durations, disc)
	for _, line := range told.stale {
		if line[0].Sequence < first {
			told.before = append(told.before, line)
		} else {
			told.late = append(told.late, line)
		}
	}
	told.before = told.before[:rapid.IntRange(2, len(told.before)).Draw(t, "told before the death")]
	for _, line := range other {
		for i := range line {
			line[i].Epoch, line[i].Discontinuity, line[i].Init = 9, 1, "j"
		}
		if line[0].Type == index.TypeBroadcast || line[0].Sequence >= first {
			told.after = append(told.after, line)
		}
	}
	return told
}

// checkOtherIngest: all segments are there, each of the ingest that it belongs to.
func (o *observer) checkOtherIngest(t *rapid.T, count int, first uint64) {
	r := o.now.Find("source")
	if last := r.Segments[len(r.Segments)-1]; last.Sequence != uint64(count-1) {
		t.Fatalf("it stands at %d of %d", last.Sequence, count)
	}
	for _, s := range r.Segments {
		for _, p := range s.Parts {
			if s.Sequence >= first && p.Epoch != 9 || s.Sequence < first && p.Epoch == 9 {
				t.Fatalf("segment %d has a part of ingest %d", s.Sequence, p.Epoch)
			}
		}
		if s.Sequence >= first && (s.Epoch != 9 || s.Discontinuity != 1 || s.Init != "j" || s.Gap) {
			t.Fatalf("segment %d: %+v", s.Sequence, s)
		}
	}
}
