package transcode

import (
	"context"
	"errors"
	"time"

	"millrace/internal/relay"
	"millrace/transcode/encode"
	"millrace/transcode/logread"
)

// backfillPatience is how long the live segments may keep the earlier ones waiting.
const backfillPatience = 2 * time.Second

// backfillAttempts is how often earlier segments are tried without progress
// before they are gaps.
const backfillAttempts = 3

// backfillPause is the pause after an attempt that made nothing.
const backfillPause = time.Second

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
		w := h.newWorker(encode.Config{From: from, Until: h.grant.Live, Backfill: true, Publish: backfillOutput{liveOutput{h.pub}}})
		err := w.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
			return h.service.readLog(ctx, h.job, from, out)
		})
		var gone *logread.GoneError
		lost := from // up to there
		switch made := w.Finished(); {
		case err == nil:
			h.log.Info("earlier segments were made again", "from", h.grant.Backfill, "until", h.grant.Live)
			return
		case ctx.Err() != nil:
			return
		case made > from:
			// Ingest cuts a reader off that takes nothing, as this one does while
			// encoding takes long.
			from, lost, attempt = made, made, 0
		case errors.As(err, &gone) && gone.Oldest > from:
			lost = min(gone.Oldest, h.grant.Live)
		case attempt >= backfillAttempts:
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
		h.pub.Missing(sequence, "the worker that made it is gone")
	}
}
