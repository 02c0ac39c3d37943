package rtmp

import (
	"bytes"
	"errors"
	"time"

	"millrace/ingest/access"
	"millrace/ingest/front"
	"millrace/internal/flv"
	"millrace/internal/media"
)

// maxComposition bounds how far the time at which a frame is shown may be from that at which it is
// decoded.
const maxComposition = 10 * media.VideoTimescale

// Why parts of audio and video messages are left out.
const (
	droppedMalformed    = "malformed"
	droppedFurtherTrack = "further_track"
	droppedSound        = "audio_codec"
)

// demuxer turns the audio and video messages of one publication into configurations and access
// units. Of pictures and of sound it takes one track each: the first one that is configured, unless
// one with a lower number is configured later.
type demuxer struct {
	pub     front.Publication
	dropped func(reason string) // told of what is left out
	clock   clock
	tracks  [media.Audio + 1]track // by kind
	aac     access.Sound           // of the track of sound, where that is AAC,
	bare    access.Bare            // and where it is sound without configurations
}

// track is what a demuxer knows of the pictures or of the sound.
type track struct {
	chosen   bool              // there is a track that is taken,
	number   byte              // this one
	pictures *access.Assembler // nil before there are any
	codec    *media.Codec      // of sound; nil before its configuration
	// What the encoder sent last of sound, and why that can't be used; nil if it can.
	format  media.Format
	record  []byte
	refused *front.Refusal
}

// packet is the content of a message: flv.Video and flv.Audio in one.
type packet struct {
	track       media.Kind
	kind        flv.Kind
	format      media.Format
	number      byte
	further     int
	timestamp   uint32
	offset      time.Duration
	composition media.Ticks
	keyframe    bool // the encoder calls it one
	channels    int  // of G.711
	data        []byte
}

// video takes the body of a video message, which it keeps. An error ends the publication.
func (d *demuxer) video(timestamp uint32, body []byte) error {
	v, err := flv.ParseVideo(body)
	if err != nil {
		return d.refuse(err)
	}
	return d.take(&packet{media.Video, v.Kind, v.Format, v.Track, v.Further, timestamp, v.Offset, v.Composition, v.Keyframe, 0, v.Data})
}

// audio takes the body of an audio message, which it keeps. An error ends the publication.
func (d *demuxer) audio(timestamp uint32, body []byte) error {
	a, err := flv.ParseAudio(body)
	if err != nil {
		return d.refuse(err)
	}
	return d.take(&packet{media.Audio, a.Kind, a.Format, a.Track, a.Further, timestamp, a.Offset, 0, false, a.Channels, a.Data})
}

// metadata takes an onMetaData. Of what it claims only the frame rate matters: codecs and sizes are
// known better from the configurations.
func (d *demuxer) metadata(m map[string]any) {
	for _, name := range []string{"framerate", "videoframerate"} {
		if rate, ok := m[name].(float64); ok && rate >= 1 && rate <= 240 {
			d.pub.FrameRate(rate)
			return
		}
	}
}

// refuse turns a codec that isn't taken into words that name what to set. Sound in one is left
// out: pictures go on without. A message that makes no sense is left out, and so is a further
// track in whatever codec.
func (d *demuxer) refuse(err error) error {
	var codec *flv.UnsupportedCodecError
	if !errors.As(err, &codec) {
		d.dropped(droppedMalformed)
		return nil
	}
	if t := &d.tracks[codec.Kind]; t.chosen && codec.Track > t.number {
		d.further()
		return nil
	}
	return d.leaveOut(codec.Kind, front.UnknownCodec(codec.Kind, codec.Name))
}

// leaveOut leaves sound out that can't be taken; without pictures there is no broadcast.
func (d *demuxer) leaveOut(track media.Kind, why *front.Refusal) error {
	if track != media.Audio {
		return why
	}
	d.dropped(droppedSound)
	d.pub.LeaveOut(why)
	return nil
}

// further notes that a track was left out.
func (d *demuxer) further() {
	d.dropped(droppedFurtherTrack)
	d.pub.FurtherTracks()
}

func (d *demuxer) take(p *packet) error {
	if p.further > 0 {
		d.further()
	}
	t := &d.tracks[p.track]
	if p.kind == flv.Config && (!t.chosen || p.number < t.number) {
		if err := t.end(); err != nil {
			return err
		}
		*t = track{chosen: true, number: p.number}
	}
	if t.chosen && p.number != t.number {
		d.further()
		return nil
	}
	switch {
	case p.kind != flv.Config && p.kind != flv.Frame:
		return nil // the end of a sequence, or nothing for a decoder
	case p.track == media.Video:
		return d.picture(t, p)
	case p.kind == flv.Config:
		return d.configure(t, p)
	}
	return d.frame(t, p)
}

// picture takes a configuration of pictures, or what one message holds of them.
func (d *demuxer) picture(t *track, p *packet) error {
	if t.pictures == nil || p.kind == flv.Config && t.pictures.Format() != p.format {
		if err := t.end(); err != nil {
			return err
		}
		// Some encoders send no configuration: it is in the pictures then.
		*t = track{chosen: true, number: p.number, pictures: access.New(p.format, assembled{d})}
	}
	switch {
	case p.kind == flv.Config:
		return t.pictures.Config(p.data)
	case p.format != t.pictures.Format() || p.composition > maxComposition || p.composition < -maxComposition:
		d.dropped(droppedMalformed)
		return nil
	}
	return t.pictures.Take(d.clock.at(p.track, p.timestamp, p.offset), p.composition, p.keyframe, p.data)
}

