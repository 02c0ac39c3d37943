package encode

import (
	"fmt"
	"slices"

	"millrace/internal/media"
)

// picker chooses a rung's pictures among the source's, by their times: each that
// is at least a gap after the one chosen before. So what comes slowly is taken
// whole, and of what comes twice as fast as the rung each second one. What it
// says follows from the times alone. Its zero value takes all.
type picker struct {
	gap   media.Ticks
	last  media.Ticks
	begun bool
}

func (p *picker) take(at media.Ticks) bool {
	if p.begun && at-p.last < p.gap {
		return false
	}
	p.begun, p.last = true, at
	return true
}

// of returns how many of some pictures are taken by a picker of the same gap.
func (p *picker) of(shown []media.Ticks) (n int) {
	fresh := picker{gap: p.gap}
	for _, at := range slices.Sorted(slices.Values(shown)) {
		if fresh.take(at) {
			n++
		}
	}
	return n
}

// pickJitter is how much earlier than at its time a picture may come: no whole
// number of milliseconds, so that a distance is never just as long as a gap.
const pickJitter = 5 * media.TicksPerMillisecond / 4

// rungGap is how far apart the pictures of a rung are at least, of which step of
// the source's make one at its usual frame rate: half a source picture less. A
// source of less than 40 fps may come at 60 later, and that of 60 at 30.
func rungGap(frameRate float64, step int) media.Ticks {
	slowest := 30.0
	switch {
	case step > 2 || frameRate > 80:
		slowest = frameRate
	case frameRate > 40:
		slowest = 60
	}
	part := 1 - 0.5/float64(max(2, step))
	return media.Ticks(part/slowest*media.VideoTimescale) - pickJitter
}

// gap is how far apart the rung's pictures are at least.
func (r Rung) gap() media.Ticks { return rungGap(r.FrameRate, r.Step) }

// expression is what FFmpeg's select filter chooses the same pictures by.
func (r Rung) expression() string {
	return fmt.Sprintf(`isnan(prev_selected_t)+gte(t-prev_selected_t\,%.6f)`, r.gap().Seconds())
}

// came returns the source and a job's rungs at the frame rate that a closed segment
// has, which may be another than was settled: what encoding costs on this machine is
// learned from it.
func (e *encoding) came(s *segment, j Job) (Source, []Rung) {
	src, rungs := e.source, slices.Clone(j.Rungs)
	if j.Hold.Every > 0 {
		return src, rungs
	}
	seconds := (s.tl.end - s.tl.mark.Start).Seconds()
	src.FrameRate = float64(len(s.tl.times)) / seconds
	for i := range rungs {
		p := picker{gap: rungs[i].gap()}
		rungs[i].FrameRate = float64(p.of(s.tl.times)) / seconds
	}
	return src, rungs
}
