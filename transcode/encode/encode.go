package encode

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
	// sideBySide is how many segments are encoded at a time: one ends while
	// the next begins. Further ones wait.
	sideBySide = 2
	// maxUnmade bounds the segments that are encoded or wait for it, of those
	// that came at real time: past it no rung is made of further ones.
	maxUnmade = 4
	// plannedAfter is when a first mark comes, after the grant, that was agreed
	// on: then nobody waited for the worker.
	plannedAfter = 300 * time.Millisecond
	// lonePicture is how often, in segments, a process is started for nothing but
	// the picture for listings: that costs a fifth of what two small rungs do.
	lonePicture = 8
	// maxAttempts is how often a segment's rungs are begun before they are given up.
	maxAttempts = 3
	// maxGroupCost is the cores that one process may need at real time.
	maxGroupCost = 0.7
)

// encoding is a worker's part that has to do with FFmpeg.
type encoding struct {
	rungs    []Rung
	shed     int  // how many of them, from the highest on, are not made now
	counted  int  // how many of those the metric counts
	slow     int  // marks in a row at which encoding was too slow
	calm     int  // segments since encoding was last too slow
	resumed  bool // the newest change was a rung that is made again
	patience int  // segments without that after which a rung is made again
	// groups are the rungs that share a process; at least one, for the picture for listings.
	groups    [][]Rung
	pictureIn int // segments until a process makes just a picture for listings
	outputs   chan output
	spares    []*encoder // for the next segment, one for each group, or nil
	spareAt   <-chan time.Time
	using     map[*encoder]*encodingRun // nil for spares and those that were discarded
	waiting   []*segment                // that aren't begun, oldest first
	read      time.Time                 // when the newest mark was read
}

// busy reports whether a closed segment is being encoded.
func (e *encoding) busy() bool {
	for _, run := range e.using {
		if run != nil && run.segment.tl.closed {
			return true
		}
	}
	return len(e.waiting) > 0
}

// encodingRun is what one process is used for.
type encodingRun struct {
	segment *segment
	job     Job
	attempt int
	works   []*rungWork
}

