package flv

import (
	"errors"
	"fmt"

	"millrace/internal/media"
)

// Sound formats: the upper four bits of an audio body's first byte (E.4.2.1).
const (
	soundMP3   = 2
	soundALaw  = 7
	soundMuLaw = 8
	soundEx    = 9 // the enhanced form: the lower four bits are one of its packet types
	soundAAC   = 10
	sound8kMP3 = 14
)

// aacTagByte is the first byte of a legacy AAC body: 44 kHz, 16 bit, stereo, whatever the real
// format is.
const aacTagByte = soundAAC<<4 | 0x0f

// Packet types of legacy AAC (E.4.2.1).
const (
	aacSequenceHeader = 0
	aacRaw            = 1
)

// Packet types of the enhanced form (Enhanced RTMP v2, "ExAudioTagHeader").
const (
	audioSequenceStart      = 0
	audioCodedFrames        = 1
	audioSequenceEnd        = 2
	audioMultichannelConfig = 4
	audioMultitrack         = 5
	audioModEx              = 7
)

// defaultOpusHead is the ID header (RFC 7845, section 5.1) of an Opus sequence that begins without
// one: stereo, which decoders make of mono packets, too.
var defaultOpusHead = []byte("OpusHead\x01\x02\x00\x00\x80\xbb\x00\x00\x00\x00\x00")

// ParseAudio parses the body of an audio tag. A codec that isn't taken gives an
// [UnsupportedCodecError]; any other error is a body that makes no sense.
func ParseAudio(b []byte) (Audio, error) {
	if len(b) == 0 {
		return Audio{}, errors.New("parse audio tag: it is empty")
	}
	var a Audio
	var err error
	switch format := b[0] >> 4; format {
	case soundEx:
		a, err = parseExAudio(b)
	case soundAAC:
		a, err = parseLegacyAAC(b)
	case soundMP3, sound8kMP3: // the rate that the body names isn't the real one
		a = Audio{Kind: Frame, Format: media.MP3, Data: b[1:]}
	case soundALaw:
		a = Audio{Kind: Frame, Format: media.ALaw, Channels: int(b[0]&1) + 1, Data: b[1:]}
	case soundMuLaw:
		a = Audio{Kind: Frame, Format: media.MuLaw, Channels: int(b[0]&1) + 1, Data: b[1:]}
	default:
		err = &UnsupportedCodecError{Kind: media.Audio, Name: legacyAudioName(format)}
	}
	if err != nil {
		return Audio{}, fmt.Errorf("parse audio tag: %w", err)
	}
	if a.Kind == Frame && len(a.Data) == 0 {
		a.Kind = Nothing
	}
	return a, nil
}

func parseLegacyAAC(b []byte) (Audio, error) {
	if len(b) < 2 {
		return Audio{}, errShort
	}
	a := Audio{Format: media.AAC, Data: b[2:]}
	switch b[1] {
	case aacSequenceHeader:
		a.Kind = Config
	case aacRaw:
		a.Kind = Frame
	default:
		return Audio{}, fmt.Errorf("packet type %d is unknown", b[1])
	}
	return a, nil
}

// parseExAudio parses a body that names its codec by FourCC.
func parseExAudio(b []byte) (Audio, error) {
	packet, offset, b, err := readModEx(b[0]&0x0f, audioModEx, b[1:])
	if err != nil {
		return Audio{}, err
	}
	t, err := readTrack(packet, audioMultitrack, b)
	if err != nil {
		return Audio{}, err
	}
	a := Audio{Track: t.id, Further: t.further, Offset: offset, Data: t.body}
	switch f := media.Format(t.fourCC[:]); f {
	case media.AAC, media.Opus, media.MP3:
		a.Format = f
	default:
		return Audio{}, &UnsupportedCodecError{media.Audio, fourCCName(t.fourCC), t.id}
	}
	switch t.packet {
	case audioSequenceStart:
		a.Kind = Config
		if a.Format == media.MP3 { // it has none
			return Audio{Track: t.id, Further: t.further}, nil
		}
		if a.Format == media.Opus && len(a.Data) == 0 {
			// "If the Opus sequence start payload is empty [...] default to mono/stereo mode."
			a.Data = defaultOpusHead
		}
	case audioCodedFrames:
		a.Kind = Frame
	case audioSequenceEnd:
		a.Kind, a.Data = End, nil
	case audioMultichannelConfig:
		// All of the codecs describe their channels themselves.
		return Audio{Track: t.id, Further: t.further}, nil
	default:
		return Audio{}, fmt.Errorf("packet type %d is unknown", t.packet)
	}
	return a, nil
}

func legacyAudioName(format byte) string {
	switch format {
	case 0, 3:
		return "PCM"
	case 1:
		return "ADPCM"
	case 4, 5, 6:
		return "Nellymoser"
	case 11:
		return "Speex"
	}
	return fmt.Sprintf("number %d", format)
}
