package api

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/lease"
)

// endEvery is how often AwaitEnd looks.
const endEvery = 100 * time.Millisecond

// AwaitEnd waits until the broadcast of a channel that may have none any more is over,
// and reports whether there was one. An ingest ends it as soon as it has heard what
// PublishKeys told; where that ingest is gone, it is ended in its place.
func AwaitEnd(ctx context.Context, db redis.UniversalClient, channel string) (was bool, err error) {
	r, err := lease.Read(ctx, db, channel)
	switch {
	case errors.Is(err, lease.ErrNone):
		return false, nil
	case err != nil:
		return false, err
	case r.State == lease.Ended:
		return false, nil
	}
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	for {
		if over, err := lease.End(ctx, db, channel, r.Broadcast, leaseDead); err != nil || over {
			return true, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return true, errors.New("the broadcast goes on: the ingest that has it doesn't hear of its end; see whether it reaches Redis")
		}
	}
}
