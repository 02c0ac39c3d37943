package encode

import (
	"context"

	"millrace/internal/relay"
)

// What others may ask of a worker while it runs. Each of these methods is
// carried out by the goroutine of run and returns when that is done; it does
// nothing when the worker has ended, or ctx ends first.

// StopAt has the worker make until the first segment that another worker makes.
func (w *Worker) StopAt(ctx context.Context, until uint64) {
	w.do(ctx, func(ctx context.Context) { w.stopAt(ctx, until) })
}

// Drop has the worker give up the open segment, and publish what is whole.
func (w *Worker) Drop(ctx context.Context) { w.do(ctx, w.drop) }

// Moved ends the work where the log ended in good order, at a pause mark.
// It reports whether it did.
func (w *Worker) Moved(ctx context.Context) (moved bool) {
	w.do(ctx, func(context.Context) { moved = w.moved() })
	return moved
}

// Pause announces that nothing comes for now; any new part ends that. It reports
// whether the worker did.
func (w *Worker) Pause(ctx context.Context) bool {
	return w.do(ctx, func(context.Context) {
		w.emit(func() { w.Publish.Pause(0, reasonLost) })
	})
}

// CloseShort ends the open segment after its last frame, and with end the whole
// broadcast. It returns what an ingest needs to go on; ok is false when the worker
// has read nothing, or is done.
func (w *Worker) CloseShort(ctx context.Context, end bool) (c relay.Handoff, ok bool) {
	w.do(ctx, func(ctx context.Context) {
		if c, ok = w.closeShort(ctx); ok && end {
			w.emit(func() { w.Publish.End(c.Mark.Sequence, "the broadcast ended") })
		}
	})
	return c, ok
}

// do has the worker's goroutine call fn; false when it has ended.
func (w *Worker) do(ctx context.Context, fn func(context.Context)) bool {
	done := make(chan struct{})
	call := func(ctx context.Context) {
		defer close(done)
		fn(ctx)
	}
	select {
	case w.calls <- call:
		<-done
		return true
	case <-w.gone:
	case <-ctx.Done():
	}
	return false
}

// Consumed is how many access units were read. This and what follows is safe
// to call at any time.
func (w *Worker) Consumed() uint64 { return w.consumed.Load() }

// Finished is the first segment that isn't complete in every rendition.
func (w *Worker) Finished() uint64 { return w.finished.Load() }

// Shed is how many rungs aren't made now.
func (w *Worker) Shed() int { return int(w.shed.Load()) }

// Unmade is how many segments were cut and aren't published whole.
func (w *Worker) Unmade() int { return int(w.unmade.Load()) }

// Ended reports whether the log ended with the broadcast. It may be called once
// run has returned.
func (w *Worker) Ended() bool { return w.last != nil && w.last.Kind == relay.End }
