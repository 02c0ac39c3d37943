package fold_test

import (
	"testing"

	"millrace/edge/fold/foldtest"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

// Where a worker has no room for the whole window, playlists reach back less, and as far as
// before once it has; never less than four target durations.
func TestShorterWindow(t *testing.T) {
	s := play(t, "window 60\nbegin\nbroadcast\nwhole source 0 59\nwhole audio 0 59")
	listed := func() int { return len(s.snapshot().Find("source").Segments) }
	tell := func(window media.Ticks, whole string) {
		b := foldtest.Settings()
		b.Window = window
		s.Fold.Apply([]index.Entry{{Type: index.TypeBroadcast, Writer: jobs.Epoch{Lease: 1, Grant: 1}, Broadcast: b}})
		s.Line("whole source " + whole)
		s.Line("whole audio " + whole)
	}
	if n := listed(); n != 30 {
		t.Errorf("%d segments are listed, want a minute of them", n)
	}
	tell(40*media.VideoTimescale, "60 60")
	if n := listed(); n != 20 {
		t.Errorf("%d segments are listed, want 40 s of them", n)
	}
	tell(1, "61 61")
	if n := listed(); n != 8 {
		t.Errorf("%d segments are listed, want four target durations of them", n)
	}
	tell(90*media.VideoTimescale, "62 69")
	if n := listed(); n != 16 {
		t.Errorf("%d segments are listed, want the 8 that were there and 8 more", n)
	}
	tell(0, "70 99")
	if n := listed(); n != 30 {
		t.Errorf("%d segments are listed, want a minute of them", n)
	}
}
