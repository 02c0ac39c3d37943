package rtmp

import (
	"time"

	"millrace/internal/media"
)

// clock unwraps the timestamps of one publication: both kinds of track lie on one time line, which
// never wraps.
type clock struct {
	tracks [media.Audio + 1]trackClock // by kind
}

type trackClock struct {
	started bool
	raw     uint32 // the last timestamp
	ms      int64  // the same, unwrapped
}

// at returns the time of a message by its timestamp and its offset.
func (c *clock) at(kind media.Kind, raw uint32, offset time.Duration) media.Ticks {
	t := &c.tracks[kind]
	if t.started {
		// Timestamps wrap at 2^32 ms; the shorter way round is the right one.
		t.ms += int64(int32(raw - t.raw))
	} else {
		t.started, t.ms = true, c.first(kind, raw)
	}
	t.raw = raw
	return media.Ticks(t.ms)*media.TicksPerMillisecond + media.TicksOf(offset)
}

// first places a track's first timestamp near the other track's.
func (c *clock) first(kind media.Kind, raw uint32) int64 {
	for k := range c.tracks {
		if other := &c.tracks[k]; media.Kind(k) != kind && other.started {
			return other.ms + int64(int32(raw-other.raw))
		}
	}
	return int64(raw)
}
