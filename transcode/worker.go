package transcode

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/relay"
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

// announcer is where a worker's media goes: the publication, or a test's record of it.
type announcer interface {
	broadcast(index.Broadcast)
	init(rendition string, init *media.Init, e index.Entry)
	deliver
}

// deliver takes parts, segments and what else a worker has to say.
type deliver interface {
	part(e index.Entry, data []byte) error
	finish(last index.Entry, data []byte, segment index.Entry) error
	gap(e index.Entry)
	pause(sequence uint64, reason string)
	end(sequence uint64, reason string)
	thumbnail(jpeg []byte)
}

// workerConfig is what one worker needs.
type workerConfig struct {
	Grant   jobs.Grant
	FFmpeg  *ffmpeg
	Preset  string
	Ladder  []rungSpec
	Budget  *budget
	Publish announcer
	Metrics *metrics
	Log     *slog.Logger
}

// worker makes the renditions of one broadcast from its log. The goroutine of
// run owns everything in it but the counters.
type worker struct {
	workerConfig
	// consumed counts access units read; finished is the first segment that
	// isn't complete in every rendition.
	consumed, finished atomic.Uint64

	settings   *relay.Settings
	video      *media.AVCConfig
	source     *media.AACConfig // of the source's sound
	audio      *media.AACConfig // of the rendition's: the same, unless it is of an odd kind
	videoInit  *media.Init
	audioInit  *media.Init
	early      []logEvent          // what came before the settings
	lead       []*media.AccessUnit // sound that came before the first mark
	gop        []*media.AccessUnit // pictures since the IDR that decoding starts at
	freshGOP   bool                // the next picture is that IDR
	shift      media.Ticks         // its composition time
	lastVideo  media.Ticks         // the last picture's shifted decode time
	sourceSize int                 // bytes of pictures so far
	soundSize  int                 // bytes of sound so far
	segments   []*segment          // those that aren't done, oldest first
	current    *segment            // the one that the log is in, or nil
	opened     bool                // a segment was begun
	firstStart media.Ticks         // of it
	announced  bool
	held       []func() // published once the broadcast is announced
	ended      bool     // the log's end was read

	encoding encoding
	sound    *soundEncoder // set while the sound is of an odd kind
	sounds   chan soundFrame
	ending   []*process // of sound, that were discarded
}

// segment is one that is being made.
type segment struct {
	tl     *timeline
	source *rendering // nil without pictures
	audio  *rendering // nil without sound
	rungs  []*rungWork
	// pictures are those that the rungs are made of, from the IDR on.
	pictures []*media.AccessUnit
	config   *media.AVCConfig
}

func newWorker(c workerConfig) *worker {
	w := &worker{workerConfig: c}
	w.finished.Store(c.Grant.Live)
	w.encoding.outputs = make(chan output, 64)
	w.encoding.using = map[*encoder]*encodingRun{}
	w.sounds = make(chan soundFrame, 64)
	return w
}

