package encode

import (
	"context"

	"millrace/internal/relay"
)

// takeRest takes what was read of the log and waits.
func (w *Worker) takeRest(ctx context.Context) {
	for {
		select {
		case e, ok := <-w.queue:
			if !ok {
				return
			}
			if w.take(ctx, e) != nil {
				return // what there is until here is whole
			}
		default:
			return
		}
	}
}

// closeShort ends the log where it was read to, as a publisher's loss would:
// the open segment ends after its last frame. What is cut is still made. It
// returns what an ingest needs to go on; ok is false when nothing was read.
func (w *Worker) closeShort(ctx context.Context) (h relay.Handoff, ok bool) {
	w.takeRest(ctx)
	l := &w.log
	if l.settings == nil || l.last == nil {
		return relay.Handoff{}, false
	}
	if l.settings.TargetDuration == 0 {
		s := *l.settings
		s.TargetDuration = shortTarget
		l.settings = &s
	}
	if l.last.Kind == relay.Open {
		m := l.tail.Close(relay.Pause)
		l.tail.Add(relay.Entry{Mark: &m})
		w.markRead(ctx, m)
	}
	w.announce()
	l.over, l.closed = true, true
	w.sound.complete()
	return relay.Handoff{Settings: *l.settings, Mark: *l.last}, true
}

// shortTarget is the target duration, in seconds, of a broadcast that ended
// before it was settled, as ingest has it.
const shortTarget = 4

// drop gives up what isn't whole: the open segment, and sound of the one before
// it that comes after its end. Another worker makes both. What is whole is still
// published.
func (w *Worker) drop(ctx context.Context) {
	w.takeRest(ctx)
	w.log.over, w.log.closed = true, true
	w.dropOpen(ctx)
	w.sound.drop()
}

// dropOpen gives up the open segment.
func (w *Worker) dropOpen(ctx context.Context) {
	if s := w.segments.drop(); s != nil {
		w.encoding.abandon(ctx, s)
	}
}

// stopAt makes until the first segment that isn't made.
func (w *Worker) stopAt(ctx context.Context, until uint64) {
	w.Until = until
	switch s := w.segments.current; {
	case s != nil && s.tl.mark.Sequence >= until:
		w.log.over = true // sound of the segment before still comes
		w.dropOpen(ctx)
	case w.log.last != nil && w.log.last.Kind != relay.Open && w.log.last.Sequence >= until:
		w.log.over = true // the publisher is away: the mark may never come
	}
}

// moved ends the work where the log ended in good order: at a pause mark. It
// reports whether it did.
func (w *Worker) moved() bool {
	if w.log.last == nil || w.log.last.Kind != relay.Pause {
		return false
	}
	w.log.over, w.log.closed = true, true
	w.sound.complete()
	return true
}