// rungWork is a segment's encoding in one rung.
type rungWork struct {
	rung    Rung
	out     *rendering // made anew with each attempt
	again   bool       // its process died or hung, and another one makes it
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
func (w *Worker) planRungs() {
	if w.settings == nil || !w.settings.Video {
		return
	}
	e := &w.encoding
	if e.rungs == nil {
		e.rungs = w.ladder()
		e.patience = calmSegments
		for !w.Backfill && !w.Budget.reserve(w, w.cost(e.rungs[e.shed:])) {
			if e.shed == w.mayShed() {
				w.Budget.force(w, w.cost(e.rungs[e.shed:]))
				break
			}
			w.Log.Warn("there is no room to encode a rung", "rung", e.rungs[e.shed].Name, "cost", w.cost(e.rungs[e.shed:]))
			e.shed++
			e.calm = calmSegments // made again as soon as there is room
		}
	} else {
		e.rungs = refit(e.rungs, w.video.Width, w.video.Height)
	}
	w.groupRungs()
}

// ladder returns the rungs to make: those that players know from an earlier
// worker, else the configured ones.
func (w *Worker) ladder() []Rung {
	if w.Earlier != nil {
		if list := w.Earlier(); len(list) > 0 {
			return refit(announcedRungs(list, w.settings.FrameRate), w.video.Width, w.video.Height)
		}
	}
	rungs := BuildLadder(w.Ladder, w.pictures())
	return append([]Rung{}, rungs...) // never nil: it is settled
}

// pictures is what there is to encode.
func (w *Worker) pictures() Source {
	return Source{Format: w.video.Format, Width: w.video.Width, Height: w.video.Height, FrameRate: w.settings.FrameRate, Step: w.settings.FrameStep}
}

// groupRungs divides the rungs that are made among processes that each keep up
// with real time, as far as that can be known.
func (w *Worker) groupRungs() {
	e := &w.encoding
	e.groups = [][]Rung{nil}
	for _, r := range e.rungs[e.shed:] {
		last := len(e.groups) - 1
		if group := append(slices.Clone(e.groups[last]), r); len(e.groups[last]) == 0 || w.cost(group) <= maxGroupCost {
			e.groups[last] = group
		} else {
			e.groups = append(e.groups, []Rung{r})
		}
	}
	w.Metrics.rungsShed.Add(float64(e.shed - e.counted))
	e.counted = e.shed
	w.shed.Store(int64(e.shed))
	w.discardSpares()
	e.spares = make([]*encoder, len(e.groups))
	if !w.Backfill {
		e.spareAt = time.After(0)
	}
}

// cost is the cores that rungs need at real time in one process.
func (w *Worker) cost(rungs []Rung) float64 {
	return w.Budget.Scale() * EstimateCost(w.pictures(), rungs)
}

func (w *Worker) jobOf(group int) Job {
	rungs := w.encoding.groups[group]
	return Job{Rungs: rungs, Preset: w.Preset, Thumbnail: group == 0 && len(rungs) > 0 && !w.Backfill}
}

// startSpares starts the processes that the next segment will use.
func (w *Worker) startSpares(ctx context.Context) {
	for i := range w.encoding.spares {
		if w.encoding.spares[i] != nil || len(w.encoding.groups[i]) == 0 {
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

// beginEncoding plans a new segment's rungs.
func (w *Worker) beginEncoding(ctx context.Context, s *segment) {
	e := &w.encoding
	for _, r := range e.rungs {
		s.rungs = append(s.rungs, &rungWork{rung: r, segment: s})
	}
	if !s.tl.mark.Independent() {
		// Pictures before the mark are decoded, not shown.
		s.pictures = slices.Clone(w.gop)
	}
	made := w.balance(s)
	tooFarBehind := made < len(e.rungs)-e.shed
	if w.midway(s) {
		made = len(e.rungs)
	}
	s.made = made
	w.standIn(s, made)
	if tooFarBehind {
		return
	}
	first := len(s.rungs) - made
	for i, group := range w.groupsOf(s) {
		picture := i == 0 && !w.Backfill && !w.taking(s) && w.pictureDue(group)
		job := Job{Rungs: group, Preset: w.Preset, Thumbnail: picture}
		if len(s.pictures) > 0 && !s.tl.mark.Independent() {
			job.Skip = s.tl.mark.Start - s.pictures[0].DTS
		}
		s.runs = append(s.runs, &encodingRun{segment: s, job: job, works: s.rungs[first : first+len(group)]})
		first += len(group)
	}
	e.waiting = append(e.waiting, s)
	w.beginWaiting(ctx)
	if !w.Backfill {
		e.spareAt = time.After(spareDelay)
	}
}

// pictureDue reports whether a picture for listings is made of a segment: of each,
// where a process decodes it anyhow for a group of rungs.
func (w *Worker) pictureDue(group []Rung) bool {
	e := &w.encoding
	if len(group) > 0 {
		return true
	}
	due := e.pictureIn == 0
	if due {
		e.pictureIn = lonePicture
	}
	e.pictureIn--
	return due
}

// taking reports whether s is the segment in which this worker took over from
// another one: then nothing but its rungs matters, and they are made by as many
// processes as there are rungs.
func (w *Worker) taking(s *segment) bool {
	return w.Grant.Index && !w.Backfill && s.tl.mark.Sequence == w.From
}

// midway reports whether s is a segment of which an earlier worker may have
// published parts. Then all rungs are made of it, whatever room there is: parts
// of a rung and of what stands in for it don't go together.
func (w *Worker) midway(s *segment) bool { return w.taking(s) && w.Grant.Epoch.Grant > 1 }

func (w *Worker) groupsOf(s *segment) [][]Rung {
	if !w.taking(s) {
		return w.encoding.groups
	}
	return each(w.encoding.rungs[len(w.encoding.rungs)-s.made:])
}

// each puts every rung into a group of its own.
func each(rungs []Rung) (groups [][]Rung) {
	for i := range rungs {
		groups = append(groups, rungs[i:i+1])
	}
	return groups
}

// beginWaiting begins the segments that wait, as far as there is a place.
func (w *Worker) beginWaiting(ctx context.Context) {
	e := &w.encoding
	for len(e.waiting) > 0 {
		begun := map[*segment]bool{}
		for _, run := range e.using {
			if run != nil {
				begun[run.segment] = true
			}
		}
		if len(begun) >= sideBySide {
			return
		}
		s := e.waiting[0]
		e.waiting = e.waiting[1:]
		for _, run := range s.runs {
			w.beginRun(ctx, run)
		}
	}
}

// beginRun starts an attempt at a group of rungs, from the segment's beginning.
func (w *Worker) beginRun(ctx context.Context, run *encodingRun) {
	e, s := &w.encoding, run.segment
	run.attempt++
	if run.attempt > 1 {
		run.job.Thumbnail = false
	}
	if len(run.job.Rungs) == 0 && !run.job.Thumbnail {
		return
	}
	enc := w.ready(run)
	if enc == nil {
		var err error
		if enc, err = w.FFmpeg.startEncoder(ctx, run.job, e.outputs); err != nil {
			w.Log.Error("a segment's encoder didn't start", "sequence", s.tl.mark.Sequence, "err", err)
			w.giveUp(run)
			return
		}
		if len(run.job.Rungs) > 0 {
			w.Metrics.coldStarts.Inc()
		}
	}
	if w.Backfill || w.Grant.Standby && w.taking(s) {
		enc.background()
	}
	for _, r := range run.works {
		r.again = run.attempt > 1
		r.out = newRendering(s.tl, w.Grant.Epoch, r.rung.Name, "", rungProfile(w.FFmpeg.build, w.Preset, r.rung), r.rung.Step)
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

// ready returns a process that waits for just this job, or nil.
func (w *Worker) ready(run *encodingRun) *encoder {
	e := &w.encoding
	if run.attempt == 1 {
		for i, spare := range e.spares {
			if spare != nil && spare.job.same(run.job) {
				e.spares[i] = nil
				return spare
			}
		}
	}
	if w.Warm == nil {
		return nil
	}
	return w.Warm.take(run.job, e.outputs, w.gone)
}

// feed gives a picture to the segment's processes.
func (w *Worker) feed(s *segment, u *media.Unit) {
	s.pictures = append(s.pictures, u)
	for enc, run := range w.encoding.using {
		if run != nil && run.segment == s {
			enc.picture(u)
		}
	}
}

// finishEncoding says that the segment's pictures are all fed.
func (w *Worker) finishEncoding(s *segment) {
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
func (w *Worker) encoded(ctx context.Context, o output) {
	if o.thumbnail != nil {
		w.emit(func() { w.Publish.Thumbnail(o.thumbnail) })
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
		o.encoder.pulse.answered(time.Now())
		r.out.add(frame{time: int64(at), at: at, idr: o.frame.RandomAccess, payload: o.frame.Payload})
		r.advance(false)
		w.noteCaughtUp(r.out)
		w.retire()
	}
}

// noteCaughtUp notes when the first rung is where the log is: that is when
// viewers see the first new picture after a takeover.
func (w *Worker) noteCaughtUp(r *rendering) {
	if w.caughtUp || r.next == 0 || r.reached()+2*r.tl.limit < w.tail.Last() {
		return
	}
	w.caughtUp = true
	took := time.Since(w.Started)
	if w.Grant.Index && !w.Backfill && w.openedAt.Sub(w.Started) < plannedAfter {
		w.Metrics.takeover.Observe(took.Seconds())
		w.Log.Info("first new part after a takeover", "rendition", r.entry.Rendition, "sequence", r.tl.mark.Sequence, "took", took.Round(time.Millisecond))
	}
	if w.CaughtUp != nil {
		w.CaughtUp()
	}
}

func (w *Worker) rungConfig(r *rungWork, c *media.Codec) {
	init, err := c.Init()
	if err != nil {
		w.Log.Error("an encoder's configuration can't be used", "rung", r.rung.Name, "err", err)
		return
	}
	r.out.entry.Init = init.Hash
	w.announceInit(r.rung.Name, init, index.Entry{Epoch: r.segment.tl.mark.Epoch, Codec: c.Name, Width: c.Width, Height: c.Height})
	for _, shed := range r.segment.shedFor(r.rung.Name) {
		// Without its codec: what the playlist says of the rung stays.
		w.announceInit(shed.rung.Name, init, index.Entry{Epoch: r.segment.tl.mark.Epoch})
	}
}

// exited handles a process's end: a good one completes the segment's rungs, a
// bad one has them made again.
func (w *Worker) exited(ctx context.Context, enc *encoder, run *encodingRun, x *exit) {
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
	defer w.beginWaiting(ctx)
	s := run.segment
	if x.err == nil && s.tl.closed {
		seconds := (s.tl.end - s.tl.mark.Start).Seconds()
		w.Budget.spent(x.cpu, seconds*EstimateCost(w.pictures(), enc.job.Rungs))
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
func (w *Worker) giveUp(run *encodingRun) {
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

func (w *Worker) gapRung(r *rungWork) {
	tl := r.segment.tl
	e := index.Entry{
		Type: index.TypeGap, Writer: w.Grant.Epoch, Rendition: r.rung.Name, Epoch: tl.mark.Epoch,
		Sequence: tl.mark.Sequence, Discontinuity: tl.mark.Discontinuity, Time: tl.mark.Time,
		Duration: tl.end - tl.mark.Start, Reason: "it could not be encoded",
	}
	r.done = true
	w.emit(func() { w.Publish.Gap(e) })
	for _, shed := range r.segment.shedFor(r.rung.Name) {
		w.gapRung(shed)
	}
}

func (w *Worker) discardSpares() {
	for i, enc := range w.encoding.spares {
		if enc != nil {
			enc.discard()
			w.encoding.spares[i] = nil
		}
	}
}

// discardEncoders ends all processes and waits for them.
func (w *Worker) discardEncoders() {
	w.Metrics.rungsShed.Add(float64(-w.encoding.counted))
	for enc := range w.encoding.using {
		enc.discard()
	}
	for enc := range w.encoding.using {
		enc.running.Wait()
	}
}
