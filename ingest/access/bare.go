package access

import (
	"bytes"
	"slices"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// Bare makes access units of sound that comes without a configuration: MP3, whose frames say
// themselves how they are coded, and G.711, which has no frames, and so gets some of a fixed
// length. Its zero value has seen nothing. Not safe for concurrent use.
type Bare struct {
	codec *media.Codec // in force
	other []byte       // what the newest frames say that codec doesn't describe,
	times int          // and how often in a row
	rest  []byte       // of G.711, too little for an access unit
}

// Take takes the payload of one message, which it keeps. channels counts for G.711 only.
// It returns the access units in it, which follow each other, by how much the first one begins
// before the message does, and what was wrong, if anything.
func (s *Bare) Take(f media.Format, channels int, payload []byte) (frames []Frame, before media.Ticks, fault front.Fault) {
	if f != media.MP3 {
		return s.g711(f, channels, payload)
	}
	list, err := media.SplitMP3(payload)
	if err != nil {
		fault = front.FaultSoundFrames
	}
	for _, frame := range list {
		record, err := media.MP3Config(frame)
		if err != nil || !s.adopt(f, record) {
			fault = front.FaultSoundFrames
			continue
		}
		frames = append(frames, Frame{s.codec, frame})
	}
	return frames, 0, fault
}

func (s *Bare) g711(f media.Format, channels int, payload []byte) (frames []Frame, before media.Ticks, fault front.Fault) {
	if !s.adopt(f, media.G711Config(f, channels)) {
		return nil, 0, front.FaultSoundFrames
	}
	before = media.Samples(len(s.rest) / channels).Ticks(s.codec.Rate)
	size := int(s.codec.FrameSamples) * channels
	payload = slices.Concat(s.rest, payload)
	for len(payload) >= size {
		frames, payload = append(frames, Frame{s.codec, payload[:size]}), payload[size:]
	}
	s.rest = payload
	return frames, before, ""
}

// adopt makes record the configuration, where that is another one, and came twice in a row
// where other frames came before. It reports whether what has it can be used.
func (s *Bare) adopt(f media.Format, record []byte) bool {
	if s.codec != nil && s.codec.Format == f && bytes.Equal(s.codec.Record, record) {
		s.other = nil
		return true
	}
	if !bytes.Equal(s.other, record) {
		s.other, s.times = record, 0
	}
	if s.times++; s.codec != nil && s.times < twice {
		return false
	}
	codec, err := media.ParseCodec(f, record)
	if err != nil {
		return false
	}
	s.codec, s.other, s.rest = codec, nil, nil
	return true
}
