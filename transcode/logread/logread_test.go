package logread

import (
	"testing"

	"millrace/internal/media"
)

// A broadcast that never stops passes FLV's 32 bits of milliseconds after 49.7 days.
func TestUnwrap(t *testing.T) {
	const day = 24 * 3600 * media.VideoTimescale
	for _, near := range []media.Ticks{0, 20 * day, 30 * day, 49 * day, 50 * day, 75 * day, 1000 * day} {
		for _, away := range []media.Ticks{-3, 0, 1, 33, 5000} {
			want := max(0, near/media.TicksPerMillisecond+away) * media.TicksPerMillisecond
			if got := unwrap(uint32(want.Milliseconds()), near); got != want {
				t.Errorf("near %d: %d is taken for %d", near, want, got)
			}
		}
	}
}
