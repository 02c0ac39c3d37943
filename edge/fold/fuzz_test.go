package fold_test

import (
	"bytes"
	"testing"
	"time"

	"millrace/edge/fold"
	"millrace/edge/fold/foldtest"
	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/jobs"
)

// FuzzFold applies any lines of a follow stream, with a begin and a give-up among them, and
// renders all that there is after each.
func FuzzFold(f *testing.F) {
	seedFold(f)
	f.Fuzz(func(t *testing.T, input []byte, begin uint8) {
		b := fold.New(30 * time.Second)
		var shown *fold.Snapshot
		now := foldtest.Settings().Started
		last := map[string]uint64{}
		for n := 0; len(input) > 0 && n < 200; n++ {
			var line []byte
			line, input, _ = bytes.Cut(input, []byte("\n"))
			if n == int(begin) {
				b.Begin()
			}
			if len(line) == 0 { // time passes
				now = now.Add(4 * time.Second)
				b.GiveUp(now)
				foldtest.Answer(b)
				continue
			}
			entries, err := index.ParseLine(line)
			if err != nil {
				continue
			}
			b.Apply(entries)
			foldtest.Answer(b)
			shown = b.Snapshot(shown)
			if len(shown.Renditions) > fold.MaxRenditions {
				t.Fatalf("%d renditions", len(shown.Renditions))
			}
			for _, r := range shown.Renditions {
				if drafts := b.Drafts(r.Info.Name); drafts > fold.MaxDrafts {
					t.Fatalf("%d drafts", drafts)
				}
				checkShown(t, r, last)
			}
		}
	})
}

// checkShown: no rendition goes back behind its last position, and its playlists
// are right.
func checkShown(t *testing.T, r *fold.Rendition, last map[string]uint64) {
	name := r.Info.Name
	if sequence, _, ok := r.Last(); ok {
		if sequence < last[name] {
			t.Fatalf("%s went back from %d to %d", name, last[name], sequence)
		}
		last[name] = sequence
	}
	if r.TargetDuration == 0 {
		return
	}
	for skip := playlist.SkipNone; skip < playlist.Flavours; skip++ {
		if text := string(r.Append(nil, skip, nil)); r.Open != nil || len(r.Segments) > 0 {
			foldtest.CheckPlaylist(t, text)
		}
	}
}

// seedFold adds follow streams of a few entries.
func seedFold(f *testing.F) {
	f.Helper()
	lines := func(entries ...[]index.Entry) (b []byte) {
		for _, e := range entries {
			var err error
			if b, err = index.AppendLine(b, e); err != nil {
				f.Fatal(err)
			}
		}
		return b
	}
	writer := jobs.Epoch{Lease: 1, Grant: 1}
	part := func(sequence uint64, n int) index.Entry {
		return index.Entry{
			Type: index.TypePart, Writer: writer, Rendition: "source", Init: "i", Epoch: 7, Sequence: sequence, Part: n,
			Profile: "p", Duration: 30000, Size: 100, Independent: n == 0, Time: foldtest.Settings().Started,
		}
	}
	whole := func(sequence uint64) index.Entry {
		e := part(sequence, 0)
		e.Type, e.Parts, e.Duration, e.Size = index.TypeSegment, 2, 60000, 200
		return e
	}
	about := []index.Entry{{Type: index.TypeBroadcast, Writer: writer, Broadcast: foldtest.Settings()}}
	gap := whole(2)
	gap.Type, gap.Parts, gap.Size = index.TypeGap, 0, 0
	f.Add(lines(about, []index.Entry{part(0, 0)}, nil, []index.Entry{part(0, 1), whole(0)}, []index.Entry{part(1, 0)}), uint8(1))
	f.Add(lines(about, []index.Entry{whole(0), whole(1), gap, whole(3)}, []index.Entry{{Type: index.TypePause, Writer: writer, Sequence: 4}},
		[]index.Entry{part(4, 0)}, []index.Entry{{Type: index.TypeEnd, Writer: writer, Sequence: 5}}), uint8(0))
	f.Add(lines([]index.Entry{whole(7)}, about, []index.Entry{whole(300)}), uint8(2))
	f.Add(lines(about, []index.Entry{whole(1 << 62), whole(1<<62 + 1)}, []index.Entry{{Type: index.TypeEnd, Writer: writer, Sequence: 1<<63 + 9}}), uint8(1))
}
