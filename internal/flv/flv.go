// Package flv reads and writes FLV: the file header, its tags, and the bodies of audio and video
// tags, which RTMP's messages carry, too. Bodies come in two forms: the legacy one (Adobe FLV
// 10.1, annex E.4), which names codecs by number, and the enhanced one (Veovera's Enhanced RTMP
// v2), which names them by FourCC. Nothing in it does I/O of its own but for what its callers hand
// it to read from.
package flv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"millrace/internal/media"
)

// Types of tags (E.4.1); RTMP's messages have the same ones.
const (
	TagAudio  = 8
	TagVideo  = 9
	TagScript = 18
)

// MaxTagPayload is the largest tag body that [ReadTag] accepts, in bytes.
const MaxTagPayload = 4 << 20

// tagOverhead is the size of what stands before a tag's body; it counts in the back pointer.
const tagOverhead = 11

// Tag is one FLV tag.
type Tag struct {
	// Type is TagAudio, TagVideo or TagScript.
	Type byte
	// Timestamp is in milliseconds and wraps at 2^32.
	Timestamp uint32
	// Payload is the tag's body.
	Payload []byte
}

// Header returns the file header with the first, empty back pointer.
func Header(audio, video bool) []byte {
	var flags byte
	if audio {
		flags |= 4
	}
	if video {
		flags |= 1
	}
	return []byte{'F', 'L', 'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0}
}

// ReadHeader reads and checks a file header with its first back pointer.
func ReadHeader(r io.Reader) error {
	var b [13]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return fmt.Errorf("read FLV header: %w", err)
	}
	if string(b[:3]) != "FLV" || binary.BigEndian.Uint32(b[5:9]) != 9 {
		return errors.New("read FLV header: this is not FLV version 1")
	}
	return nil
}

// AppendTag appends t and its back pointer to b.
func AppendTag(b []byte, t Tag) []byte {
	b = AppendTagHeader(b, t.Type, t.Timestamp, len(t.Payload))
	b = append(b, t.Payload...)
	return binary.BigEndian.AppendUint32(b, uint32(tagOverhead+len(t.Payload)))
}

// AppendTagHeader appends the 11 bytes that stand before a body of size bytes.
func AppendTagHeader(b []byte, typ byte, timestamp uint32, size int) []byte {
	return append(b, typ, byte(size>>16), byte(size>>8), byte(size),
		byte(timestamp>>16), byte(timestamp>>8), byte(timestamp), byte(timestamp>>24), 0, 0, 0)
}

// ReadTag reads one tag. It returns io.EOF only between tags, and refuses a body above
// [MaxTagPayload] before any memory is taken for it.
func ReadTag(r io.Reader) (Tag, error) {
	var h [tagOverhead]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Tag{}, err
	}
	size := uint24(h[1:])
	if size > MaxTagPayload {
		return Tag{}, fmt.Errorf("read FLV tag: %d bytes announced, at most %d are accepted", size, MaxTagPayload)
	}
	t := Tag{
		Type:      h[0] & 0x1f,
		Timestamp: uint32(h[7])<<24 | uint32(uint24(h[4:])),
		Payload:   make([]byte, size+4),
	}
	if _, err := io.ReadFull(r, t.Payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Tag{}, fmt.Errorf("read FLV tag body: %w", err)
	}
	t.Payload = t.Payload[:size:size]
	return t, nil
}

// Kind is what the body of an audio or video tag brings.
type Kind uint8

// The kinds of content.
const (
	// Nothing is for what the decoder of a track has no use for: an empty frame, commands, colour
	// information, the order of channels.
	Nothing Kind = iota
	// Config is a codec's configuration record.
	Config
	// Frame is one coded frame.
	Frame
	// End says that the sequence that Config began is over. Data is empty.
	End
)

// Video is the content of one video tag body.
type Video struct {
	// Kind is what Data is.
	Kind Kind
	// Format is the codec; empty for Nothing.
	Format media.Format
	// Track is the track's number: 0 for a body that isn't multitrack. Of a body with several
	// tracks it is the lowest one, and the only one that is read.
	Track byte
	// Further counts the tracks of the body that were left out.
	Further int
	// Keyframe is set if the body calls its frame one.
	Keyframe bool
	// Composition is when the frame is shown, after its decode time; whole milliseconds.
	Composition media.Ticks
	// Offset is to be added to the tag's timestamp; less than a millisecond.
	Offset time.Duration
	// Data is the configuration record or the frame. A parsed one is part of the body.
	Data []byte
}

// Audio is the content of one audio tag body. Its fields are those of [Video].
type Audio struct {
	// Kind is what Data is.
	Kind Kind
	// Format is the codec; empty for Nothing.
	Format media.Format
	// Track is the track's number: 0 for a body that isn't multitrack. Of a body with several
	// tracks it is the lowest one, and the only one that is read.
	Track byte
	// Further counts the tracks of the body that were left out.
	Further int
	// Offset is to be added to the tag's timestamp; less than a millisecond.
	Offset time.Duration
	// Channels is how many the body says that G.711 has; 0 of other codecs, which say it themselves.
	Channels int
	// Data is the configuration record (AudioSpecificConfig, OpusHead) or the frame. A parsed one
	// is part of the body.
	Data []byte
}

// UnsupportedCodecError is a codec that a body names and Millrace doesn't take.
type UnsupportedCodecError struct {
	// Kind tells pictures from sound.
	Kind media.Kind
	// Name is the codec's plain name, or what stood in the body: its number or its FourCC.
	Name string
	// Track is the track's number, as in [Video].
	Track byte
}

// Error names the codec.
func (e *UnsupportedCodecError) Error() string {
	return fmt.Sprintf("%s codec %s is not supported", e.Kind, e.Name)
}

func uint24(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

// milliseconds reads an SI24 of milliseconds.
func milliseconds(b []byte) media.Ticks {
	ms := int32(uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8) >> 8
	return media.Ticks(ms) * media.TicksPerMillisecond
}
