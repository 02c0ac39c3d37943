package flv

import (
	"time"

	"millrace/internal/media"
)

// AppendVideo appends a video tag's body in the legacy form, which every reader of FLV knows, for
// H.264 and, under a number that only some readers know, HEVC. Another Format panics: it has no
// legacy form. Track and Offset have none either, and are left out.
func AppendVideo(b []byte, v Video) []byte {
	var codec byte
	switch v.Format {
	case media.H264:
		codec = codecAVC
	case media.HEVC:
		codec = codecHEVC
	default:
		panic("flv: " + string(v.Format) + " has no legacy form")
	}
	b = append(b, frameType(v)<<4|codec)
	switch v.Kind {
	case Config:
		b = append(b, avcSequenceHeader, 0, 0, 0)
	case Frame:
		b = appendMilliseconds(append(b, avcNALU), v.Composition)
	default:
		return append(b, avcSequenceEnd, 0, 0, 0)
	}
	return append(b, v.Data...)
}

// AppendAudio appends an audio tag's body in the legacy form, for AAC. Another Format panics: it has
// no legacy form. Track and Offset have none either, and are left out.
func AppendAudio(b []byte, a Audio) []byte {
	if a.Format != media.AAC {
		panic("flv: " + string(a.Format) + " has no legacy form")
	}
	packet := byte(aacRaw)
	if a.Kind == Config {
		packet = aacSequenceHeader
	}
	b = append(b, aacTagByte, packet)
	return append(b, a.Data...)
}

// AppendExVideo appends a video tag's body in the enhanced form: with a ModEx if there is an Offset,
// as OneTrack if there is a Track.
func AppendExVideo(b []byte, v Video) []byte {
	packet := byte(videoSequenceEnd)
	composed := false
	switch {
	case v.Kind == Config:
		packet = videoSequenceStart
	case v.Kind == Frame && v.Composition == 0 && v.Format != media.AV1:
		packet = videoCodedFramesX
	case v.Kind == Frame:
		packet, composed = videoCodedFrames, v.Format != media.AV1
	}
	b = appendExHeader(b, exVideo|frameType(v)<<4, exPacket{packet, videoMultitrack, videoModEx, v.Format, v.Track, v.Offset})
	if composed {
		b = appendMilliseconds(b, v.Composition)
	}
	return append(b, v.Data...)
}

// AppendExAudio appends an audio tag's body in the enhanced form: with a ModEx if there is an Offset,
// as OneTrack if there is a Track.
func AppendExAudio(b []byte, a Audio) []byte {
	packet := byte(audioSequenceEnd)
	switch a.Kind {
	case Config:
		packet = audioSequenceStart
	case Frame:
		packet = audioCodedFrames
	}
	b = appendExHeader(b, soundEx<<4, exPacket{packet, audioMultitrack, audioModEx, a.Format, a.Track, a.Offset})
	return append(b, a.Data...)
}

// exPacket is what the head of an enhanced body says. The packet types differ between pictures and
// sound.
type exPacket struct {
	packet, multitrack, modEx byte
	format                    media.Format
	track                     byte
	offset                    time.Duration
}

// appendExHeader appends the head of an enhanced body, whose first byte has the upper bits first.
func appendExHeader(b []byte, first byte, p exPacket) []byte {
	packet := p.packet
	if p.track != 0 {
		packet = p.multitrack
	}
	if p.offset == 0 {
		b = append(b, first|packet)
	} else {
		ns := uint32(p.offset)
		b = append(b, first|p.modEx, 3-1, byte(ns>>16), byte(ns>>8), byte(ns), modExNanoseconds<<4|packet)
	}
	if p.track == 0 {
		return append(b, p.format...)
	}
	b = append(b, oneTrack<<4|p.packet)
	b = append(b, p.format...)
	return append(b, p.track)
}

func frameType(v Video) byte {
	if v.Keyframe || v.Kind != Frame {
		return frameKey
	}
	return frameInter
}

func appendMilliseconds(b []byte, t media.Ticks) []byte {
	ms := t.Milliseconds()
	return append(b, byte(ms>>16), byte(ms>>8), byte(ms))
}
