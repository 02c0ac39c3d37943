package encode

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/relay"
)

const (
	// spareDelay is how long after a mark the next segment's processes are
	// started: not at once, since those that were just fed need the core.
	spareDelay = 500 * time.Millisecond
	// sideBySide is how many segments are encoded at a time: one ends while
	// the next begins. Further ones wait.
	sideBySide = 2
	// maxAttempts is how often a segment's rungs are begun before they are given up.
	maxAttempts = 3
)

// encoding makes the renditions of pictures: the source as it is, and the rungs,
// for each segment by processes of its own. It belongs to the worker's goroutine,
// but for unmade and failing.
type encoding struct {
	*Config
	out      *announcer
	segments *segments
	gone     <-chan struct{} // closed when the worker has ended
	unmade   atomic.Int64    // rungs that aren't made now
	failing  atomic.Bool     // and whether that is since their processes die

	codec  *media.Codec // the source's
	header *media.Init  // the source's
	source Source
	size   int       // bytes of the source so far
	gop    []preroll // since the segment that decoding starts at

	rungs   []Rung // nil until they are settled
	recoded bool   // the first of them takes the source's place
	shedding
	dying failures
	// groups are the rungs that share a process; at least one, for the picture for listings.
	groups    [][]Rung
	broken    bool   // the pictures that come can't be decoded by who saw held ones only
	held      uint64 // the newest segment of these
	pictureIn int    // segments until a process makes just a picture for listings
	prerolled bool   // the newest segment is decoded from an earlier one on
	outputs   chan output
	spares    []*encoder // for the next segment, one for each group, or nil
	spareAt   <-chan time.Time
	using     map[*encoder]*encodingRun // nil for spares and those that were discarded
	waiting   []*segment                // that aren't begun, oldest first
}

func newEncoding(c *Config, out *announcer, l *segments, gone <-chan struct{}) *encoding {
	return &encoding{
		Config: c, out: out, segments: l, gone: gone,
		outputs: make(chan output, 64), using: map[*encoder]*encodingRun{},
	}
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

// configure takes the source's codec.
func (e *encoding) configure(c *media.Codec, settings relay.Settings) (err error) {
	if c.Equal(e.codec) {
		return nil
	}
	e.codec, e.dying = c, failures{}
	e.failing.Store(false)
	e.source = Source{
		Format: c.Format, Rare: !c.Universal, Width: c.Width, Height: c.Height, Look: LookOf(c.Picture), Picture: c.Picture,
		FrameRate: settings.FrameRate, Step: settings.FrameStep,
	}
	if e.header, err = c.Init(); err != nil {
		return err
	}
	if settings.Video {
		e.plan()
	}
	return nil
}

// preroll is the pictures of a segment, for the decoding of later ones.
type preroll struct {
	sequence uint64
	pictures []*media.Unit
}

// marked takes note of a mark of which the segment follows, whether or not it is
// made: pictures before those that decoding starts at are forgotten.
func (e *encoding) marked(m relay.Mark) {
	e.gop = slices.DeleteFunc(e.gop, func(p preroll) bool { return p.sequence < m.DecodeFrom || m.Independent() })
	e.gop = append(e.gop, preroll{sequence: m.Sequence})
	if m.Held {
		e.held = m.Sequence
	}
	e.broken = m.Held || e.broken && m.DecodeFrom <= e.held
}

// lead is the pictures that are decoded before those that come.
func (e *encoding) lead() (pictures []*media.Unit) {
	for _, p := range e.gop {
		pictures = append(pictures, p.pictures...)
	}
	return pictures
}

// open prepares a segment's pictures.
func (e *encoding) open(s *segment) {
	s.video, s.codec = true, e.codec
	m := s.tl.mark
	e.replace(m.Recode)
	switch {
	case !e.broken:
	case !e.recoded:
		s.standIn = &rungWork{rung: e.sourceRung(), segment: s}
		return
	case m.Held:
		return // its place is taken by a rung
	}
	s.source = newRendering(s.tl, e.Grant.Epoch, sourceName, e.header.Hash, SourceProfile(), 0)
	if e.recoded {
		s.source.publish = e.out.standInPutter(s, sourceName)
		return
	}
	s.source.publish = e.out.putter(s, sourceName)
	e.out.init(sourceName, e.header, index.Entry{Epoch: s.tl.mark.Epoch, Codec: e.codec.Name, Width: e.codec.Width, Height: e.codec.Height})
}

// begin plans a new segment's rungs.
func (e *encoding) begin(ctx context.Context, s *segment) {
	e.addRungs(s)
	s.pictures = e.lead() // these are decoded, not shown
	e.prerolled = len(s.pictures) > 0
	made := e.balance(s)
	ended := e.dying.ended(time.Now())
	none := made < len(e.rungs)-e.shed || ended
	switch {
	case ended:
		made = 0
	case e.midway(s):
		made = len(e.rungs)
	}
	s.made = made
	e.standIn(s, made)
	if s.standIn != nil {
		s.runs = append(s.runs, e.runOf(s, []*rungWork{s.standIn}))
	}
	groups := e.groupsOf(s)
	if none {
		groups = nil
	}
	first := len(s.rungs) - made
	for i, group := range groups {
		picture := i == 0 && !e.Backfill && !e.taking(s) && e.pictureDue(group)
		run := e.runOf(s, s.rungs[first:first+len(group)])
		run.job.Thumbnail = picture
		s.runs = append(s.runs, run)
		first += len(group)
	}
	if len(s.runs) == 0 {
		return
	}
	e.waiting = append(e.waiting, s)
	e.beginWaiting(ctx)
	if !e.Backfill {
		e.spareAt = time.After(spareDelay)
	}
}

// beginWaiting begins the segments that wait, as far as there is a place.
func (e *encoding) beginWaiting(ctx context.Context) {
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
			e.beginRun(ctx, run)
		}
	}
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

