package encode

import (
	"context"

	"millrace/internal/relay"
)

// command is what others ask of a worker while it runs. The goroutine of Run
// carries it out, and replies.
type command struct {
	kind  commandKind
	until uint64     // of stopAt
	end   bool       // of closeShort: the broadcast ends, too
	reply chan reply // has room for it
}

type commandKind int

const (
	commandStopAt commandKind = iota
	commandDrop
	commandMoved
	commandPause
	commandCloseShort
)

// reply is the answer to a command.
type reply struct {
	yes     bool // of those that ask or may fail
	handoff relay.Handoff
}

// obey carries out a command.
func (w *Worker) obey(ctx context.Context, c command) (r reply) {
	switch c.kind {
	case commandStopAt:
		w.stopAt(ctx, c.until)
	case commandDrop:
		w.drop(ctx)
	case commandMoved:
		r.yes = w.moved()
	case commandPause:
		w.out.pause(0)
	case commandCloseShort:
		if r.handoff, r.yes = w.closeShort(ctx); r.yes && c.end {
			w.out.end(r.handoff.Mark.Sequence)
		}
	}
	return r
}

// do has the worker carry out c, and waits for its reply; false when the worker
// has ended, or ctx ends first.
func (w *Worker) do(ctx context.Context, c command) (reply, bool) {
	c.reply = make(chan reply, 1)
	select {
	case w.commands <- c:
		return <-c.reply, true
	case <-w.gone:
	case <-ctx.Done():
	}
	return reply{}, false
}

// StopAt has the worker make until the first segment that another worker makes.
// Like the methods below it does nothing when the worker has ended.
func (w *Worker) StopAt(ctx context.Context, until uint64) {
	w.do(ctx, command{kind: commandStopAt, until: until})
}

// Drop has the worker give up the open segment, and publish what is whole.
func (w *Worker) Drop(ctx context.Context) { w.do(ctx, command{kind: commandDrop}) }

// Moved ends the work where the log ended in good order, at a pause mark.
// It reports whether it did.
func (w *Worker) Moved(ctx context.Context) bool {
	r, _ := w.do(ctx, command{kind: commandMoved})
	return r.yes
}

// Pause announces that nothing comes for now; any new part ends that. It reports
// whether the worker did.
func (w *Worker) Pause(ctx context.Context) bool {
	_, ok := w.do(ctx, command{kind: commandPause})
	return ok
}

// CloseShort ends the open segment after its last frame, and with end the whole
// broadcast. It returns what an ingest needs to go on; ok is false when the worker
// has read nothing, or is done.
func (w *Worker) CloseShort(ctx context.Context, end bool) (h relay.Handoff, ok bool) {
	r, _ := w.do(ctx, command{kind: commandCloseShort, end: end})
	return r.handoff, r.yes
}

// Consumed is how many access units were read. This and what follows is safe
// to call at any time.
func (w *Worker) Consumed() uint64 { return w.consumed.Load() }

// Finished is the first segment that isn't complete in every rendition.
func (w *Worker) Finished() uint64 { return w.finished.Load() }

// Shed is how many rungs aren't made now.
func (w *Worker) Shed() int { return int(w.encoding.unmade.Load()) }

// Failing reports whether no rungs are made since their processes died again and again.
func (w *Worker) Failing() bool { return w.encoding.failing.Load() }

// Unmade is how many segments were cut and aren't published whole.
func (w *Worker) Unmade() int { return int(w.unmade.Load()) }

// Ended reports whether the log ended with the broadcast. It may be called once
// Run has returned.
func (w *Worker) Ended() bool { return w.log.last != nil && w.log.last.Kind == relay.End }
