package fold

import "millrace/internal/media"

// measuredSegments is how many segments make a bitrate measured.
const measuredSegments = 3

// bitrate measures segments.
type bitrate struct {
	segments int
	bits     float64
	seconds  float64
	peak     float64
}

func (b *bitrate) add(size int, d, target media.Ticks) {
	if size <= 0 || d <= 0 {
		return
	}
	bits, seconds := float64(size)*8, d.Seconds()
	b.bits += bits
	b.seconds += seconds
	// The peak is that of segments of at least half a target duration
	// (RFC 8216bis, 4.1); it only rises, so that it doesn't swing.
	if 2*d >= target {
		b.segments++
		b.peak = max(b.peak, bits/seconds)
	}
}

// measured returns the peak and the average in bits a second; until enough is
// known, the cap and no average.
func (b *bitrate) measured(maxBitrate int) (peak, average int) {
	if b.segments < measuredSegments {
		return maxBitrate + maxBitrate/5, 0
	}
	peak = int(b.peak) + 1
	// Short segments count for the average only, and may be the biggest for their length.
	return peak, min(peak, int(b.bits/b.seconds))
}
