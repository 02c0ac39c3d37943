package encode

import (
	"context"
	"fmt"
	"strconv"

	"millrace/internal/media"
)

// Held pictures: where a mark says that the pictures have stopped, one process
// decodes the last one and encodes it for every rendition, again and again, ahead of
// time; repetitions in the log say how much of that is shown. The source has a
// stand-in then, and until its next random access point.

// filter is the part of a graph that holds the last picture; empty for no Hold.
func (h Hold) filter() string {
	if h.Every == 0 {
		return ""
	}
	return fmt.Sprintf(`tpad=stop=%d:stop_mode=clone,select='gte(t,%.4f)',setpts=N*%d/%d/TB,`,
		h.Count, h.After.Seconds()-0.003, h.Every, media.VideoTimescale)
}

// sourceRung is the rendition that is encoded in the source's place.
func (e *encoding) sourceRung() Rung {
	r := fullRung(e.source)
	r.Name = sourceName
	return r
}

// runOf is a process that makes renditions of a segment.
func (e *encoding) runOf(s *segment, works []*rungWork) *encodingRun {
	run := &encodingRun{segment: s, works: works, job: Job{Preset: e.Preset, Look: e.source.Look, Picture: e.source.Picture}}
	for _, r := range works {
		run.job.Rungs = append(run.job.Rungs, r.rung)
	}
	run.job.Preroll = len(s.pictures) > 0
	return run
}

// repeat takes a repetition of the held picture. At the first one all is here that
// the picture is made of.
func (e *encoding) repeat(ctx context.Context, s *segment, at media.Ticks) {
	if s == nil || !s.video {
		return
	}
	if s.tl.mark.Held && s.runs == nil {
		e.beginHeld(ctx, s)
	}
	s.tl.add(at)
	s.advance()
}

// beginHeld plans a segment in which the last picture is held: one process makes all
// renditions, whatever room there is, since it has little to do.
func (e *encoding) beginHeld(ctx context.Context, s *segment) {
	s.pictures = e.lead()
	e.addRungs(s)
	s.made = len(s.rungs)
	run := e.runOf(s, s.works())
	run.job.Hold = e.holdOf(s)
	for i := range run.job.Rungs {
		run.job.Rungs[i].Step, run.job.Rungs[i].FrameRate = 1, media.VideoTimescale/float64(run.job.Hold.Every)
	}
	run.job.Preroll = false
	s.runs = []*encodingRun{run}
	e.waiting = append(e.waiting, s)
	e.beginWaiting(ctx)
}

// heldMade completes what a process made of a held picture. Of a rendition that it made
// nothing of, the segment is a gap.
func (e *encoding) heldMade(run *encodingRun) {
	for _, r := range run.works {
		if r.out.parts == 0 && len(r.out.frames) == 0 {
			if r.failed = true; run.segment.tl.closed {
				e.gap(r)
			}
			continue
		}
		r.advance(true)
	}
}

// neverHeld gives up a segment whose mark came alone: nothing says what is held.
func (e *encoding) neverHeld(s *segment) {
	e.addRungs(s)
	for _, r := range s.works() {
		r.failed = true
	}
}

// addRungs adds the ladder to a segment.
func (e *encoding) addRungs(s *segment) {
	for _, r := range e.rungs {
		s.rungs = append(s.rungs, &rungWork{rung: r, segment: s})
	}
}

// holdOf is how the last of a segment's pictures is shown in it.
func (e *encoding) holdOf(s *segment) Hold {
	every := max(1, s.tl.limit/media.TicksPerMillisecond) * media.TicksPerMillisecond
	// A segment lasts at most as long as the shortest target duration.
	h := Hold{Every: every, Count: int(shortTarget*media.VideoTimescale/every) + 2}
	for _, u := range s.pictures {
		h.After = max(h.After, u.PTS-s.pictures[0].DTS)
	}
	return h
}

// profile names all that the bytes of the job's i-th rung depend on besides the log.
func (j Job) profile(build string, i int) string {
	if j.Hold.Every == 0 {
		return j.rungProfile(build, j.Rungs[i])
	}
	return profileOf("held", strconv.FormatInt(int64(j.Hold.Every), 10), j.rungProfile(build, j.Rungs[i]))
}
