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
	if w.settings == nil || w.last == nil {
		return relay.Handoff{}, false
	}
	if w.settings.TargetDuration == 0 {
		s := *w.settings
		s.TargetDuration = shortTarget
		w.settings = &s
	}
	if w.last.Kind == relay.Open {
		m := w.tail.Close(relay.Pause)
		w.tail.Add(relay.Entry{Mark: &m})
		w.markRead(ctx, m)
	}
	w.announce()
	w.over, w.closed = true, true
	w.endAudio()
	w.retire()
	return relay.Handoff{Settings: *w.settings, Mark: *w.last}, true
}

// shortTarget is the target duration, in seconds, of a broadcast that ended
// before it was settled, as ingest has it.
const shortTarget = 4

// drop gives up what isn't whole: the open segment, and sound of the one before
// it that comes after its end. Another worker makes both. What is whole is still
// published.
func (w *Worker) drop(ctx context.Context) {
	w.takeRest(ctx)
	w.over, w.closed = true, true
	w.dropOpen(ctx)
	w.dropSound()
	w.retire()
}

// dropOpen gives up the open segment.
func (w *Worker) dropOpen(ctx context.Context) {
	s := w.current
	if s == nil {
		return
	}
	w.current = nil
	w.segments = w.segments[:len(w.segments)-1]
	for enc, run := range w.encoding.using {
		if run != nil && run.segment == s {
			w.encoding.using[enc] = nil
			enc.discard()
		}
	}
	if n := len(w.encoding.waiting); n > 0 && w.encoding.waiting[n-1] == s {
		w.encoding.waiting = w.encoding.waiting[:n-1]
	}
	w.beginWaiting(ctx)
}

// dropSound gives up sound that isn't all here: published as it is, it would be
// other bytes under the name that whoever has all of it uses.
func (w *Worker) dropSound() {
	for _, s := range w.segments {
		switch {
		case s.audio == nil || s.audio.done || !s.tl.closed:
		case s.odd != nil: // named by this worker alone
			w.endAudioOf(s)
		default:
			s.audio.done, s.partial = true, true
		}
	}
}

// stopAt makes until the first segment that isn't made.
func (w *Worker) stopAt(ctx context.Context, until uint64) {
	w.Until = until
	switch {
	case w.current != nil && w.current.tl.mark.Sequence >= until:
		w.over = true // sound of the segment before still comes
		w.dropOpen(ctx)
		w.retire()
	case w.last != nil && w.last.Kind != relay.Open && w.last.Sequence >= until:
		w.over = true // the publisher is away: the mark may never come
		w.retire()
	}
}

// moved ends the work where the log ended in good order: at a pause mark.
func (w *Worker) moved() bool {
	if w.last == nil || w.last.Kind != relay.Pause {
		return false
	}
	w.over, w.closed = true, true
	w.endAudio()
	w.retire()
	return true
}
