package ertmp

import (
	"encoding/binary"
	"time"
)

// Form is how tags are written. The zero value is what an encoder of today sends:
// FourCC tags without extensions, composition times only where there are any.
type Form struct {
	// LegacyVideo and LegacyAudio write the tags of the FLV specification of 2008,
	// which know H.264 and AAC only.
	LegacyVideo, LegacyAudio bool
	// AlwaysComposed writes CodedFrames for H.264 and HEVC even where decode and
	// presentation time are the same, in place of CodedFramesX.
	AlwaysComposed bool
	// ModEx has every coded frame carry the nanoseconds that its milliseconds
	// leave out, and each keyframe, before that, an extension that nobody knows.
	ModEx    bool
	Tracks   Multitrack
	Metadata bool // a Metadata packet (colorInfo) and a MultichannelConfig after each SequenceStart
}

// Multitrack is how tags name tracks. In all forms but SingleTrack the clip's own
// tracks have the id 0, and where there is room for more, track 1 comes first and
// carries what no decoder takes.
type Multitrack int

// The forms of AvMultitrackType.
const (
	SingleTrack Multitrack = iota
	OneTrack
	ManyTracks
	ManyTracksManyCodecs
)

// Packet types (VideoPacketType, AudioPacketType).
const (
	packetSequenceStart      = 0
	packetCodedFrames        = 1
	packetSequenceEnd        = 2
	packetCodedFramesX       = 3 // of video
	packetMetadata           = 4 // of video
	packetMultichannelConfig = 4 // of audio
	packetMultitrack         = 6 // of video
	packetAudioMultitrack    = 5
	packetModEx              = 7
)

const (
	videoEnhanced = 0x80 // IsExVideoHeader
	frameKey      = 1 << 4
	frameInter    = 2 << 4
	frameCommand  = 5 << 4
	audioEnhanced = 9 << 4 // SoundFormat.ExHeader
)

// undecodable stands for the body of a track that nobody should look at.
var undecodable = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// colorInfo is the AMF0 of a Metadata packet that knows nothing of the colours,
// as FFmpeg writes it.
var colorInfo = []byte("\x02\x00\x09colorInfo\x03\x00\x0bcolorConfig\x03\x00\x00\x09\x00\x00\x09")

// configs returns the tag bodies that begin a track.
func (f *Form) configs(t *Track, video bool) [][]byte {
	switch {
	case f.LegacyVideo && video:
		return [][]byte{append([]byte{frameKey | 7, 0, 0, 0, 0}, t.Config...)}
	case f.LegacyAudio && !video:
		return [][]byte{append([]byte{0xaf, 0}, t.Config...)}
	case video:
		list := [][]byte{f.tag(t, true, frameKey, packetSequenceStart, nil, t.Config)}
		if f.Metadata {
			list = append(list, f.tag(t, true, frameCommand, packetMetadata, nil, colorInfo))
		}
		return list
	}
	list := [][]byte{f.tag(t, false, 0, packetSequenceStart, nil, t.Config)}
	if f.Metadata { // native order: front left and right, or the centre
		channels, mask := byte(2), byte(3)
		if t.FourCC == "Opus" && t.Config[9] == 1 {
			channels, mask = 1, 4
		}
		list = append(list, f.tag(t, false, 0, packetMultichannelConfig, nil, []byte{1, channels, 0, 0, 0, mask}))
	}
	return list
}

