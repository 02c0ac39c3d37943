package encode

import (
	"context"
	"strings"
	"time"

	"millrace/internal/flv"
	"millrace/internal/matroska"
	"millrace/internal/media"
)

// The format that odd AAC is encoded to: every player takes it.
const (
	soundRate    = 48000
	soundBitrate = "160k"
)

// soundCodec is that of what is encoded.
var soundCodec = media.StereoAAC()

// soundArgs are FFmpeg's arguments for odd AAC (HE-AAC, more than two
// channels) in as Matroska and AAC-LC out as FLV. Losses are filled with silence.
func soundArgs() []string {
	return strings.Fields("-hide_banner -nostats -loglevel error -nostdin -protocol_whitelist pipe" +
		" -probesize 32 -analyzeduration 0 -threads 1 -copyts -f matroska -i pipe:0" +
		" -filter_threads 1 -map 0:a -af aresample=async=1 -c:a aac -ar 48000 -ac 2 -b:a " + soundBitrate +
		" -map_metadata -1 -fflags +bitexact -f flv -flvflags no_duration_filesize+no_sequence_end+no_metadata" +
		" -avoid_negative_ts disabled -flush_packets 1 -muxdelay 0 -muxpreload 0 pipe:3")
}

// soundLead keeps the first timestamps that the encoder writes above 0: its
// first frame begins before the first sample.
const soundLead = media.VideoTimescale

// soundEncoder is the process that encodes a broadcast's odd AAC. It runs for
// as long as the worker does: encoding that starts afresh would click. So this
// rendition, alone, has other bytes when another worker makes it.
type soundEncoder struct {
	*process
	base     media.Ticks // of the first frame fed, and soundLead before it
	newest   media.Ticks // of the frames fed
	fed      bool
	answered bool
	pulse    pulse
}

// soundFrame is one encoded frame at its place on the grid of soundRate.
type soundFrame struct {
	encoder *soundEncoder
	at      media.Ticks // as the encoder says, to the millisecond
	payload []byte
	exit    *exit
}

// startSound starts an encoder for sound of configuration c.
func (f *FFmpeg) startSound(ctx context.Context, c *media.Codec, out chan<- soundFrame) (*soundEncoder, error) {
	p, readers, err := f.start(ctx, soundArgs(), 1)
	if err != nil {
		return nil, err
	}
	e := &soundEncoder{process: p}
	e.put(matroska.Header(c))
	send := func(s soundFrame) bool {
		s.encoder = e
		select {
		case out <- s:
			return true
		case <-ctx.Done():
			return false
		}
	}
	e.running.Go(func() {
		if r := readers[0]; flv.ReadHeader(r) == nil {
			for {
				t, err := flv.ReadTag(r)
				if err != nil {
					break
				}
				a, err := flv.ParseAudio(t.Payload)
				if t.Type != flv.TagAudio || err != nil || a.Kind != flv.Frame {
					continue
				}
				if !send(soundFrame{at: media.Ticks(t.Timestamp) * media.TicksPerMillisecond, payload: a.Data}) {
					break
				}
			}
		}
		closeAll(readers)
		x := e.wait()
		send(soundFrame{exit: &x})
		e.stop(nil)
	})
	return e, nil
}

// frame gives one frame of the source to the encoder.
func (e *soundEncoder) frame(u *media.Unit) {
	if !e.fed {
		e.fed, e.base = true, u.DTS-soundLead
	}
	e.newest = u.DTS
	e.pulse.fed(time.Now())
	e.put(matroska.AppendUnit(make([]byte, 0, len(u.Payload)+matroska.Overhead), max(0, u.DTS-e.base), true, u.Payload))
}

// soundGrid returns the first place that isn't before t.
func soundGrid(t media.Ticks) media.Samples {
	return soundCodec.Grid(0).AtOrAfter(t)
}

// setAudio prepares for sound of another configuration.
func (w *Worker) setAudio(ctx context.Context, c *media.Codec) (err error) {
	if c.Equal(w.source) {
		return nil
	}
	w.source, w.audio = c, c
	w.endSound()
	if !c.Universal {
		w.audio = soundCodec
		w.Log.Info("sound of an odd kind is encoded to AAC-LC, 48 kHz, stereo", "rate", c.Rate, "channels", c.Channels)
		w.odd = &oddSound{config: c}
		w.startSound(ctx)
	}
	w.audioInit, err = w.audio.Init()
	return err
}

// takeAudio handles one frame of the source's sound: it lies on the grid that
// the marks give, and its own time is exact to the millisecond only.
func (w *Worker) takeAudio(ctx context.Context, u *media.Unit) {
	if w.odd != nil {
		w.takeOdd(ctx, u)
		return
	}
	if len(w.segments) == 0 {
		if w.current == nil {
			w.lead = append(w.lead, u)
			if len(w.lead) > maxLead {
				w.lead = w.lead[1:]
			}
		}
		return
	}
	start := w.segments[len(w.segments)-1].tl.mark.AudioStart
	w.placeAudio(nil, w.audio.Grid(start).Nearest(u.DTS), u.Payload)
}

// placeAudio gives a frame of sound, odd or (nil) plain, to the segment that its
// first sample is in. Sound comes in order: segments before that one get no more.
func (w *Worker) placeAudio(odd *oddSound, sample media.Samples, payload []byte) {
	for i := len(w.segments) - 1; i >= 0; i-- {
		s := w.segments[i]
		if s.audio == nil || s.odd != odd || sample < s.tl.mark.AudioStart {
			continue
		}
		w.soundSize += len(payload)
		at := sample.Ticks(s.audio.grid.Rate)
		if !w.settings.Video {
			s.tl.add(at)
		}
		for _, old := range w.segments[:i] {
			if old.audio != nil && old.tl.closed {
				old.audio.advance(true)
			}
		}
		s.audio.add(frame{time: int64(sample), at: at, idr: true, payload: payload})
		s.audio.advance(false)
		w.retire()
		return
	}
}
