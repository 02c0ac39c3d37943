package transcode

import (
	"context"
	"errors"
	"slices"
	"time"

	"millrace/internal/index"
	"millrace/internal/media"
)

const (
	// spareDelay is how long after a mark the next segment's processes are
	// started: not at once, since those that were just fed need the core.
	spareDelay = 500 * time.Millisecond
	// maxSideBySide bounds how many segments are encoded at a time when a
	// process doesn't keep up with real time; past slowSideBySide the highest
	// rung is shed, and tried again after calmSegments without that.
	maxSideBySide  = 4
	slowSideBySide = 2
	calmSegments   = 15
	// maxAttempts is how often a segment's rungs are begun before they are given up.
	maxAttempts = 3
	// maxGroupCost is the cores that one process may need at real time.
	maxGroupCost = 0.7
)

// encoding is a worker's part that has to do with FFmpeg.
type encoding struct {
	rungs   []rung
	shed    int      // how many of them, from the highest on, are not made now
	calm    int      // segments since encoding was last too slow
	groups  [][]rung // which rungs share a process; at least one, for the thumbnail
	outputs chan output
	spares  []*encoder // one for each group, or nil
	spareAt <-chan time.Time
	using   map[*encoder]*encodingRun // nil for spares and those that were discarded
}

// encodingRun is what one process is used for.
type encodingRun struct {
	segment *segment
	group   int
	attempt int
	works   []*rungWork
}

// rungWork is a segment's encoding in one rung.
type rungWork struct {
	rung    rung
	out     *rendering // made anew with each attempt
	failed  bool
	done    bool
	segment *segment
	// standIn names the rendition whose media is listed in its place while the
	// rung is shed; empty otherwise.
	standIn string
}

func (r *rungWork) advance(complete bool) {
	if r.out == nil || r.done || r.failed || r.standIn != "" {
		return
	}
	r.out.advance(complete)
	r.done = r.out.done
}

// planRungs settles the ladder at the first configuration, and fits it to a
// later one: players know the renditions by name.
func (w *worker) planRungs() {
	if w.settings == nil || !w.settings.Video {
		return
	}
	e := &w.encoding
	if e.rungs == nil {
		e.rungs = buildLadder(w.Ladder, w.video.Width, w.video.Height, w.settings.FrameRate, w.settings.FrameStep)
		for e.shed < len(e.rungs) && !w.Budget.reserve(w, w.cost(e.rungs[e.shed:])) {
			w.Log.Warn("there is no room to encode a rung", "rung", e.rungs[e.shed].Name, "cost", w.cost(e.rungs[e.shed:]))
			e.shed++
		}
	} else {
		e.rungs = refit(e.rungs, w.video.Width, w.video.Height)
	}
	w.groupRungs()
}

// groupRungs divides the rungs that are made among processes that each keep up
// with real time, as far as that can be known.
func (w *worker) groupRungs() {
	e := &w.encoding
	e.groups = [][]rung{nil}
	for _, r := range e.rungs[e.shed:] {
		last := len(e.groups) - 1
		if group := append(slices.Clone(e.groups[last]), r); len(e.groups[last]) == 0 || w.cost(group) <= maxGroupCost {
			e.groups[last] = group
		} else {
			e.groups = append(e.groups, []rung{r})
		}
	}
	w.discardSpares()
	e.spares = make([]*encoder, len(e.groups))
	e.spareAt = time.After(0)
}

// cost is the cores that rungs need at real time in one process.
func (w *worker) cost(rungs []rung) float64 {
	return w.Budget.scale() * estimateCost(w.video.Width, w.video.Height, w.settings.FrameRate, rungs)
}

func (w *worker) jobOf(group int) encodeJob {
	return encodeJob{Rungs: w.encoding.groups[group], Preset: w.Preset, Thumbnail: group == 0}
}

// startSpares starts the processes that the next segment will use.
func (w *worker) startSpares(ctx context.Context) {
	for i := range w.encoding.spares {
		if w.encoding.spares[i] != nil {
			continue
		}
		spare, err := w.FFmpeg.startEncoder(ctx, w.jobOf(i), w.encoding.outputs)
		if err != nil {
			w.Log.Error("no spare encoder", "err", err)
			continue
		}
		w.encoding.spares[i] = spare
		w.encoding.using[spare] = nil
	}
}

// beginEncoding gives a new segment its processes.
func (w *worker) beginEncoding(ctx context.Context, s *segment) {
	e := &w.encoding
	for _, r := range e.rungs {
		s.rungs = append(s.rungs, &rungWork{rung: r, segment: s})
	}
	if !s.tl.mark.Independent() {
		// Pictures before the mark are decoded, not shown.
		s.pictures = slices.Clone(w.gop)
	}
	made := w.balance(s)
	w.standIn(s, made)
	if made == 0 {
		return
	}
	first := len(s.rungs) - made
	for i, group := range e.groups {
		works := s.rungs[first : first+len(group)]
		first += len(group)
		w.beginRun(ctx, &encodingRun{segment: s, group: i, works: works})
	}
	e.spareAt = time.After(spareDelay)
}