// run consumes the log until its end and until everything is published, or
// until reading fails or ctx ends. read sends to its channel what the log says
// and returns why it stopped.
func (w *worker) run(ctx context.Context, read func(context.Context, chan<- logEvent) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	queue := make(chan logEvent, 64)
	stopped := make(chan error, 1)
	go func() {
		err := read(ctx, queue)
		close(queue)
		stopped <- err
	}()
	events := queue // nil once it is read to its end
	defer func() {
		cancel(nil)
		for range queue { // until the reader has ended
		}
		w.discardEncoders()
		w.endSound()
		for _, p := range w.ending {
			p.running.Wait()
		}
	}()
	for {
		if w.ended && len(w.segments) == 0 {
			return nil
		}
		select {
		case e, ok := <-events:
			if !ok {
				if err := <-stopped; !w.ended {
					return err
				}
				events = nil
				continue
			}
			if err := w.take(ctx, e); err != nil {
				return err
			}
		case o := <-w.encoding.outputs:
			w.encoded(ctx, o)
		case f := <-w.sounds:
			w.soundEncoded(ctx, f)
		case <-w.encoding.spareAt:
			w.encoding.spareAt = nil
			w.startSpares(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take handles one event of the log.
func (w *worker) take(ctx context.Context, e logEvent) error {
	if w.settings == nil && e.settings == nil {
		if len(w.early) >= maxLead {
			return fmt.Errorf("the log has no settings within %d entries", maxLead)
		}
		w.early = append(w.early, e)
		return nil
	}
	var err error
	switch {
	case e.settings != nil:
		w.settings = e.settings
		early := w.early
		w.early = nil
		w.announce()
		for _, e := range early {
			if err := w.take(ctx, e); err != nil {
				return err
			}
		}
	case e.video != nil:
		err = w.setVideo(e.video)
	case e.audio != nil:
		err = w.setAudio(ctx, e.audio)
	case e.mark != nil:
		w.markRead(ctx, *e.mark)
	case e.unit != nil:
		w.consumed.Add(1)
		if e.unit.Kind == media.Video {
			w.takeVideo(e.unit)
		} else {
			w.takeAudio(e.unit)
		}
	}
	return err
}

func (w *worker) setVideo(c *media.AVCConfig) (err error) {
	if w.video != nil && string(w.video.Record) == string(c.Record) {
		return nil
	}
	w.video = c
	w.videoInit, err = media.VideoInit(c)
	w.planRungs()
	return err
}

// markRead ends the segment before a mark and begins the one after it.
func (w *worker) markRead(ctx context.Context, m relay.Mark) {
	broken := w.current != nil && (m.Kind != relay.Open || m.Discontinuity != w.current.tl.mark.Discontinuity)
	if s := w.current; s != nil {
		s.tl.close(m.Start)
		s.advance()
		w.finishEncoding(s)
	}
	if broken {
		// Nothing more comes for what was before the break.
		for _, s := range w.segments {
			if s.audio != nil {
				s.audio.advance(true)
			}
		}
	}
	w.current = nil
	switch m.Kind {
	case relay.Pause:
		w.emit(func() { w.Publish.pause(m.Sequence, "the publisher lost the connection") })
	case relay.End:
		w.ended = true
		w.announce()
		w.emit(func() { w.Publish.end(m.Sequence, "the broadcast ended") })
	case relay.Open:
		if m.Independent() {
			w.gop, w.freshGOP = nil, true
		}
		if m.Sequence >= w.Grant.Backfill {
			w.open(ctx, m)
		}
	}
	w.retire()
}

// open begins a segment.
func (w *worker) open(ctx context.Context, m relay.Mark) {
	if w.sound != nil {
		m.AudioStart = soundGrid(m.Start)
	}
	s := &segment{tl: newTimeline(m, *w.settings), config: w.video}
	if w.settings.Video && w.video == nil || w.settings.Audio && w.audio == nil {
		w.Log.Error("a segment can't be made: the log lacks a configuration", "sequence", m.Sequence)
		return
	}
	if w.settings.Video {
		s.source = newRendering(s.tl, w.Grant.Epoch, sourceName, w.videoInit.Hash, sourceProfile(), media.VideoTimescale, 1)
		s.source.publish = w.publisher(s, sourceName)
		w.announceInit(sourceName, w.videoInit, index.Entry{Epoch: m.Epoch, Codec: w.video.Codec, Width: w.video.Width, Height: w.video.Height})
	}
	if w.settings.Audio {
		s.audio = newRendering(s.tl, w.Grant.Epoch, audioName, w.audioInit.Hash, sourceProfile(), w.audio.Rate, 0)
		s.audio.publish = w.put
		w.announceInit(audioName, w.audioInit, index.Entry{Epoch: m.Epoch, Codec: w.audio.Codec()})
		if !w.settings.Video {
			s.tl.nominal = media.Samples(media.AACFrameSamples).Ticks(w.audio.Rate)
		}
	}
	if n := len(w.segments); n > 0 && s.audio != nil && w.segments[n-1].tl.mark.Discontinuity == m.Discontinuity {
		s.audio.frames = w.segments[n-1].audio.takeFrom(int64(m.AudioStart))
	}
	w.current = s
	w.segments = append(w.segments, s)
	if !w.opened {
		w.opened, w.firstStart = true, m.Start
	}
	w.announce()
	if s.source != nil {
		w.beginEncoding(ctx, s)
	}
	lead := w.lead
	w.lead = nil
	for _, u := range lead {
		w.takeAudio(u)
	}
}

// takeVideo handles one picture of the source.
func (w *worker) takeVideo(u *media.AccessUnit) {
	if w.freshGOP {
		w.freshGOP = false
		w.shift = u.PTS - u.DTS
	}
	// Decode times are shifted by the IDR's composition time, so that a
	// segment's first one is its start and all renditions' times align.
	at := max(u.DTS+w.shift, w.lastVideo+1)
	w.lastVideo = at
	w.gop = append(w.gop, u)
	s := w.current
	if s == nil || s.source == nil {
		return
	}
	w.sourceSize += len(u.Payload)
	s.tl.add(at)
	s.source.add(frame{time: int64(at), at: at, offset: int32(u.PTS - at), idr: u.IDR, payload: u.Payload})
	w.feed(s, u)
	s.advance()
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
func (w *worker) retire() {
	for len(w.segments) > 0 && w.segments[0].done() {
		w.finished.Store(max(w.finished.Load(), w.segments[0].tl.mark.Sequence+1))
		w.segments = w.segments[1:]
	}
}

// announce tells what the broadcast consists of, as soon as it is settled.
func (w *worker) announce() {
	if w.announced || w.settings == nil || w.settings.TargetDuration == 0 || !w.opened {
		return
	}
	w.announced = true
	b := index.Broadcast{
		TargetDuration: w.settings.TargetDuration, PartTarget: w.settings.PartTarget,
		PartHoldBack: w.settings.PartHoldBack, Started: w.settings.Started,
	}
	span := max(0.5, (w.lastVideo - w.firstStart).Seconds())
	if w.settings.Video {
		b.Renditions = append(b.Renditions, index.Rendition{
			Name: sourceName, Kind: media.Video, Source: true, Codec: w.video.Codec,
			Width: w.video.Width, Height: w.video.Height, FrameRate: w.settings.FrameRate,
			MaxBitrate: int(float64(w.sourceSize) * 8 / span * bitrateHeadroom),
		})
		for _, r := range w.encoding.rungs {
			b.Renditions = append(b.Renditions, index.Rendition{
				Name: r.Name, Kind: media.Video, Codec: "avc1.64001f", // until its init says better
				Width: r.Width, Height: r.Height, FrameRate: r.FrameRate, MaxBitrate: r.Bitrate,
			})
		}
	}
	if w.settings.Audio {
		if !w.settings.Video {
			span = float64(shortAnnounce)
		}
		b.Renditions = append(b.Renditions, index.Rendition{
			Name: audioName, Kind: media.Audio, Source: true, Codec: w.audio.Codec(),
			Channels: w.audio.Channels, MaxBitrate: max(64_000, int(float64(w.soundSize)*8/span*bitrateHeadroom)),
		})
	}
	w.Publish.broadcast(b)
	for _, publish := range w.held {
		publish()
	}
	w.held = nil
}

// shortAnnounce stands for the seconds of sound behind the first guess of its bitrate.
const shortAnnounce = 1

// emit publishes now, or once the broadcast is announced.
func (w *worker) emit(publish func()) {
	if w.announced {
		publish()
		return
	}
	w.held = append(w.held, publish)
}

func (w *worker) announceInit(rendition string, init *media.Init, e index.Entry) {
	e.Type, e.Rendition, e.Init, e.Writer = index.TypeInit, rendition, init.Hash, w.Grant.Epoch
	w.emit(func() { w.Publish.init(rendition, init, e) })
}

// put publishes a part and, with the last one, its segment.
func (w *worker) put(part index.Entry, data []byte, segment index.Entry) {
	w.emit(func() {
		var err error
		if segment.Type == "" {
			err = w.Publish.part(part, data)
		} else {
			err = w.Publish.finish(part, data, segment)
		}
		if err != nil {
			w.Log.Error("a part was not published", "rendition", part.Rendition, "sequence", part.Sequence, "part", part.Part, "err", err)
		}
	})
}

// publisher returns what a rendition of the segment publishes by: it puts the
// same media under the names of the rungs that it stands in for.
func (w *worker) publisher(s *segment, rendition string) func(index.Entry, []byte, index.Entry) {
	return func(part index.Entry, data []byte, segment index.Entry) {
		w.put(part, data, segment)
		for _, shed := range s.shedFor(rendition) {
			part.Rendition, segment.Rendition = shed.rung.Name, shed.rung.Name
			w.put(part, data, segment)
			shed.done = segment.Type != ""
		}
	}
}
