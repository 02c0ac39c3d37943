// Package matroska writes one track of encoded media as a Matroska stream
// (RFC 9559) that is read while it is written: how access units of every codec
// reach FFmpeg's standard input (decision 10). It only writes what FFmpeg needs:
// there is no index, no duration, and each access unit is a cluster of its own.
package matroska

import (
	"encoding/binary"
	"math"

	"millrace/internal/media"
)

// codecs are Matroska's names (RFC 9559, section 17.2, and the codec mappings).
var codecs = map[media.Format]string{
	media.H264: "V_MPEG4/ISO/AVC", media.HEVC: "V_MPEGH/ISO/HEVC", media.AV1: "V_AV1",
	media.AAC: "A_AAC", media.Opus: "A_OPUS", media.MP3: "A_MPEG/L3", media.ALaw: "A_MS/ACM", media.MuLaw: "A_MS/ACM",
}

// Element IDs (RFC 9559, section 5), with the marker bits of their length.
const (
	idEBML            = 0x1A45DFA3
	idEBMLVersion     = 0x4286
	idEBMLReadVersion = 0x42F7
	idEBMLMaxID       = 0x42F2
	idEBMLMaxSize     = 0x42F3
	idDocType         = 0x4282
	idDocTypeVersion  = 0x4287
	idDocTypeRead     = 0x4285
	idSegment         = 0x18538067
	idInfo            = 0x1549A966
	idTimestampScale  = 0x2AD7B1
	idMuxingApp       = 0x4D80
	idWritingApp      = 0x5741
	idTracks          = 0x1654AE6B
	idTrackEntry      = 0xAE
	idTrackNumber     = 0xD7
	idTrackUID        = 0x73C5
	idTrackType       = 0x83
	idFlagLacing      = 0x9C
	idCodecID         = 0x86
	idCodecPrivate    = 0x63A2
	idVideo           = 0xE0
	idPixelWidth      = 0xB0
	idPixelHeight     = 0xBA
	idAudio           = 0xE1
	idSampling        = 0xB5
	idChannels        = 0x9F
	idCluster         = 0x1F43B675
	idTimestamp       = 0xE7
	idSimpleBlock     = 0xA3
)

const (
	typeVideo   = 1
	typeAudio   = 2
	trackNumber = 1
	// timestampScale is a tick of timestamps in nanoseconds: a 90,000th of a
	// second is no whole number of anything larger, and comes back exactly when
	// it is rounded.
	timestampScale = 1
	// sizeUnknown says that an element lasts until its parent ends.
	sizeUnknown = 1<<56 - 1
	// sizeBytes is the length that all sizes are written with.
	sizeBytes = 8
)

// Header returns what comes before the first access unit in c.
func Header(c *media.Codec) []byte {
	kind, format := uint64(typeVideo), element(idVideo, number(idPixelWidth, uint64(c.Picture.Width)), number(idPixelHeight, uint64(c.Picture.Height)))
	if c.Kind() == media.Audio {
		rate := binary.BigEndian.AppendUint64(nil, math.Float64bits(float64(c.Rate)))
		kind, format = typeAudio, element(idAudio, element(idSampling, rate), number(idChannels, uint64(c.Channels)))
	}
	b := element(idEBML, number(idEBMLVersion, 1), number(idEBMLReadVersion, 1), number(idEBMLMaxID, 4), number(idEBMLMaxSize, sizeBytes),
		element(idDocType, []byte("matroska")), number(idDocTypeVersion, 4), number(idDocTypeRead, 2))
	b = appendHead(b, idSegment, sizeUnknown)
	b = append(b, element(idInfo, number(idTimestampScale, timestampScale), element(idMuxingApp, []byte("Millrace")), element(idWritingApp, []byte("Millrace")))...)
	return append(b, element(idTracks, element(idTrackEntry,
		number(idTrackNumber, trackNumber), number(idTrackUID, trackNumber), number(idTrackType, kind), number(idFlagLacing, 0),
		element(idCodecID, []byte(codecs[c.Format])), element(idCodecPrivate, c.Record), format))...)
}

// AppendUnit appends one access unit to b, in decode order. at is when it is
// shown, and isn't negative; Matroska knows no decode times. key is set on random
// access points, and on all sound.
func AppendUnit(b []byte, at media.Ticks, key bool, payload []byte) []byte {
	const (
		timestampSize = 1 + sizeBytes + 8
		blockHead     = 4 // track number, 16 bits of relative timestamp, flags
		flagKeyframe  = 0x80
	)
	block := blockHead + len(payload)
	b = appendHead(b, idCluster, uint64(timestampSize+1+sizeBytes+block))
	b = appendHead(b, idTimestamp, 8)
	b = binary.BigEndian.AppendUint64(b, nanoseconds(at))
	b = appendHead(b, idSimpleBlock, uint64(block))
	flags := byte(0)
	if key {
		flags = flagKeyframe
	}
	b = append(b, 0x80|trackNumber, 0, 0, flags)
	return append(b, payload...)
}

// Overhead is how many bytes [AppendUnit] adds to a payload.
const Overhead = 4 + sizeBytes + 1 + sizeBytes + 8 + 1 + sizeBytes + 4

// nanoseconds returns the nearest whole number of them.
func nanoseconds(at media.Ticks) uint64 {
	const second = 1_000_000_000
	whole, rest := at/media.VideoTimescale, at%media.VideoTimescale
	return uint64(whole)*second + (uint64(rest)*second+media.VideoTimescale/2)/media.VideoTimescale
}

// element returns an element of the concatenated parts.
func element(id uint32, parts ...[]byte) []byte {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	b := appendHead(nil, id, uint64(size))
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// number returns an element that holds an unsigned integer.
func number(id uint32, v uint64) []byte {
	return element(id, binary.BigEndian.AppendUint64(nil, v))
}

// appendHead appends an element's ID and the size of its data.
func appendHead(b []byte, id uint32, size uint64) []byte {
	switch {
	case id > 0xffffff:
		b = append(b, byte(id>>24))
		fallthrough
	case id > 0xffff:
		b = append(b, byte(id>>16))
		fallthrough
	case id > 0xff:
		b = append(b, byte(id>>8))
	}
	return binary.BigEndian.AppendUint64(append(b, byte(id)), 1<<56|size)
}