// beginRun starts an attempt at a group of rungs, from the segment's beginning.
func (e *encoding) beginRun(ctx context.Context, run *encodingRun) {
	s := run.segment
	run.attempt++
	if run.attempt > 1 {
		run.job.Thumbnail = false
	}
	if len(run.job.Rungs) == 0 && !run.job.Thumbnail {
		return
	}
	enc := e.ready(run)
	if enc == nil {
		var err error
		if enc, err = e.FFmpeg.startEncoder(ctx, run.job, e.outputs); err != nil {
			e.Log.Error("a segment's encoder didn't start", "sequence", s.tl.mark.Sequence, "err", err)
			e.giveUp(run)
			return
		}
		if len(run.job.Rungs) > 0 {
			e.Metrics.coldStarts.Inc()
		}
	}
	if e.Backfill || e.Grant.Standby && e.taking(s) {
		enc.background()
	}
	for i, r := range run.works {
		r.again = run.attempt > 1
		r.out = newRendering(s.tl, e.Grant.Epoch, r.rung.Name, "", run.job.profile(e.FFmpeg.buildFor(run.job.Look), i), run.job.Rungs[i].gap())
		r.out.publish = e.out.putter(s, r.rung.Name)
	}
	e.using[enc] = run
	enc.begin(s.tl.mark.Start)
	enc.config(s.codec)
	for _, u := range s.pictures {
		enc.picture(u)
	}
	if s.tl.closed || run.job.Hold.Every > 0 {
		enc.finish()
	}
}

// take takes one picture of the source, which belongs to s or, where that is
// nil, to a segment that isn't made. at is its decode time, shifted as the
// segment's start is.
func (e *encoding) take(ctx context.Context, s *segment, u *media.Unit, at media.Ticks) {
	if u.Repeats() {
		e.repeat(ctx, s, at)
		return
	}
	if n := len(e.gop); n > 0 {
		last := &e.gop[n-1]
		if u.Preroll && u.RandomAccess {
			e.gop, last.pictures = e.gop[n-1:], nil
		}
		last.pictures = append(last.pictures, u)
	}
	if s == nil || !s.video || u.Preroll && s.tl.mark.Held {
		return
	}
	if !u.Preroll {
		e.size += len(u.Payload)
		s.tl.add(at)
		s.tl.shown = append(s.tl.shown, u.PTS)
	}
	if s.source != nil && !u.Preroll {
		s.source.add(frame{time: int64(at), at: at, offset: int32(u.PTS - at), key: u.RandomAccess, payload: u.Payload})
	}
	s.pictures = append(s.pictures, u)
	for enc, run := range e.using {
		if run != nil && run.segment == s {
			enc.picture(u)
		}
	}
	s.advance()
}

// finish says that the segment's pictures are all fed.
func (e *encoding) finish(s *segment) {
	if s.tl.mark.Held && s.runs == nil {
		e.neverHeld(s)
	}
	for enc, run := range e.using {
		if run != nil && run.segment == s && run.job.Hold.Every == 0 {
			enc.finish()
		}
	}
	for _, r := range s.works() {
		if r.failed && !r.done {
			e.gap(r)
		}
	}
}

