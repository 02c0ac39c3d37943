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
		low, high := jobs.Epoch{Lease: 1, Grant: 2}, jobs.Epoch{Lease: 2, Grant: 1}
		first := uint64(rapid.IntRange(1, count-1).Draw(t, "first of the other ingest"))
		stale := wholeBroadcast(t, low, "p1", durations, disc)
		other := wholeBroadcast(t, high, rapid.SampledFrom([]string{"p1", "p2"}).Draw(t, "profile"), durations, disc)
		var before, late, after [][]index.Entry
		for _, line := range stale {
			if line[0].Sequence < first {
				before = append(before, line)
			} else {
				late = append(late, line)
			}
		}
		before = before[:rapid.IntRange(2, len(before)).Draw(t, "told before the death")]
		for _, line := range other {
			for i := range line {
				line[i].Epoch, line[i].Discontinuity, line[i].Init = 9, 1, "j"
			}
			if line[0].Type == index.TypeBroadcast || line[0].Sequence >= first {
				after = append(after, line)
			}
		}

		f := fold.New(time.Minute)
		f.Begin()
		now := foldtest.Settings().Started
		shown := &observer{fold: f, shown: map[uint64]string{}}
		say := func(line []index.Entry) {
			f.Apply(line)
			shown.check(t)
		}
		for _, line := range before {
			say(line)
		}
		for i, line := range after {
			say(line)
			if i < 1 {
				continue
			}
			for range rapid.IntRange(0, 2).Draw(t, "stale lines") {
				say(rapid.SampledFrom(stale).Draw(t, "stale line"))
			}
			if rapid.Bool().Draw(t, "time passes") {
				now = now.Add(fold.OrphanPatience)
				f.GiveUp(now)
				shown.check(t)
			}
		}
		for _, line := range late {
			say(line)
		}
		for range 3 {
			now = now.Add(fold.OrphanPatience)
			f.GiveUp(now)
			shown.check(t)
		}
		r := shown.now.Find("source")
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
	})
}
