package access

import (
	"millrace/ingest/front"
	"millrace/internal/media"
)

// Sound makes access units of AAC of what an encoder sends: it takes the headers of
// ADTS off, uses what they say where no configuration came or one that doesn't fit, and
// leaves out what no decoder could make sense of. Its zero value has seen nothing. Not
// safe for concurrent use.
type Sound struct {
	codec  *media.Codec // in force
	early  int          // units that came before any configuration
	passed bool         // an access unit of codec was returned
	// element is what units begin with, and odd what the newest one does that is otherwise.
	element, odd media.AACElement
	next         media.ADTSHeader // what the newest frame says that codec doesn't describe
	times        int              // how often in a row
}

// How often in a row units amid a stream must say of themselves what the configuration
// doesn't, until they are believed: behind a sync word, and without.
const twice, surely = 2, 8

// earliest is how many units may come before their configuration until that is a fault.
const earliest = 50

// Frame is an access unit of sound and its codec.
type Frame struct {
	Codec   *media.Codec
	Payload []byte
}

// Config takes what the encoder says of what follows.
func (s *Sound) Config(c *media.Codec) { *s = Sound{codec: c} }

// Take takes the payload of one message, which it keeps. It returns the access
// units in it, which follow each other, and what was wrong with it, if anything.
func (s *Sound) Take(payload []byte) ([]Frame, front.Fault) {
	switch {
	case media.IsADTS(payload):
		return s.adts(payload)
	case s.codec == nil:
		if s.early++; s.early < earliest {
			return nil, ""
		}
		return nil, front.FaultSoundConfig
	}
	fault := s.look(payload)
	if fault == front.FaultSoundFrames {
		return nil, fault
	}
	s.passed = true
	return []Frame{{s.codec, payload}}, fault
}

// look compares an access unit with the configuration, and with how those before it begin:
// mono that is called stereo, and the other way round, is what decoders stumble over.
func (s *Sound) look(payload []byte) front.Fault {
	if !s.codec.Universal {
		return "" // FFmpeg decodes it
	}
	e, err := media.FirstAACElement(payload)
	switch {
	case err != nil:
		s.next = media.ADTSHeader{}
		return front.FaultSoundFrames
	case e.Channels == s.codec.Channels && (e == s.element || !s.passed || e == s.odd):
		s.next, s.element, s.odd = media.ADTSHeader{}, e, media.AACElement{}
		return ""
	case e.Channels == s.codec.Channels:
		s.odd = e
		return front.FaultSoundFrames
	}
	if h, ok := media.HeaderOf(s.codec, e.Channels); ok && s.adopt(h, payload, surely) {
		s.element = e
		return front.FaultSoundConfig
	}
	return front.FaultSoundFrames
}

func (s *Sound) adts(payload []byte) (frames []Frame, fault front.Fault) {
	list, err := media.SplitADTS(payload)
	fault = front.FaultADTS
	if err != nil {
		fault = front.FaultSoundFrames
	}
	for i := range list {
		f := &list[i]
		if !s.adopt(f.Header, f.Blocks[0], twice) {
			fault = front.FaultSoundFrames
			continue
		}
		codec := s.codec
		if f.Joined > 1 {
			codec = codec.WithFrame(codec.FrameSamples * media.Samples(f.Joined))
		}
		for _, block := range f.Blocks {
			frames = append(frames, Frame{codec, block})
		}
	}
	s.passed = s.passed || len(frames) > 0
	return frames, fault
}

// adopt makes what a frame says of itself the configuration, where that is something
// else, and said so many times in a row where other frames came before. It reports whether the frame can be used.
func (s *Sound) adopt(h media.ADTSHeader, block []byte, times int) bool {
	if s.codec != nil && h.Describes(s.codec) {
		s.next = media.ADTSHeader{}
		return true
	}
	if s.next != h {
		s.next, s.times = h, 0
	}
	if s.times++; s.passed && s.times < times {
		return false
	}
	record, err := h.Config(block)
	if err != nil {
		return false
	}
	codec, err := media.ParseCodec(media.AAC, record)
	if err != nil {
		return false
	}
	s.codec = codec
	return true
}
