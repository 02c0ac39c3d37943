package transcode

import (
	"context"
	"errors"
	"time"

	"millrace/internal/index"
)

// backfillPatience is how long the live segments may keep the earlier ones waiting.
const backfillPatience = 2 * time.Second

// backfillPause is the pause after an attempt that made nothing.
const backfillPause = time.Second

// backfilling is where the second pass publishes: what it says of the broadcast
// as a whole is the live pass's to say.
type backfilling struct{ announcer }

func (backfilling) broadcast(index.Broadcast) {}
func (backfilling) pause(uint64, string)      {}
func (backfilling) end(uint64, string)        {}
func (backfilling) thumbnail([]byte)          {}

// backfill makes what earlier workers finished and may not have stored, in a
// second pass over the log. Nobody waits for it: it comes after the live
// segments, and lets their encoders go first.
func (h *holding) backfill(ctx context.Context, caughtUp, restored <-chan struct{}) {
	patience := time.NewTimer(backfillPatience)
	defer patience.Stop()
	select {
	case <-caughtUp:
	case <-patience.C:
	case <-ctx.Done():
		return
	}
	from := h.grant.Backfill
	for attempt := 1; ; attempt++ {
		w := h.newWorker(workerConfig{From: from, Until: h.grant.Live, Backfill: true, Publish: backfilling{h.pub}})
		err := w.run(ctx, func(ctx context.Context, out chan<- logEvent) error {
			return h.service.readLog(ctx, h.job, from, out)
		})
		var gone *goneError
		lost := from // up to there
		switch made := w.finished.Load(); {
		case err == nil:
			h.log.Info("earlier segments were made again", "from", h.grant.Backfill, "until", h.grant.Live)
			return
		case ctx.Err() != nil:
			return
		case made > from:
			// Ingest cuts a reader off that takes nothing, as this one does while
			// encoding takes long.
			from, lost, attempt = made, made, 0
		case errors.As(err, &gone) && gone.oldest > from:
			lost = min(gone.oldest, h.grant.Live)
		case attempt >= maxAttempts:
			h.log.Warn("earlier segments could not be made again", "from", from, "until", h.grant.Live, "err", err)
			lost = h.grant.Live
		default:
			pause(ctx, backfillPause)
		}
		if lost > from {
			<-restored // what is stored already is no gap
			h.declareGaps(from, lost)
			from = lost
		}
		if from >= h.grant.Live {
			return
		}
	}
}

// declareGaps says that segments that can't be made again are missing, but for
// those that are known to be stored.
func (h *holding) declareGaps(from, until uint64) {
	h.log.Error("segments are lost: no worker stored them, and they can't be made again", "from", from, "until", until)
	for sequence := from; sequence < until; sequence++ {
		h.pub.missing(sequence, "the worker that made it is gone")
	}
}

// missing declares a segment missing in every rendition in which it isn't known
// to be complete.
func (p *publication) missing(sequence uint64, reason string) {
	p.announce(sequence, func(s *shelf, out *outcome) {
		for _, name := range s.names {
			_ = s.gap(s.missing(s.tracks[name], sequence, name, reason), out) // a gap is never refused
		}
	})
}
