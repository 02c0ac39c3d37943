// Package encode makes the renditions of one broadcast from its log: a worker
// repackages the source, has FFmpeg encode the lower rungs, and cuts everything
// into CMAF segments and parts, which it hands to a [Publisher]. It knows nothing
// of where they are kept.
package encode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/transcode/logread"
)

const (
	// sourceName and audioName are the names of the repackaged renditions.
	sourceName = "source"
	audioName  = "audio"
	// maxLead bounds what is kept of the log from before the settings or the
	// first mark, in access units.
	maxLead = 1024
	// bitrateHeadroom is how much more than the first seconds the source is
	// taken to need until the edges have measured it.
	bitrateHeadroom = 1.2
	// plannedAfter is when a first mark comes, after the grant, that was agreed
	// on: then nobody waited for the worker.
	plannedAfter = 300 * time.Millisecond
)

// Publisher is where a worker's media goes: the publication, or a test's record of it.
type Publisher interface {
	Broadcast(index.Broadcast)
	Init(rendition string, init *media.Init, e index.Entry)
	Deliverer
}

// Deliverer takes parts, segments and what else a worker has to say.
type Deliverer interface {
	Part(e index.Entry, data []byte) error
	Finish(last index.Entry, data []byte, segment index.Entry) error
	Gap(e index.Entry)
	Pause(sequence uint64, reason string)
	End(sequence uint64, reason string)
	Thumbnail(jpeg []byte)
}

// Config is what one worker needs.
type Config struct {
	Grant jobs.Grant
	Slot  int
	// From is the first segment to make. Until, above 0, is the first one that
	// another worker makes.
	From, Until uint64
	// Backfill has rungs encoded with low priority, one segment after the
	// other, whatever room there is.
	Backfill bool
	// Lost is told, once and from the worker's goroutine, why the log can't be
	// read any more; the worker then waits to be told what to do. nil: it stops.
	Lost   func(error)
	FFmpeg *FFmpeg
	Pool   *Pool // nil: no encoders are kept for takeovers
	Preset string
	Ladder []RungSpec
	// Tolerance multiplies how far rungs may be behind before one is shed, and how
	// long an encoder may make nothing before it counts as hung; 0: 1. It is for
	// those who wait for bytes, however late they are, on a machine that is busy.
	Tolerance float64
	// Earlier returns the renditions that earlier workers announced, and may wait
	// for that. nil: there was no earlier worker.
	Earlier func() []index.Rendition
	Budget  *Budget
	Publish Publisher
	// Started is when the grant came.
	Started time.Time
	// CaughtUp, if set, is called once the first rung is where the log is.
	CaughtUp func()
	Metrics  *Metrics
	Log      *slog.Logger
}

// Worker makes the renditions of one broadcast from its log: it follows the log
// and hands pictures to encoding and sound to sound, each of which owns what it
// makes of them.
type Worker struct {
	Config
	// consumed counts access units read; finished is the first segment that
	// isn't complete in every rendition.
	consumed, finished atomic.Uint64
	// unmade counts the segments that were cut and aren't published whole.
	unmade   atomic.Int64
	commands chan command
	gone     chan struct{} // closed when Run has returned
	queue    chan relay.Entry

	// The goroutine of Run owns what follows.
	out      *announcer
	segments *segments
	encoding *encoding
	sound    *sound
	log      progress
	caughtUp bool
}

// progress is how far a worker has come with the log.
type progress struct {
	settings *relay.Settings
	early    []relay.Entry // what came before the settings
	tail     relay.Tail    // where that ends which was taken
	last     *relay.Mark   // the newest one
	first    media.Ticks   // where the first segment begins
	opened   time.Time     // when that was; zero before
	unread   bool          // the log can't be read any more
	over     bool          // no further segment is opened
	closed   bool          // nor is anything more taken
}

// New prepares a worker; Run starts it.
func New(c Config) *Worker {
	c.Tolerance = cmp.Or(c.Tolerance, 1)
	w := &Worker{
		Config: c, commands: make(chan command), gone: make(chan struct{}), queue: make(chan relay.Entry, 64),
		segments: &segments{}, out: &announcer{publish: c.Publish, writer: c.Grant.Epoch, log: c.Log},
	}
	w.finished.Store(c.From)
	w.encoding = newEncoding(&w.Config, w.out, w.segments, w.gone)
	w.sound = newSound(&w.Config, w.out, w.segments)
	return w
}