// balance sheds the highest rung when encoding falls behind, takes it up again
// when there is room, and returns how many rungs to make of this segment.
func (w *worker) balance(s *segment) int {
	e := &w.encoding
	behind := 0
	for _, s := range w.segments {
		if slices.ContainsFunc(s.rungs, func(r *rungWork) bool { return !r.done && r.standIn == "" }) {
			behind++
		}
	}
	behind-- // this one
	e.calm++
	switch {
	case behind >= slowSideBySide && e.shed < len(e.rungs):
		e.calm = 0
		w.Log.Warn("encoding is too slow: a rung is shed", "rung", e.rungs[e.shed].Name, "sequence", s.tl.mark.Sequence)
		e.shed++
		w.Budget.reserve(w, w.cost(e.rungs[e.shed:]))
		w.groupRungs()
	case behind < slowSideBySide && e.calm >= calmSegments && e.shed > 0:
		e.calm = 0
		if !w.Budget.reserve(w, w.cost(e.rungs[e.shed-1:])) {
			break
		}
		e.shed--
		w.Log.Info("a rung is made again", "rung", e.rungs[e.shed].Name, "sequence", s.tl.mark.Sequence)
		w.groupRungs()
	}
	if behind >= maxSideBySide {
		return 0
	}
	return len(e.rungs) - e.shed
}

// standIn lists, in place of each rung that isn't made of this segment, the
// next lower one that is, or else the source: players know a rendition for the
// whole broadcast, and one without media would stop them.
func (w *worker) standIn(s *segment, made int) {
	missing := len(s.rungs) - made
	name, init := sourceName, w.videoInit
	if made > 0 {
		name, init = s.rungs[missing].rung.Name, nil // its init comes with its media
	}
	for _, r := range s.rungs[:missing] {
		r.standIn = name
		if init != nil {
			w.announceInit(r.rung.Name, init, index.Entry{Epoch: s.tl.mark.Epoch})
		}
	}
	w.Metrics.shed.Add(float64(missing))
}

// beginRun starts an attempt at a group of rungs, from the segment's beginning.
func (w *worker) beginRun(ctx context.Context, run *encodingRun) {
	e, s := &w.encoding, run.segment
	run.attempt++
	var enc *encoder
	if s.tl.mark.Independent() && run.group < len(e.spares) && e.spares[run.group] != nil && run.attempt == 1 {
		enc, e.spares[run.group] = e.spares[run.group], nil
	} else {
		job := encodeJob{Preset: w.Preset, Thumbnail: run.group == 0 && run.attempt == 1}
		for _, r := range run.works {
			job.Rungs = append(job.Rungs, r.rung)
		}
		if len(s.pictures) > 0 && !s.tl.mark.Independent() {
			job.Skip = s.tl.mark.Start - s.pictures[0].DTS
		}
		if len(job.Rungs) == 0 && !job.Thumbnail {
			return
		}
		var err error
		if enc, err = w.FFmpeg.startEncoder(ctx, job, e.outputs); err != nil {
			w.Log.Error("a segment's encoder didn't start", "sequence", s.tl.mark.Sequence, "err", err)
			w.giveUp(run)
			return
		}
		w.Metrics.coldStarts.Inc()
	}
	for _, r := range run.works {
		r.out = newRendering(s.tl, w.Grant.Epoch, r.rung.Name, "", rungProfile(w.FFmpeg.build, w.Preset, r.rung), media.VideoTimescale, r.rung.Step)
		r.out.publish = w.publisher(s, r.rung.Name)
	}
	e.using[enc] = run
	enc.config(s.config)
	for _, u := range s.pictures {
		enc.picture(u)
	}
	if s.tl.closed {
		enc.finish()
	}
}

// feed gives a picture to the segment's processes.
func (w *worker) feed(s *segment, u *media.AccessUnit) {
	s.pictures = append(s.pictures, u)
	for enc, run := range w.encoding.using {
		if run != nil && run.segment == s {
			enc.picture(u)
		}
	}
}

// finishEncoding says that the segment's pictures are all fed.
func (w *worker) finishEncoding(s *segment) {
	for enc, run := range w.encoding.using {
		if run != nil && run.segment == s {
			enc.finish()
		}
	}
	for _, r := range s.rungs {
		if r.failed && !r.done {
			w.gapRung(r)
		}
	}
}

