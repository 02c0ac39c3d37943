// Package encode makes the renditions of one broadcast from its log: a worker
// repackages the source, has FFmpeg encode the lower rungs, and cuts everything
// into CMAF segments and parts, which it hands to a [Publisher]. It knows nothing
// of where they are kept.
package encode

import (
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
	Warm   *Pool // nil: no encoders are kept for takeovers
	Preset string
	Ladder []RungSpec
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

// Worker makes the renditions of one broadcast from its log. The goroutine of
// run owns everything in it but the counters.
type Worker struct {
	Config
	// consumed counts access units read; finished is the first segment that
	// isn't complete in every rendition.
	consumed, finished atomic.Uint64
	shed               atomic.Int64 // rungs that aren't made now
	// unmade counts the segments that were cut and aren't published whole.
	unmade atomic.Int64
	calls  chan func(context.Context)
	gone   chan struct{} // closed when run has returned

	settings   *relay.Settings
	video      *media.Codec
	source     *media.Codec // of the source's sound
	audio      *media.Codec // of the rendition's: the same, unless it is of an odd kind
	videoInit  *media.Init
	audioInit  *media.Init
	early      []relay.Entry // what came before the settings
	lead       []*media.Unit // sound that came before the first mark
	gop        []*media.Unit // pictures since the IDR that decoding starts at
	tail       relay.Tail    // where the log ends that was taken
	sourceSize int           // bytes of pictures so far
	soundSize  int           // bytes of sound so far
	segments   []*segment    // those that aren't done, oldest first
	current    *segment      // the one that the log is in, or nil
	opened     bool          // a segment was begun
	firstStart media.Ticks   // of it
	openedAt   time.Time     // when that was
	announced  bool
	held       []func() // published once the broadcast is announced
	over       bool     // no further segment is opened
	closed     bool     // nor is anything more taken from the log
	caughtUp   bool
	looked     time.Time   // when run last went round
	stood      time.Time   // when it last found that the process had stood still
	last       *relay.Mark // the newest one read
	queue      chan relay.Entry

	encoding encoding
	odd      *oddSound // set while the sound is of an odd kind
	sounds   chan soundFrame
	hearing  map[*soundEncoder]struct{} // those that haven't ended
}

// segment is one that is being made.
type segment struct {
	tl     *timeline
	source *rendering // nil without pictures
	audio  *rendering // nil without sound
	odd    *oddSound  // what its sound is of; nil if that is plain
	rungs  []*rungWork
	runs   []*encodingRun
	made   int  // how many of the rungs are encoded, from the lowest on
	burst  bool // it came from the log faster than real time
	// partial is set when sound was given up of which not all came.
	partial bool
	// pictures are those that the rungs are made of, from the IDR on.
	pictures []*media.Unit
	config   *media.Codec
}

// New prepares a worker; Run starts it.
func New(c Config) *Worker {
	w := &Worker{Config: c}
	w.calls = make(chan func(context.Context))
	w.gone = make(chan struct{})
	w.queue = make(chan relay.Entry, 64)
	w.finished.Store(c.From)
	w.encoding.outputs = make(chan output, 64)
	w.encoding.using = map[*encoder]*encodingRun{}
	w.sounds = make(chan soundFrame, 64)
	w.hearing = map[*soundEncoder]struct{}{}
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
		w.discardEncoders()
		w.endSound()
		for e := range w.hearing {
			e.running.Wait()
		}
	}()
	watch := time.NewTicker(watchInterval)
	defer watch.Stop()
	reading := true
	for {
		if w.over && len(w.segments) == 0 {
			return nil
		}
		now := time.Now()
		if !w.looked.IsZero() && now.Sub(w.looked) > watchInterval+stoodStill {
			w.stood = now
		}
		w.looked = now
		events := w.queue
		if !reading || w.Backfill && w.encoding.busy() {
			events = nil
		}
		select {
		case e, ok := <-events:
			if ok {
				if err := w.take(ctx, e); err != nil {
					return err
				}
				continue
			}
			reading = false
			err := <-stopped
			switch {
			case w.over && errors.Is(err, logread.ErrEnded):
				w.endAudio()
				w.retire()
			case w.over: // it broke off
				w.dropSound()
				w.retire()
			case w.Lost == nil:
				return err
			default:
				w.Lost(err)
			}
		case call := <-w.calls:
			call(ctx)
		case o := <-w.encoding.outputs:
			w.encoded(ctx, o)
		case f := <-w.sounds:
			w.soundEncoded(ctx, f)
		case <-w.soundAgain():
			w.startSound(ctx)
		case <-w.encoding.spareAt:
			w.encoding.spareAt = nil
			w.startSpares(ctx)
		case now := <-watch.C:
			w.watchEncoders(now)
			w.watchSound(now)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take handles one event of the log.
func (w *Worker) take(ctx context.Context, e relay.Entry) error {
	if w.closed {
		return nil
	}
	if w.settings == nil && e.Settings == nil {
		if len(w.early) >= maxLead {
			return fmt.Errorf("the log has no settings within %d entries", maxLead)
		}
		w.early = append(w.early, e)
		return nil
	}
	w.tail.Add(e)
	var err error
	switch {
	case e.Settings != nil:
		w.settings = e.Settings
		early := w.early
		w.early = nil
		w.announce()
		for _, e := range early {
			if err := w.take(ctx, e); err != nil {
				return err
			}
		}
	case e.Codec != nil && e.Codec.Kind() == media.Video:
		err = w.setVideo(e.Codec)
	case e.Codec != nil:
		err = w.setAudio(ctx, e.Codec)
	case e.Mark != nil:
		w.markRead(ctx, *e.Mark)
	case e.Unit != nil:
		w.consumed.Add(1)
		if e.Unit.Track == media.Video {
			w.takeVideo(e.Unit)
		} else {
			w.takeAudio(ctx, e.Unit)
		}
	}
	return err
}

func (w *Worker) setVideo(c *media.Codec) (err error) {
	if c.Equal(w.video) {
		return nil
	}
	w.video = c
	w.videoInit, err = c.Init()
	w.planRungs()
	return err
}

// markRead ends the segment before a mark and begins the one after it.
func (w *Worker) markRead(ctx context.Context, m relay.Mark) {
	w.last = &m
	broken := w.current != nil && (m.Kind != relay.Open || m.Discontinuity != w.current.tl.mark.Discontinuity)
	if s := w.current; s != nil {
		s.tl.close(m.Start)
		s.advance()
		w.finishEncoding(s)
	}
	if broken {
		w.endAudio()
	}
	w.current = nil
	past := w.Until > 0 && m.Sequence >= w.Until
	switch {
	case w.over:
		if w.odd == nil { // odd sound comes later: what follows it completes it
			w.endAudio()
		}
	case m.Kind == relay.End:
		w.over = true
		w.announce()
		w.emit(func() { w.Publish.End(m.Sequence, "the broadcast ended") })
	case m.Kind == relay.Pause:
		w.over = past
		if m.Sequence >= w.From {
			w.emit(func() { w.Publish.Pause(m.Sequence, reasonLost) })
		}
	case past:
		w.over = true
	default:
		if m.Independent() {
			w.gop = nil
		}
		if m.Sequence >= w.From {
			w.open(ctx, m)
		}
	}
	w.retire()
}

// reasonLost is why there is a pause.
const reasonLost = "the publisher lost the connection"

// endAudio says that no more sound comes for the segments that there are.
func (w *Worker) endAudio() {
	for _, s := range w.segments {
		if s.audio != nil && s.tl.closed {
			w.endAudioOf(s)
		}
	}
}

func (w *Worker) endAudioOf(s *segment) {
	if s.odd != nil {
		w.fillSound(s.odd, soundGrid(s.tl.end))
	}
	s.audio.advance(true)
}

// open begins a segment.
func (w *Worker) open(ctx context.Context, m relay.Mark) {
	if w.odd != nil {
		m.AudioStart = soundGrid(m.Start)
	}
	s := &segment{tl: newTimeline(m, *w.settings), config: w.video, odd: w.odd}
	if w.settings.Video && w.video == nil || w.settings.Audio && w.audio == nil {
		w.Log.Error("a segment can't be made: the log lacks a configuration", "sequence", m.Sequence)
		return
	}
	if w.settings.Video {
		s.source = newRendering(s.tl, w.Grant.Epoch, sourceName, w.videoInit.Hash, SourceProfile(), 1)
		s.source.publish = w.publisher(s, sourceName)
		w.announceInit(sourceName, w.videoInit, index.Entry{Epoch: m.Epoch, Codec: w.video.Name, Width: w.video.Width, Height: w.video.Height})
	}
	if w.settings.Audio {
		s.audio = newSound(s.tl, w.Grant.Epoch, audioName, w.audioInit.Hash, w.soundProfile(), w.audio)
		s.audio.publish = w.put
		w.announceInit(audioName, w.audioInit, index.Entry{Epoch: m.Epoch, Codec: w.audio.Name})
		if !w.settings.Video {
			s.tl.nominal = w.audio.Step()
		}
	}
	if n := len(w.segments); n > 0 && s.audio != nil && w.segments[n-1].tl.mark.Discontinuity == m.Discontinuity {
		s.audio.frames = w.segments[n-1].audio.takeFrom(int64(m.AudioStart))
	}
	w.current = s
	w.segments = append(w.segments, s)
	if !w.opened {
		w.opened, w.firstStart, w.openedAt = true, m.Start, time.Now()
	}
	w.announce()
	if s.source != nil {
		w.beginEncoding(ctx, s)
	}
	lead := w.lead
	w.lead = nil
	for _, u := range lead {
		w.takeAudio(ctx, u)
	}
}

// takeVideo handles one picture of the source.
func (w *Worker) takeVideo(u *media.Unit) {
	at := w.tail.Last() // of this picture, shifted as its segment's start is
	if w.over {
		return
	}
	w.gop = append(w.gop, u)
	s := w.current
	if s == nil || s.source == nil {
		return
	}
	w.sourceSize += len(u.Payload)
	s.tl.add(at)
	s.source.add(frame{time: int64(at), at: at, offset: int32(u.PTS - at), idr: u.RandomAccess, payload: u.Payload})
	w.feed(s, u)
	s.advance()
	if s.made == 0 {
		w.noteCaughtUp(s.source)
	}
}

// advance writes what is settled of all renditions.
func (s *segment) advance() {
	if s.source != nil {
		s.source.advance(s.tl.closed)
	}
	if s.audio != nil {
		s.audio.advance(false)
	}
	for _, r := range s.rungs {
		r.advance(false)
	}
}

func (s *segment) done() bool {
	if !s.tl.closed || s.source != nil && !s.source.done || s.audio != nil && !s.audio.done {
		return false
	}
	for _, r := range s.rungs {
		if !r.done {
			return false
		}
	}
	return true
}

// retire forgets segments that are done, in order.
func (w *Worker) retire() {
	for len(w.segments) > 0 && w.segments[0].done() {
		if !w.segments[0].partial {
			w.finished.Store(max(w.finished.Load(), w.segments[0].tl.mark.Sequence+1))
		}
		w.segments = w.segments[1:]
	}
	unmade := len(w.segments)
	if w.current != nil {
		unmade--
	}
	w.unmade.Store(int64(unmade))
}
