package fold

import (
	"math"
	"slices"

	"millrace/edge/playlist"
	"millrace/internal/media"
)

// measuredRuns is how many runs of segments make a rate measured.
const measuredRuns = 3

// rates are what the listed segments of a rendition say of it.
type rates struct {
	peak, average float64 // bits a second; the peak is 0 until it is measured
	frames        float64 // a second; 0 until measured
}

// measure looks, at each segment, at the shortest run of segments up to it that
// lasts half a target duration: the peak segment bitrate is the largest of runs of
// 0.5 to 1.5 target durations (RFC 8216bis, 4.1). Short segments that make no such
// run count for the average only. The frame rate is the highest that several runs
// have: a burst of timestamps makes one that nothing is shown at.
func measure(segments []*playlist.Segment, target media.Ticks) (m rates) {
	var all, run sum
	var peaks, frames []float64
	first := 0 // of the run
	for i, s := range segments {
		if s.Gap || s.Size <= 0 || s.Duration <= 0 {
			first, run = i+1, sum{}
			continue
		}
		all.add(s, 1)
		run.add(s, 1)
		for 2*(run.duration-segments[first].Duration) >= target {
			run.add(segments[first], -1)
			first++
		}
		if 2*run.duration < target || 2*run.duration > 3*target {
			continue
		}
		peaks = append(peaks, float64(run.size)*8/run.duration.Seconds())
		if run.frames > 0 {
			frames = append(frames, float64(run.frames)/run.duration.Seconds())
		}
	}
	if len(peaks) >= measuredRuns {
		m.peak, m.average = slices.Max(peaks), float64(all.size)*8/all.duration.Seconds()
	}
	if len(frames) >= measuredRuns {
		slices.Sort(frames)
		m.frames = frames[len(frames)-measuredRuns]
	}
	return m
}

// sum is what some segments have together.
type sum struct {
	size, frames int
	duration     media.Ticks
}

func (t *sum) add(s *playlist.Segment, sign int) {
	t.size += sign * s.Size
	t.frames += sign * s.Frames
	t.duration += media.Ticks(sign) * s.Duration
}

// bitrate returns the peak and the average in bits a second; until they are
// measured, the cap and a fifth, and no average.
func (m rates) bitrate(maxBitrate int) (peak, average int) {
	if m.peak == 0 {
		return maxBitrate + maxBitrate/5, 0
	}
	peak = int(m.peak) + 1
	return peak, min(peak, int(m.average))
}

// frameRate returns what is measured, where that is another rate than the settled one.
func (m rates) frameRate(settled float64) float64 {
	if m.frames == 0 || settled == 0 || math.Abs(m.frames-settled) < 0.02*settled {
		return settled
	}
	return m.frames
}