// assembled takes what is made of a demuxer's messages.
type assembled struct{ d *demuxer }

func (p assembled) Config(c *media.Codec) error { return p.d.pub.Config(c) }
func (p assembled) Write(u media.Unit) error    { return p.d.pub.Write(u) }

func (p assembled) Fault(f front.Fault) {
	if f.LosesPicture() {
		p.d.dropped(string(f))
	}
	p.d.pub.Fault(f)
}

// end passes on what was held back of pictures: nothing follows.
func (t *track) end() error {
	if t.pictures == nil {
		return nil
	}
	return t.pictures.Flush()
}

// end ends the publication.
func (d *demuxer) end() error { return d.tracks[media.Video].end() }

// configure takes a configuration of sound. That of Opus doesn't say how long frames are: it is passed on
// as if they were of the usual length, so that sound is known to come, and again where they aren't.
func (d *demuxer) configure(t *track, p *packet) error {
	if t.record != nil && t.format == p.format && bytes.Equal(t.record, p.data) {
		return nil // some encoders repeat it
	}
	t.format, t.record = p.format, p.data
	codec, err := media.ParseCodec(p.format, p.data)
	if err != nil {
		t.codec, t.refused = nil, front.BadConfig(p.track, err)
		return d.leaveOut(p.track, t.refused)
	}
	t.codec, t.refused = codec, nil
	if p.format == media.AAC {
		d.aac.Config(codec)
	}
	return d.pub.Config(codec)
}

// frame takes one frame of sound.
func (d *demuxer) frame(t *track, p *packet) error {
	if t.refused != nil {
		return d.leaveOut(p.track, t.refused)
	}
	if p.format == media.AAC && (t.codec == nil || t.codec.Format == media.AAC) {
		return d.aacFrames(t, p)
	}
	if isBare(p.format) && (t.codec == nil || isBare(t.codec.Format)) {
		return d.bareFrames(t, p)
	}
	if t.codec == nil {
		return nil // nothing can be decoded before there is a configuration
	}
	start, err := false, error(nil)
	if p.format == t.codec.Format {
		start, err = t.codec.RandomAccess(p.data)
	}
	if err != nil || p.format != t.codec.Format {
		d.dropped(droppedMalformed)
		return nil
	}
	if p.format == media.Opus {
		samples := media.OpusSamples(p.data)
		if samples == 0 {
			d.dropped(droppedMalformed)
			return nil
		}
		if samples != t.codec.FrameSamples {
			t.codec = t.codec.WithFrame(samples)
			if err := d.pub.Config(t.codec); err != nil {
				return err
			}
		}
	}
	at, err := d.heard(p)
	if err != nil {
		return err
	}
	return d.pub.Write(media.Unit{Track: p.track, DTS: at, PTS: at, RandomAccess: start, Payload: p.data})
}

// heard returns the time of a message of sound, to which no picture is held back.
func (d *demuxer) heard(p *packet) (at media.Ticks, err error) {
	at = d.clock.at(p.track, p.timestamp, p.offset)
	if pictures := d.tracks[media.Video].pictures; pictures != nil {
		err = pictures.Sound(at)
	}
	return at, err
}

// aacFrames takes a message of AAC, which may hold several access units, or say itself how they
// are coded.
func (d *demuxer) aacFrames(t *track, p *packet) error {
	frames, fault := d.aac.Take(p.data)
	if fault != "" {
		d.pub.Fault(fault)
	}
	if fault == front.FaultSoundFrames {
		d.dropped(droppedMalformed)
	}
	at, err := d.heard(p)
	if err != nil {
		return err
	}
	return d.writeFrames(t, p, at, frames)
}

// isBare tells sound that comes without a configuration.
func isBare(f media.Format) bool { return f == media.MP3 || f == media.ALaw || f == media.MuLaw }

// bareFrames takes a message of such sound.
func (d *demuxer) bareFrames(t *track, p *packet) error {
	frames, before, fault := d.bare.Take(p.format, p.channels, p.data)
	if fault != "" {
		d.pub.Fault(fault)
		d.dropped(droppedMalformed)
	}
	at, err := d.heard(p)
	if err != nil {
		return err
	}
	return d.writeFrames(t, p, at-before, frames)
}

// writeFrames passes on access units that follow each other, the first one at a time.
func (d *demuxer) writeFrames(t *track, p *packet, at media.Ticks, frames []access.Frame) error {
	for _, f := range frames {
		if !f.Codec.Equal(t.codec) {
			t.chosen, t.number = true, p.number
			if err := d.pub.Config(f.Codec); err != nil {
				return err
			}
		}
		t.codec = f.Codec
		if err := d.pub.Write(media.Unit{Track: p.track, DTS: at, PTS: at, RandomAccess: true, Payload: f.Payload}); err != nil {
			return err
		}
		at += f.Codec.Step()
	}
	return nil
}