// Run consumes the log until its end and until everything is published, or
// until reading fails or ctx ends. read sends to its channel what the log says
// and returns why it stopped.
func (w *Worker) Run(ctx context.Context, read func(context.Context, chan<- relay.Entry) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	stopped := make(chan error, 1)
	go func() {
		err := read(ctx, w.queue)
		close(w.queue)
		stopped <- err
	}()
	defer func() {
		close(w.gone)
		cancel(nil)
		for range w.queue { // until the reader has ended
		}
		w.encoding.end()
		w.sound.end()
	}()
	watch := time.NewTicker(watchInterval)
	defer watch.Stop()
	for !w.log.over || len(w.segments.list) > 0 {
		if err := w.turn(ctx, watch.C, stopped); err != nil {
			return err
		}
		w.retire()
	}
	return nil
}

// turn handles one thing that happens.
func (w *Worker) turn(ctx context.Context, watch <-chan time.Time, stopped <-chan error) error {
	w.encoding.awake(time.Now())
	entries := w.queue
	if w.log.unread || w.Backfill && w.encoding.busy() {
		entries = nil
	}
	select {
	case e, ok := <-entries:
		if ok {
			return w.take(ctx, e)
		}
		return w.readerEnded(<-stopped)
	case c := <-w.commands:
		c.reply <- w.obey(ctx, c)
	case o := <-w.encoding.outputs:
		if r := w.encoding.encoded(ctx, o); r != nil {
			w.noteCaughtUp(r)
		}
	case f := <-w.sound.frames:
		w.sound.encoded(ctx, f)
	case <-w.sound.again():
		w.sound.transcode.start(ctx)
	case <-w.encoding.spareAt:
		w.encoding.startSpares(ctx)
	case now := <-watch:
		w.encoding.watch(now)
		w.sound.watch(now)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// readerEnded handles that the log can't be read any more.
func (w *Worker) readerEnded(err error) error {
	w.log.unread = true
	switch {
	case w.log.over && errors.Is(err, logread.ErrEnded):
		w.sound.complete()
	case w.log.over: // it broke off
		w.sound.drop()
	case w.Lost == nil:
		return err
	default:
		w.Lost(err)
	}
	return nil
}

// take handles one entry of the log.
func (w *Worker) take(ctx context.Context, e relay.Entry) error {
	if w.log.closed {
		return nil
	}
	if w.log.settings == nil && e.Settings == nil {
		if len(w.log.early) >= maxLead {
			return fmt.Errorf("the log has no settings within %d entries", maxLead)
		}
		w.log.early = append(w.log.early, e)
		return nil
	}
	w.log.tail.Add(e)
	switch {
	case e.Settings != nil:
		return w.settle(ctx, e.Settings)
	case e.Codec != nil && e.Codec.Kind() == media.Video:
		return w.encoding.configure(e.Codec, *w.log.settings)
	case e.Codec != nil:
		return w.sound.configure(ctx, e.Codec, *w.log.settings)
	case e.Mark != nil:
		w.markRead(ctx, *e.Mark)
	case e.Unit != nil:
		w.consumed.Add(1)
		if e.Unit.Track == media.Video {
			w.takeVideo(ctx, e.Unit)
		} else {
			w.sound.take(ctx, e.Unit)
		}
	}
	return nil
}

// settle takes the broadcast's settings, and then what came before them.
func (w *Worker) settle(ctx context.Context, s *relay.Settings) error {
	w.log.settings = s
	early := w.log.early
	w.log.early = nil
	w.announce()
	for _, e := range early {
		if err := w.take(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// markRead ends the segment before a mark and begins the one after it.
func (w *Worker) markRead(ctx context.Context, m relay.Mark) {
	w.log.last = &m
	s := w.segments.current
	broken := s != nil && (m.Kind != relay.Open || m.Discontinuity != s.tl.mark.Discontinuity)
	if s != nil {
		s.tl.close(m.Start)
		s.advance()
		w.encoding.finish(s)
	}
	if broken {
		w.sound.complete()
	}
	w.segments.current = nil
	past := w.Until > 0 && m.Sequence >= w.Until
	switch {
	case w.log.over:
		if w.sound.transcode == nil { // what is encoded comes later: what follows it completes it
			w.sound.complete()
		}
	case m.Kind == relay.End:
		w.log.over = true
		w.announce()
		w.out.end(m.Sequence)
	case m.Kind == relay.Pause:
		w.log.over = past
		if m.Sequence >= w.From {
			w.out.pause(m.Sequence)
		}
	case past:
		w.log.over = true
	default:
		w.encoding.marked(m)
		if m.Sequence >= w.From {
			w.open(ctx, m)
		}
	}
}

// open begins a segment.
func (w *Worker) open(ctx context.Context, m relay.Mark) {
	settings := w.log.settings
	if settings.Video && w.encoding.codec == nil || settings.Audio && w.sound.codec == nil {
		w.Log.Error("a segment can't be made: the log lacks a configuration", "sequence", m.Sequence)
		return
	}
	if settings.Audio {
		m.AudioStart = w.sound.startOf(m)
	}
	s := &segment{tl: newTimeline(m, *settings)}
	if settings.Video {
		w.encoding.open(s)
	}
	if settings.Audio {
		w.sound.open(s)
	}
	w.segments.open(s)
	if w.log.opened.IsZero() {
		w.log.first, w.log.opened = m.Start, time.Now()
	}
	w.announce()
	if s.video && !m.Held { // held pictures are encoded once those are here that they are made of
		w.encoding.begin(ctx, s)
	}
	w.sound.takeLead(ctx)
}

// takeVideo handles one picture of the source.
func (w *Worker) takeVideo(ctx context.Context, u *media.Unit) {
	if w.log.over {
		return
	}
	s := w.segments.current
	w.encoding.take(ctx, s, u, w.log.tail.Last())
	if s != nil && s.source != nil && s.made == 0 {
		w.noteCaughtUp(s.source)
	}
}

// noteCaughtUp notes when the first rung is where the log is: that is when
// viewers see the first new picture after a takeover.
func (w *Worker) noteCaughtUp(r *rendering) {
	if w.caughtUp || r.next == 0 || r.reached()+2*r.tl.limit < w.log.tail.Last() {
		return
	}
	w.caughtUp = true
	took := time.Since(w.Started)
	if w.Grant.Index && !w.Backfill && w.log.opened.Sub(w.Started) < plannedAfter {
		w.Metrics.takeover.Observe(took.Seconds())
		w.Log.Info("first new part after a takeover", "rendition", r.entry.Rendition, "sequence", r.tl.mark.Sequence, "took", took.Round(time.Millisecond))
	}
	if w.CaughtUp != nil {
		w.CaughtUp()
	}
}

// retire forgets segments that are done, in order.
func (w *Worker) retire() {
	l := w.segments
	for len(l.list) > 0 && l.list[0].done() {
		w.encoding.judge(l.list[0], time.Now())
		if !l.list[0].partial {
			w.finished.Store(max(w.finished.Load(), l.list[0].tl.mark.Sequence+1))
		}
		l.list = l.list[1:]
	}
	w.unmade.Store(int64(l.unmade()))
}

// shortAnnounce stands for the seconds of sound behind the first guess of its bitrate.
const shortAnnounce = 1

// announce tells what the broadcast consists of, as soon as it is settled.
func (w *Worker) announce() {
	settings := w.log.settings
	if w.out.announced || settings == nil || settings.TargetDuration == 0 || w.log.opened.IsZero() {
		return
	}
	b := index.Broadcast{
		TargetDuration: settings.TargetDuration, PartTarget: settings.PartTarget,
		PartHoldBack: settings.PartHoldBack, Started: settings.Started,
	}
	span := max(0.5, (w.log.tail.Last() - w.log.first).Seconds())
	if settings.Video {
		b.Renditions = w.encoding.renditions(span)
	} else {
		span = shortAnnounce
	}
	if settings.Audio {
		b.Renditions = append(b.Renditions, w.sound.rendition(span))
	}
	w.out.broadcast(b)
}
