// Package viewers is the contract by which edges tell how many people watch:
// a Redis hash per channel, edge -> count and time. Whoever asks adds up the
// edges that reported lately.
package viewers

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Interval is how often an edge reports.
const Interval = 5 * time.Second

// Stale is the age at which a report counts no more.
const Stale = 15 * time.Second

func key(channel string) string { return "millrace:channel:{" + channel + "}:viewers" }

// Report says how many viewers each channel has at this edge. A channel that
// had viewers at the last report and has none now is reported once with 0.
func Report(ctx context.Context, db redis.UniversalClient, edge string, counts map[string]int) error {
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	_, err := db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for channel, n := range counts {
			if n == 0 {
				p.HDel(ctx, key(channel), edge)
				continue
			}
			p.HSet(ctx, key(channel), edge, strconv.Itoa(n)+" "+now)
			p.PExpire(ctx, key(channel), Stale)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("report viewers: %w", err)
	}
	return nil
}

// Count returns how many viewers a channel has on all edges.
func Count(ctx context.Context, db redis.UniversalClient, channel string) (int, error) {
	reports, err := db.HVals(ctx, key(channel)).Result()
	if err != nil {
		return 0, fmt.Errorf("count viewers of %s: %w", channel, err)
	}
	total := 0
	for _, r := range reports {
		count, at, _ := strings.Cut(r, " ")
		n, err1 := strconv.Atoi(count)
		ms, err2 := strconv.ParseInt(at, 10, 64)
		if err1 == nil && err2 == nil && time.Since(time.UnixMilli(ms)) < Stale {
			total += n
		}
	}
	return total, nil
}
