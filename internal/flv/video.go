package flv

import (
	"errors"
	"fmt"

	"millrace/internal/media"
)

// Frame types: the upper bits of a video body's first byte (E.4.3.1).
const (
	frameKey          = 1
	frameInter        = 2
	frameGeneratedKey = 4
	frameCommand      = 5
)

// Codec numbers of the legacy form (E.4.3.1).
const (
	codecAVC  = 7
	codecHEVC = 12 // by no specification, but what encoders sent before there was a FourCC for it
)

// Packet types of the legacy form (E.4.3.1).
const (
	avcSequenceHeader = 0
	avcNALU           = 1
	avcSequenceEnd    = 2
)

// exVideo is set in the first byte of an enhanced video body, whose lower four bits are then one of
// the packet types below (Enhanced RTMP v2, "ExVideoTagHeader").
const exVideo = 0x80

const (
	videoSequenceStart   = 0
	videoCodedFrames     = 1
	videoSequenceEnd     = 2
	videoCodedFramesX    = 3
	videoMetadata        = 4
	videoMPEG2TSSequence = 5
	videoMultitrack      = 6
	videoModEx           = 7
)

// ParseVideo parses the body of a video tag. A codec that isn't taken gives an
// [UnsupportedCodecError]; any other error is a body that makes no sense.
func ParseVideo(b []byte) (Video, error) {
	if len(b) == 0 {
		return Video{}, errors.New("parse video tag: it is empty")
	}
	var v Video
	var err error
	if b[0]&exVideo != 0 {
		v, err = parseExVideo(b)
	} else {
		v, err = parseLegacyVideo(b)
	}
	if err != nil {
		return Video{}, fmt.Errorf("parse video tag: %w", err)
	}
	if v.Kind == Frame && len(v.Data) == 0 {
		v.Kind = Nothing
	}
	return v, nil
}

// parseLegacyVideo parses a body that names its codec by number. HEVC has the form of AVC.
func parseLegacyVideo(b []byte) (Video, error) {
	v := Video{Keyframe: isKey(b[0] >> 4)}
	switch codec := b[0] & 0x0f; codec {
	case codecAVC:
		v.Format = media.H264
	case codecHEVC:
		v.Format = media.HEVC
	default:
		return Video{}, &UnsupportedCodecError{Kind: media.Video, Name: legacyVideoName(codec)}
	}
	if b[0]>>4 == frameCommand {
		return Video{}, nil
	}
	if len(b) < 5 {
		return Video{}, errShort
	}
	v.Data = b[5:]
	switch b[1] {
	case avcSequenceHeader:
		v.Kind = Config
	case avcNALU:
		v.Kind, v.Composition = Frame, milliseconds(b[2:])
	case avcSequenceEnd:
		v.Kind, v.Data = End, nil
	default:
		return Video{}, fmt.Errorf("packet type %d is unknown", b[1])
	}
	return v, nil
}

// parseExVideo parses a body that names its codec by FourCC.
func parseExVideo(b []byte) (Video, error) {
	frame := b[0] >> 4 & 7
	packet, offset, b, err := readModEx(b[0]&0x0f, videoModEx, b[1:])
	if err != nil {
		return Video{}, err
	}
	// "If VideoPacketType.Metadata is present, the FrameType flags at the top of this table should
	// be ignored."
	if frame == frameCommand && packet != videoMetadata {
		return Video{}, nil
	}
	t, err := readTrack(packet, videoMultitrack, b)
	if err != nil {
		return Video{}, err
	}
	v := Video{Track: t.id, Further: t.further, Keyframe: isKey(frame), Offset: offset, Data: t.body}
	if t.packet == videoMetadata {
		return Video{Track: t.id, Further: t.further}, nil
	}
	var ok bool
	if v.Format, ok = videoFormat(t.fourCC); !ok {
		return Video{}, &UnsupportedCodecError{media.Video, fourCCName(t.fourCC), t.id}
	}
	switch t.packet {
	case videoSequenceStart:
		v.Kind = Config
	case videoCodedFrames:
		v.Kind = Frame
		if v.Format == media.AV1 { // it alone has no composition time
			break
		}
		if len(v.Data) < 3 {
			return Video{}, errShort
		}
		v.Composition, v.Data = milliseconds(v.Data), v.Data[3:]
	case videoCodedFramesX:
		v.Kind = Frame
	case videoSequenceEnd:
		v.Kind, v.Data = End, nil
	case videoMPEG2TSSequence:
		// Its descriptor holds no sequence header, without which nothing can be played.
		return Video{}, &UnsupportedCodecError{media.Video, "AV1 as in MPEG-2 TS", t.id}
	default:
		return Video{}, fmt.Errorf("packet type %d is unknown", t.packet)
	}
	return v, nil
}

func isKey(frame byte) bool { return frame == frameKey || frame == frameGeneratedKey }

func videoFormat(fourCC [4]byte) (media.Format, bool) {
	switch f := media.Format(fourCC[:]); f {
	case media.H264, media.HEVC, media.AV1:
		return f, true
	}
	return "", false
}

func legacyVideoName(codec byte) string {
	switch codec {
	case 2:
		return "Sorenson H.263"
	case 3, 6:
		return "Screen Video"
	case 4, 5:
		return "VP6"
	case 13:
		return "AV1 by number" // as some encoders send it; there is a FourCC for it
	}
	return fmt.Sprintf("number %d", codec)
}
