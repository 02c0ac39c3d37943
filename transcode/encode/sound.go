package encode

import (
	"context"
	"time"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/relay"
)

// sound makes the rendition of sound: as it comes, where every player can play
// that, or encoded by a [soundTranscode]. It belongs to the worker's goroutine.
type sound struct {
	*Config
	out      *announcer
	segments *segments

	source *media.Codec // in the log
	codec  *media.Codec // of the rendition
	header *media.Init  // of the rendition
	lead   []*media.Unit
	size   int // bytes so far
	// transcode is nil while sound is repackaged.
	transcode *soundTranscode
	frames    chan soundFrame
	running   map[*soundEncoder]struct{} // encoders that haven't ended
}

func newSound(c *Config, out *announcer, l *segments) *sound {
	return &sound{Config: c, out: out, segments: l, frames: make(chan soundFrame, 64), running: map[*soundEncoder]struct{}{}}
}

// configure prepares for sound in another codec; there is nothing to do where the
// settings say that there is none. Sound whose frames last longer than parts have room
// for since the broadcast began is encoded, too.
func (s *sound) configure(ctx context.Context, c *media.Codec, settings relay.Settings) (err error) {
	if c.Equal(s.source) || !settings.Audio {
		return nil
	}
	long := settings.Video && settings.PartDuration+c.Step() > settings.PartTarget
	s.source, s.codec = c, c
	s.stop()
	if !c.Universal || long {
		s.codec = soundCodec
		s.Log.Info("sound that not every player can play is encoded to AAC-LC, 48 kHz, stereo", "codec", c.Name, "variety", c.Variety, "rate", c.Rate, "channels", c.Channels)
		s.transcode = &soundTranscode{sound: s, codec: c}
		s.transcode.start(ctx)
	}
	s.header, err = s.codec.Init()
	return err
}

// startOf returns where a segment's sound begins in the rendition.
func (s *sound) startOf(m relay.Mark) media.Samples {
	if s.transcode != nil {
		return soundGrid(m.Start)
	}
	return m.AudioStart
}

// open prepares a segment's sound, with what has come of it before its mark.
func (s *sound) open(to *segment) {
	to.transcode = s.transcode
	to.audio = newSoundRendering(to.tl, s.Grant.Epoch, audioName, s.header.Hash, s.profile(), s.codec)
	to.audio.publish = s.out.put
	s.out.init(audioName, s.header, index.Entry{Epoch: to.tl.mark.Epoch, Codec: s.codec.Name})
	if !to.video {
		to.tl.nominal = s.codec.Step()
	}
	if before := s.segments.newest(); before != nil && before.tl.mark.Discontinuity == to.tl.mark.Discontinuity {
		to.audio.frames = before.audio.takeFrom(int64(to.tl.mark.AudioStart))
	}
}

// take handles one frame of the source's sound. It lies on the grid that the
// marks give: its own time may be exact to the millisecond only.
func (s *sound) take(ctx context.Context, u *media.Unit) {
	if s.transcode != nil {
		s.transcode.take(ctx, u)
		return
	}
	newest := s.segments.newest()
	if newest == nil {
		s.lead = append(s.lead, u)
		if len(s.lead) > maxLead {
			s.lead = s.lead[1:]
		}
		return
	}
	if newest.audio == nil {
		return // the settings say that there is none
	}
	s.place(nil, s.codec.Grid(newest.tl.mark.AudioStart).Nearest(u.DTS), u.Payload)
}

// takeLead takes what came before the first mark, once there is a segment.
func (s *sound) takeLead(ctx context.Context) {
	lead := s.lead
	s.lead = nil
	for _, u := range lead {
		s.take(ctx, u)
	}
}

// place gives a frame, made by a transcode or (nil) as it came, to the segment
// that its first sample is in. Sound comes in order: segments before that one get
// no more.
func (s *sound) place(by *soundTranscode, sample media.Samples, payload []byte) {
	list := s.segments.list
	for i := len(list) - 1; i >= 0; i-- {
		to := list[i]
		if to.audio == nil || to.transcode != by || sample < to.tl.mark.AudioStart {
			continue
		}
		s.size += len(payload)
		at := sample.Ticks(to.audio.grid.Rate)
		if !to.video {
			to.tl.add(at)
		}
		for _, old := range list[:i] {
			if old.audio != nil && old.tl.closed {
				old.audio.advance(true)
			}
		}
		to.audio.add(frame{time: int64(sample), at: at, key: true, payload: payload})
		to.audio.advance(false)
		return
	}
}

// complete says that no more sound comes for the segments that are cut.
func (s *sound) complete() {
	for _, of := range s.segments.list {
		if of.audio != nil && of.tl.closed {
			s.completeIn(of)
		}
	}
}

func (s *sound) completeIn(of *segment) {
	if of.transcode != nil {
		of.transcode.fill(soundGrid(of.tl.end))
	}
	of.audio.advance(true)
}

// drop gives up sound that isn't all here: published as it is, it would be
// other bytes under the name that whoever has all of it uses.
func (s *sound) drop() {
	for _, of := range s.segments.list {
		switch {
		case of.audio == nil || of.audio.done || !of.tl.closed:
		case of.transcode != nil: // named by this worker alone
			s.completeIn(of)
		default:
			of.audio.done, of.partial = true, true
		}
	}
}

// rendition is that of sound; span is for how many seconds it has come.
func (s *sound) rendition(span float64) index.Rendition {
	return index.Rendition{
		Name: audioName, Kind: media.Audio, Source: true, Codec: s.codec.Name,
		Channels: s.codec.Channels, MaxBitrate: max(64_000, int(float64(s.size)*8/span*bitrateHeadroom)),
	}
}

// encoded handles what an encoder made: the present one, or an earlier one.
func (s *sound) encoded(ctx context.Context, f soundFrame) {
	t := s.transcode
	current := t != nil && f.encoder == t.encoder
	switch {
	case f.exit != nil:
		f.encoder.running.Wait()
		delete(s.running, f.encoder)
		if current {
			t.died(ctx, f.exit.err)
		}
	case current:
		t.made(f)
	}
}

// watch looks at the encoder, if there is one.
func (s *sound) watch(now time.Time) {
	if s.transcode != nil {
		s.transcode.watch(now)
	}
}

// again tells when an encoder is to be started.
func (s *sound) again() <-chan time.Time {
	if s.transcode == nil {
		return nil
	}
	return s.transcode.again
}

// stop ends the encoder, if there is one.
func (s *sound) stop() {
	if s.transcode != nil && s.transcode.encoder != nil {
		s.transcode.encoder.discard()
	}
	s.transcode = nil
}

// end ends all encoders and waits for them.
func (s *sound) end() {
	s.stop()
	for e := range s.running {
		e.running.Wait()
	}
}
