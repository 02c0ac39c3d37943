package encode

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/internal/testenv"
	"millrace/transcode/transcodetest"
)

// A worker that is told where another one takes over while the publisher is away
// is done: the mark may never come.
func TestHandoverOrderedDuringAPause(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 5)).Until(1, relay.Pause)
	w := testWorker(t, "none", transcodetest.NewRecord(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var ordering sync.WaitGroup
	defer ordering.Wait()
	ordering.Go(func() {
		testenv.Await(ctx, func() bool { return w.finished.Load() >= 2 })
		w.StopAt(ctx, 2)
	})
	err := w.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
		for _, e := range l.From(0) {
			out <- e
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if err != nil {
		t.Error(err)
	}
}

// Sound of a segment still comes after its end. A worker that gives the broadcast up
// by then publishes none of it short; one that hands it over makes it whole.
func TestSoundIsNeverPublishedShort(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 7))
	whole := transcodetest.NewRecord()
	runWorker(t, l, 0, "none", whole)
	events := l.From(0)
	at := slices.IndexFunc(events, func(e relay.Entry) bool { return e.Mark != nil && e.Mark.Sequence == 1 })
	// Encoders send sound later than pictures: three frames come after the mark.
	var late []relay.Entry
	for i := at - 1; len(late) < 3; i-- {
		if u := events[i].Unit; u != nil && u.Track == media.Audio {
			late = append([]relay.Entry{events[i]}, late...)
			events = slices.Delete(slices.Clone(events), i, i+1)
			at--
		}
	}
	events = slices.Insert(events, at+1, late...)
	for name, c := range map[string]struct {
		then    func(*Worker, context.Context)
		rest    []relay.Entry
		broken  bool
		partial bool
	}{
		"dropped":                 {then: func(w *Worker, ctx context.Context) { w.Drop(ctx) }, partial: true},
		"handed over":             {then: func(w *Worker, ctx context.Context) { w.StopAt(ctx, 1) }, rest: events[at+1:]},
		"handed over, log breaks": {then: func(w *Worker, ctx context.Context) { w.StopAt(ctx, 1) }, broken: true, partial: true},
	} {
		t.Run(name, func(t *testing.T) {
			rec := transcodetest.NewRecord()
			w := testWorker(t, "none", rec, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := w.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
				for _, e := range events[:at+1] {
					out <- e
				}
				testenv.Await(ctx, func() bool { return len(w.queue) == 0 })
				c.then(w, ctx)
				for _, e := range c.rest {
					out <- e
				}
				if c.broken {
					return io.ErrUnexpectedEOF
				}
				<-ctx.Done()
				return ctx.Err()
			})
			if err != nil {
				t.Error(err)
			}
			for k, parts := range rec.Parts {
				for i, data := range parts {
					if all := whole.Parts[k]; i >= len(all) || !bytes.Equal(data, all[i]) {
						t.Errorf("%s, part %d isn't what a worker makes that has all of the log", k, i)
					}
				}
			}
			if _, made := rec.Entries["audio/0"]; made == c.partial {
				t.Errorf("the sound of segment 0 was published as whole: %t", made)
			}
			if _, made := rec.Entries["source/0"]; !made {
				t.Error("the picture of segment 0 was not published")
			}
			if n := w.finished.Load(); n != map[bool]uint64{true: 0, false: 1}[c.partial] {
				t.Errorf("finished says %d", n)
			}
		})
	}
}