// frame returns the timestamp and the tag body of a coded frame at dts.
func (f *Form) frame(t *Track, video bool, u *unit, dts time.Duration) (timestamp uint32, body []byte) {
	unit, pts := time.Millisecond, dts+u.offset
	var modEx []byte
	if f.ModEx { // nanoseconds are added to the presentation time
		modEx = f.extensions(u.key, pts%unit)
		dts, pts = dts.Truncate(unit), pts.Truncate(unit)
	}
	timestamp = uint32(dts.Round(unit) / unit)
	composition := int32(pts.Round(unit)/unit - dts.Round(unit)/unit)
	si24 := []byte{byte(composition >> 16), byte(composition >> 8), byte(composition)}
	first := byte(frameInter)
	if u.key {
		first = frameKey
	}
	switch {
	case f.LegacyVideo && video:
		return timestamp, append(append([]byte{first | 7, 1}, si24...), u.payload...)
	case f.LegacyAudio && !video:
		return timestamp, append([]byte{0xaf, 1}, u.payload...)
	case !video:
		return timestamp, f.tag(t, false, 0, packetCodedFrames, modEx, u.payload)
	case t.FourCC == "av01": // has no composition times
		return timestamp, f.tag(t, true, first, packetCodedFrames, modEx, u.payload)
	case composition == 0 && !f.AlwaysComposed:
		return timestamp, f.tag(t, true, first, packetCodedFramesX, modEx, u.payload)
	}
	return timestamp, f.tag(t, true, first, packetCodedFrames, modEx, append(si24, u.payload...))
}

// ends returns the tag bodies that end a track.
func (f *Form) ends(t *Track, video bool) [][]byte {
	switch {
	case f.LegacyVideo && video:
		return [][]byte{{frameKey | 7, 2, 0, 0, 0}}
	case f.LegacyAudio && !video:
		return nil
	case video:
		return [][]byte{f.tag(t, true, frameKey, packetSequenceEnd, nil, nil)}
	}
	return [][]byte{f.tag(t, false, 0, packetSequenceEnd, nil, nil)}
}

// extension is one round of ModEx: its type and data.
type extension struct {
	kind byte
	data []byte
}

const (
	modExNanoseconds = 0  // TimestampOffsetNano
	modExUnknown     = 13 // of no specification yet
)

// extensions returns the ModEx rounds of a coded frame, without the packet type
// that the last one names: see tag.
func (f *Form) extensions(key bool, rest time.Duration) []byte {
	list := []extension{{modExNanoseconds, []byte{byte(rest >> 16), byte(rest >> 8), byte(rest)}}}
	if key {
		long := make([]byte, 300)
		list = append([]extension{{modExUnknown, long}}, list...)
	}
	var b []byte
	for _, x := range list {
		if n := len(x.data); n <= 255 {
			b = append(b, byte(n-1))
		} else { // 256 means that the size follows in 16 bits
			b = binary.BigEndian.AppendUint16(append(b, 255), uint16(n-1))
		}
		b = append(append(b, x.data...), x.kind<<4|packetModEx)
	}
	return b
}

// tag writes a tag's body: frame is the kind of picture, modEx the rounds that
// stand before the packet.
func (f *Form) tag(t *Track, video bool, frame, packet byte, modEx, body []byte) []byte {
	first, multitrack := byte(audioEnhanced), byte(packetAudioMultitrack)
	if video {
		first, multitrack = videoEnhanced|frame, packetMultitrack
	}
	outer := packet
	if f.Tracks != SingleTrack {
		outer = multitrack
	}
	var b []byte
	if modEx == nil {
		b = []byte{first | outer}
	} else {
		b = append([]byte{first | packetModEx}, modEx...)
		b[len(b)-1] = b[len(b)-1]&0xf0 | outer // the last round leads to the packet
	}
	if f.Tracks == SingleTrack {
		return append(append(b, t.FourCC...), body...)
	}
	b = append(b, byte(f.Tracks-OneTrack)<<4|packet)
	sized := func(id byte, body []byte) {
		b = append(b, id, byte(len(body)>>16), byte(len(body)>>8), byte(len(body)))
		b = append(b, body...)
	}
	switch f.Tracks {
	case OneTrack:
		b = append(append(append(b, t.FourCC...), 0), body...)
	case ManyTracks:
		b = append(b, t.FourCC...)
		sized(1, undecodable)
		sized(0, body)
	case ManyTracksManyCodecs:
		b = append(b, "vp09"...)
		sized(1, undecodable)
		b = append(b, t.FourCC...)
		sized(0, body)
	}
	return b
}
