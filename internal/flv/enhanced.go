package flv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// What the enhanced forms of audio and video bodies share.

// Kinds of multitrack bodies (AvMultitrackType).
const (
	oneTrack             = 0
	manyTracks           = 1
	manyTracksManyCodecs = 2
)

const (
	modExNanoseconds = 0 // the type of a ModEx that holds a TimestampOffsetNano
	maxModEx         = 16
	maxNanoseconds   = 999_999 // of a TimestampOffsetNano
)

var errShort = errors.New("it is cut short")

// readModEx reads the modifiers that stand before a packet of type packet, if it is a modEx. It
// returns the type of packet that follows them, the offset that they add to the timestamp, and the
// rest of b. Modifiers that aren't known are skipped.
func readModEx(packet, modEx byte, b []byte) (next byte, offset time.Duration, rest []byte, err error) {
	for n := 0; packet == modEx; n++ {
		if n == maxModEx {
			return 0, 0, nil, fmt.Errorf("it has more than %d modifiers", maxModEx)
		}
		if len(b) < 1 {
			return 0, 0, nil, errShort
		}
		size := int(b[0]) + 1
		if b = b[1:]; size == 256 { // the size follows in two bytes
			if len(b) < 2 {
				return 0, 0, nil, errShort
			}
			size, b = int(binary.BigEndian.Uint16(b))+1, b[2:]
		}
		if len(b) < size+1 {
			return 0, 0, nil, errShort
		}
		data, types := b[:size], b[size]
		if types>>4 == modExNanoseconds {
			// "modExData must be at least 3 bytes, storing values up to 999,999 ns."
			if len(data) < 3 {
				return 0, 0, nil, errShort
			}
			offset = time.Duration(min(uint24(data), maxNanoseconds))
		}
		packet, b = types&0x0f, b[size+1:]
	}
	return packet, offset, b, nil
}

// exTrack is the part of an enhanced body that belongs to one track.
type exTrack struct {
	packet  byte
	fourCC  [4]byte
	id      byte
	further int // tracks of the same body that were left out
	body    []byte
}

// readTrack reads what follows the first byte and the modifiers of a body: a FourCC and one track,
// or, for a packet of type multitrack, any number of tracks, of which it returns the one with the
// lowest number. "For identifying the highest priority (a.k.a., default track) or highest quality
// track, it is RECOMMENDED to use trackId set to zero."
func readTrack(packet, multitrack byte, b []byte) (exTrack, error) {
	t := exTrack{packet: packet}
	if packet != multitrack {
		if len(b) < 4 {
			return exTrack{}, errShort
		}
		t.fourCC, t.body = [4]byte(b), b[4:]
		return t, nil
	}
	if len(b) < 1 {
		return exTrack{}, errShort
	}
	kind := b[0] >> 4
	t.packet, b = b[0]&0x0f, b[1:]
	if t.packet == multitrack { // "This fetch MUST not result in a [...]PacketType.Multitrack"
		return exTrack{}, errors.New("it nests tracks in tracks")
	}
	if kind > manyTracksManyCodecs {
		return exTrack{}, fmt.Errorf("multitrack type %d is unknown", kind)
	}
	if kind != manyTracksManyCodecs {
		if len(b) < 4 {
			return exTrack{}, errShort
		}
		t.fourCC, b = [4]byte(b), b[4:]
	}
	if kind == oneTrack {
		if len(b) < 1 {
			return exTrack{}, errShort
		}
		t.id, t.body = b[0], b[1:]
		return t, nil
	}
	return lowestTrack(t, kind == manyTracksManyCodecs, b)
}

// lowestTrack reads tracks, each with its number and size and, with codecs set, its FourCC, and
// completes t with the one that has the lowest number.
func lowestTrack(t exTrack, codecs bool, b []byte) (exTrack, error) {
	first := true
	for len(b) > 0 {
		next := exTrack{packet: t.packet, fourCC: t.fourCC}
		if codecs {
			if len(b) < 4 {
				return exTrack{}, errShort
			}
			next.fourCC, b = [4]byte(b), b[4:]
		}
		if len(b) < 4 {
			return exTrack{}, errShort
		}
		size := uint24(b[1:])
		next.id, b = b[0], b[4:]
		if len(b) < size {
			return exTrack{}, errShort
		}
		next.body, b = b[:size:size], b[size:]
		switch {
		case first:
			first, t = false, next
		case next.id < t.id:
			next.further = t.further + 1
			t = next
		default:
			t.further++
		}
	}
	if first {
		return exTrack{}, errors.New("it has no track")
	}
	return t, nil
}

// fourCCName is the plain name of a codec that isn't taken.
func fourCCName(fourCC [4]byte) string {
	switch name := string(fourCC[:]); name {
	case "vp08":
		return "VP8"
	case "vp09":
		return "VP9"
	case "vvc1":
		return "VVC"
	case "ac-3":
		return "AC-3"
	case "ec-3":
		return "E-AC-3"
	case ".mp3":
		return "MP3"
	case "fLaC":
		return "FLAC"
	default:
		return fmt.Sprintf("%q", name)
	}
}
