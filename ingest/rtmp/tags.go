package rtmp

import (
	"errors"
	"time"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// publication takes what an encoder sends, tag by tag.
type publication interface {
	Metadata(m map[string]any)
	Audio(timestamp uint32, payload []byte) error
	Video(timestamp uint32, payload []byte) error
	Pace() time.Duration
	End(clean bool)
}

// tags writes an encoder's FLV tags to a publication of ingest.
type tags struct {
	front.Publication
	codecs [media.Audio + 1]*media.Codec
	clock  clock
}

// Metadata passes on the frame rate that the encoder claims.
func (t *tags) Metadata(m map[string]any) {
	for _, name := range []string{"framerate", "videoframerate"} {
		if rate, ok := m[name].(float64); ok && rate >= 1 && rate <= 240 {
			t.FrameRate(rate)
			return
		}
	}
}

// Video takes the body of an FLV video tag.
func (t *tags) Video(timestamp uint32, payload []byte) error {
	tag, err := media.ParseVideoTag(payload)
	if err != nil {
		return refused(err)
	}
	if tag.Config {
		return t.config(media.H264, tag.Data)
	}
	return t.write(media.Video, timestamp, media.Ticks(tag.CompositionTime)*media.TicksPerMillisecond, tag.Data)
}

// Audio takes the body of an FLV audio tag.
func (t *tags) Audio(timestamp uint32, payload []byte) error {
	tag, err := media.ParseAudioTag(payload)
	if err != nil {
		return refused(err)
	}
	if tag.Config {
		return t.config(media.AAC, tag.Data)
	}
	return t.write(media.Audio, timestamp, 0, tag.Data)
}

// refused turns a codec that isn't taken into a refusal. A tag that makes no sense
// is left out.
func refused(err error) error {
	var codec *media.UnsupportedCodecError
	if errors.As(err, &codec) {
		return front.UnknownCodec(codec.Kind, codec.Name)
	}
	return nil
}

func (t *tags) config(f media.Format, record []byte) error {
	c, err := media.ParseCodec(f, record)
	if err != nil {
		return front.BadConfig(f.Kind(), err)
	}
	t.codecs[c.Kind()] = c
	return t.Config(c)
}

func (t *tags) write(track media.Kind, timestamp uint32, composition media.Ticks, data []byte) error {
	c := t.codecs[track]
	if c == nil || len(data) == 0 {
		return nil
	}
	start, err := c.RandomAccess(data)
	if err != nil {
		return nil
	}
	at := t.clock.at(track, timestamp)
	return t.Write(media.Unit{Track: track, DTS: at, PTS: at + composition, RandomAccess: start, Payload: data})
}

// clock unwraps timestamps, in milliseconds: both tracks lie on one time line.
type clock [media.Audio + 1]struct {
	started bool
	raw     uint32
	ms      int64
}

func (c *clock) at(track media.Kind, raw uint32) media.Ticks {
	t, other := &c[track], &c[media.Video+media.Audio-track]
	switch {
	case t.started:
		t.ms += int64(int32(raw - t.raw)) // the shorter way round is the right one
	case other.started:
		t.ms = other.ms + int64(int32(raw-other.raw))
	default:
		t.ms = int64(raw)
	}
	t.started, t.raw = true, raw
	return media.Ticks(t.ms) * media.TicksPerMillisecond
}