// encoded handles what a process made. It returns the rung that came on by that.
func (e *encoding) encoded(ctx context.Context, o output) *rendering {
	if o.thumbnail != nil {
		e.out.thumbnail(o.thumbnail)
		return nil
	}
	run := e.using[o.encoder]
	switch {
	case o.exit != nil:
		e.exited(ctx, o.encoder, run, o.exit)
	case run == nil:
	case o.config != nil:
		e.configured(run.works[o.rung], o.config)
	case o.frame != nil:
		r := run.works[o.rung]
		base := o.encoder.base
		if run.job.Hold.Every > 0 {
			base = r.segment.tl.mark.Start
		}
		at := r.segment.tl.nearest(o.frame.PTS + base)
		if r.done || at < r.segment.tl.mark.Start-media.TicksPerMillisecond {
			return nil
		}
		o.encoder.watchdog.answered(time.Now())
		r.out.add(frame{time: int64(at), at: at, key: o.frame.RandomAccess, payload: o.frame.Payload})
		r.advance(false)
		return r.out
	}
	return nil
}

// configured announces the header of what a process makes of a rung.
func (e *encoding) configured(r *rungWork, c *media.Codec) {
	init, err := c.Init()
	if err != nil {
		e.Log.Error("an encoder's configuration can't be used", "rung", r.rung.Name, "err", err)
		return
	}
	r.out.entry.Init = init.Hash
	entry := index.Entry{Epoch: r.segment.tl.mark.Epoch, Codec: c.Name, Width: c.Width, Height: c.Height}
	if r == r.segment.standIn { // what the playlist says of the source stays
		entry = index.Entry{Epoch: entry.Epoch}
	}
	e.out.init(r.rung.Name, init, entry)
	for _, shed := range r.segment.shedFor(r.rung.Name) {
		// Without its codec: what the playlist says of the rung stays.
		e.out.init(shed.rung.Name, init, index.Entry{Epoch: r.segment.tl.mark.Epoch})
	}
}

// exited handles a process's end: a good one completes the segment's rungs, a
// bad one has them made again.
func (e *encoding) exited(ctx context.Context, enc *encoder, run *encodingRun, x *exit) {
	enc.running.Wait()
	delete(e.using, enc)
	if run == nil {
		e.spareExited(enc, x)
		return
	}
	defer e.beginWaiting(ctx)
	s := run.segment
	if x.err == nil && run.job.Hold.Every > 0 {
		e.heldMade(run)
		return
	}
	if x.memory {
		e.Metrics.overMemory.Inc()
	}
	if x.err == nil && s.tl.closed && !run.empty() {
		seconds := (s.tl.end - s.tl.mark.Start).Seconds()
		e.Budget.spent(x.cpu, seconds*EstimateCost(e.came(s, enc.job)))
		e.Metrics.encodeSeconds.Add(x.cpu.Seconds())
		for _, r := range run.works {
			r.advance(true)
		}
		return
	}
	undone := slices.ContainsFunc(run.works, func(r *rungWork) bool { return !r.done })
	if !undone || errors.Is(x.err, errDiscarded) || ctx.Err() != nil {
		return
	}
	e.Metrics.failures.Inc()
	e.Log.Warn("an encoder died, or made nothing; its segment is made again", "sequence", s.tl.mark.Sequence, "attempt", run.attempt, "err", x.err)
	if run.attempt >= maxAttempts {
		e.giveUp(run)
		return
	}
	e.beginRun(ctx, run)
}

// giveUp leaves a gap where a segment's rungs can't be made.
func (e *encoding) giveUp(run *encodingRun) {
	for _, r := range run.works {
		if r.done {
			continue
		}
		r.failed = true
		if r.segment.tl.closed {
			e.gap(r)
		}
	}
}

func (e *encoding) gap(r *rungWork) {
	tl := r.segment.tl
	r.done = true
	e.out.gap(index.Entry{
		Type: index.TypeGap, Writer: e.Grant.Epoch, Rendition: r.rung.Name, Epoch: tl.mark.Epoch,
		Sequence: tl.mark.Sequence, Discontinuity: tl.mark.Discontinuity, Time: tl.mark.Time,
		Duration: tl.end - tl.mark.Start, Reason: "it could not be encoded",
	})
	for _, shed := range r.segment.shedFor(r.rung.Name) {
		e.gap(shed)
	}
}

// abandon ends what is made of a segment that was dropped.
func (e *encoding) abandon(ctx context.Context, s *segment) {
	for enc, run := range e.using {
		if run != nil && run.segment == s {
			e.using[enc] = nil
			enc.discard()
		}
	}
	if n := len(e.waiting); n > 0 && e.waiting[n-1] == s {
		e.waiting = e.waiting[:n-1]
	}
	e.beginWaiting(ctx)
}

// watch ends processes that hang; their exits have their segments made again.
func (e *encoding) watch(now time.Time) {
	for enc, run := range e.using {
		if run != nil && enc.fed {
			enc.process.watch(now, &enc.watchdog, e.Config)
		}
	}
}

// end ends all processes and waits for them.
func (e *encoding) end() {
	e.Metrics.rungsShed.Add(float64(-e.counted))
	for enc := range e.using {
		enc.discard()
	}
	for enc := range e.using {
		enc.running.Wait()
	}
}