// encoded handles what a process made.
func (w *worker) encoded(ctx context.Context, o output) {
	if o.thumbnail != nil {
		w.emit(func() { w.Publish.thumbnail(o.thumbnail) })
		return
	}
	run := w.encoding.using[o.encoder]
	switch {
	case o.exit != nil:
		w.exited(ctx, o.encoder, run, o.exit)
	case run == nil:
	case o.config != nil:
		w.rungConfig(run.works[o.rung], o.config)
	case o.frame != nil:
		r := run.works[o.rung]
		at := r.segment.tl.nearest(o.frame.PTS + o.encoder.base)
		if r.done || at < r.segment.tl.mark.Start-media.TicksPerMillisecond {
			return
		}
		r.out.add(frame{time: int64(at), at: at, idr: o.frame.IDR, payload: o.frame.Payload})
		r.advance(false)
		w.retire()
	}
}

func (w *worker) rungConfig(r *rungWork, c *media.AVCConfig) {
	init, err := media.VideoInit(c)
	if err != nil {
		w.Log.Error("an encoder's configuration can't be used", "rung", r.rung.Name, "err", err)
		return
	}
	r.out.entry.Init = init.Hash
	w.announceInit(r.rung.Name, init, index.Entry{Epoch: r.segment.tl.mark.Epoch, Codec: c.Codec, Width: c.Width, Height: c.Height})
	for _, shed := range r.segment.shedFor(r.rung.Name) {
		// Without its codec: what the playlist says of the rung stays.
		w.announceInit(shed.rung.Name, init, index.Entry{Epoch: r.segment.tl.mark.Epoch})
	}
}

// shedFor returns the segment's rungs that a rendition stands in for.
func (s *segment) shedFor(rendition string) (shed []*rungWork) {
	for _, r := range s.rungs {
		if r.standIn == rendition {
			shed = append(shed, r)
		}
	}
	return shed
}

// exited handles a process's end: a good one completes the segment's rungs, a
// bad one has them made again.
func (w *worker) exited(ctx context.Context, enc *encoder, run *encodingRun, x *exit) {
	enc.running.Wait()
	delete(w.encoding.using, enc)
	if run == nil { // a spare
		if i := slices.Index(w.encoding.spares, enc); i >= 0 {
			w.encoding.spares[i] = nil
			w.Log.Warn("a spare encoder ended", "err", x.err)
			if w.encoding.spareAt == nil {
				w.encoding.spareAt = time.After(spareDelay)
			}
		}
		return
	}
	s := run.segment
	if x.err == nil && s.tl.closed {
		seconds := (s.tl.end - s.tl.mark.Start).Seconds()
		w.Budget.spent(x.cpu, seconds*estimateCost(w.video.Width, w.video.Height, w.settings.FrameRate, enc.job.Rungs))
		w.Metrics.encodeSeconds.Add(x.cpu.Seconds())
		for _, r := range run.works {
			r.advance(true)
		}
		w.retire()
		return
	}
	undone := slices.ContainsFunc(run.works, func(r *rungWork) bool { return !r.done })
	if !undone || errors.Is(x.err, errDiscarded) || ctx.Err() != nil {
		return
	}
	w.Metrics.failures.Inc()
	w.Log.Warn("an encoder died; its segment is made again", "sequence", s.tl.mark.Sequence, "attempt", run.attempt, "err", x.err)
	if run.attempt >= maxAttempts {
		w.giveUp(run)
		return
	}
	w.beginRun(ctx, run)
}

// giveUp leaves a gap where a segment's rungs can't be made.
func (w *worker) giveUp(run *encodingRun) {
	for _, r := range run.works {
		if r.done {
			continue
		}
		r.failed = true
		if r.segment.tl.closed {
			w.gapRung(r)
		}
	}
	w.retire()
}

func (w *worker) gapRung(r *rungWork) {
	tl := r.segment.tl
	e := index.Entry{
		Type: index.TypeGap, Writer: w.Grant.Epoch, Rendition: r.rung.Name, Epoch: tl.mark.Epoch,
		Sequence: tl.mark.Sequence, Discontinuity: tl.mark.Discontinuity, Time: tl.mark.Time,
		Duration: tl.end - tl.mark.Start, Reason: "it could not be encoded",
	}
	r.done = true
	w.emit(func() { w.Publish.gap(e) })
	for _, shed := range r.segment.shedFor(r.rung.Name) {
		w.gapRung(shed)
	}
}

func (w *worker) discardSpares() {
	for i, enc := range w.encoding.spares {
		if enc != nil {
			enc.discard()
			w.encoding.spares[i] = nil
		}
	}
}

// discardEncoders ends all processes and waits for them.
func (w *worker) discardEncoders() {
	for enc := range w.encoding.using {
		enc.discard()
	}
	for enc := range w.encoding.using {
		enc.running.Wait()
	}
}
