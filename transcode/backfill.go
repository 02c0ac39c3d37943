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
func (a *assignment) backfill(ctx context.Context, caughtUp, restored <-chan struct{}) {
	patience := time.NewTimer(backfillPatience)
	defer patience.Stop()
	select {
	case <-caughtUp:
	case <-patience.C:
	case <-ctx.Done():
		return
	}
	from := a.grant.Backfill
	for attempt := 1; ; attempt++ {
		w := a.newWorker(encode.Config{From: from, Until: a.grant.Live, Backfill: true, Publish: backfillOutput{liveOutput{a.out}}})
		err := w.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
			return a.service.readLog(ctx, a.job, from, out)
		})
		var gone *logread.GoneError
		lost := from // up to there
		switch made := w.Finished(); {
		case err == nil:
			a.log.Info("earlier segments were made again", "from", a.grant.Backfill, "until", a.grant.Live)
			return
		case ctx.Err() != nil:
			return
		case made > from:
			// Ingest cuts a reader off that takes nothing, as this one does while
			// encoding takes long.
			from, lost, attempt = made, made, 0
		case errors.As(err, &gone) && gone.Oldest > from:
			lost = min(gone.Oldest, a.grant.Live)
		case attempt >= backfillAttempts:
			a.log.Warn("earlier segments could not be made again", "from", from, "until", a.grant.Live, "err", err)
			lost = a.grant.Live
		default:
			pause(ctx, backfillPause)
		}
		if lost > from {
			<-restored // what is stored already is no gap
			a.declareGaps(from, lost)
			from = lost
		}
		if from >= a.grant.Live {
			return
		}
	}
}

// declareGaps says that segments that can't be made again are missing, but for
// those that are known to be stored.
func (a *assignment) declareGaps(from, until uint64) {
	a.log.Error("segments are lost: no worker stored them, and they can't be made again", "from", from, "until", until)
	for sequence := from; sequence < until; sequence++ {
		a.out.Missing(sequence, "the worker that made it is gone")
	}
}
