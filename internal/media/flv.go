package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FLV tag types (Adobe FLV 10.1, E.4.1).
const (
	TagAudio  = 8
	TagVideo  = 9
	TagScript = 18
)

// MaxTagPayload is the largest FLV tag that [ReadTag] accepts, in bytes.
const MaxTagPayload = 4 << 20

// FLV values of the audio and video tag headers (E.4.2.1, E.4.3.1).
const (
	flvCodecAVC    = 7
	flvFormatAAC   = 10
	flvFrameKey    = 1
	flvFrameInter  = 2
	flvFrameInfo   = 5
	avcSequence    = 0
	avcNALU        = 1
	avcEndOfSeq    = 2
	aacSequence    = 0
	aacRaw         = 1
	flvAACTagByte  = 0xAF // AAC, 44 kHz, 16 bit, stereo: constant for AAC whatever the real format
	flvTagOverhead = 11
)

// Tag is one FLV tag.
type Tag struct {
	// Type is TagAudio, TagVideo or TagScript.
	Type byte
	// Timestamp is in milliseconds and wraps at 2^32.
	Timestamp uint32
	// Payload is the tag's body.
	Payload []byte
}

// FLVHeader returns the file header with the first, empty back pointer.
func FLVHeader(audio, video bool) []byte {
	var flags byte
	if audio {
		flags |= 4
	}
	if video {
		flags |= 1
	}
	return []byte{'F', 'L', 'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0}
}

// ReadFLVHeader reads and checks a file header with its first back pointer.
func ReadFLVHeader(r io.Reader) error {
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
	return binary.BigEndian.AppendUint32(b, uint32(flvTagOverhead+len(t.Payload)))
}

// AppendTagHeader appends the 11 bytes that stand before a payload of size bytes.
func AppendTagHeader(b []byte, typ byte, timestamp uint32, size int) []byte {
	return append(b, typ, byte(size>>16), byte(size>>8), byte(size),
		byte(timestamp>>16), byte(timestamp>>8), byte(timestamp), byte(timestamp>>24), 0, 0, 0)
}

// ReadTag reads one tag. It returns io.EOF only between tags, and refuses a
// payload above [MaxTagPayload] before any memory is taken for it.
func ReadTag(r io.Reader) (Tag, error) {
	var h [flvTagOverhead]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Tag{}, err
	}
	size := int(h[1])<<16 | int(h[2])<<8 | int(h[3])
	if size > MaxTagPayload {
		return Tag{}, fmt.Errorf("read FLV tag: %d bytes announced, at most %d are accepted", size, MaxTagPayload)
	}
	t := Tag{
		Type:      h[0] & 0x1f,
		Timestamp: uint32(h[7])<<24 | uint32(h[4])<<16 | uint32(h[5])<<8 | uint32(h[6]),
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

// VideoTag is a parsed AVC video tag body.
type VideoTag struct {
	// Config is set when Data is an AVCDecoderConfigurationRecord.
	Config bool
	// CompositionTime is PTS - DTS in milliseconds.
	CompositionTime int32
	// Data is the record, or NAL units with length prefixes; empty at an end of sequence.
	Data []byte
}

// UnsupportedCodecError is a codec that a legacy FLV tag names and Millrace doesn't take.
type UnsupportedCodecError struct {
	Kind Kind
	// Name is the codec's plain name, or its FLV number.
	Name string
}

// Error names the codec.
func (e *UnsupportedCodecError) Error() string {
	return fmt.Sprintf("%s codec %s is not supported", e.Kind, e.Name)
}

// ParseVideoTag parses the body of a video tag (E.4.3). A codec other than
// H.264 gives an [UnsupportedCodecError].
func ParseVideoTag(b []byte) (VideoTag, error) {
	if len(b) == 0 {
		return VideoTag{}, errors.New("video tag is empty")
	}
	if b[0]&0x80 != 0 {
		if len(b) < 5 {
			return VideoTag{}, errors.New("enhanced video tag is cut short")
		}
		return VideoTag{}, &UnsupportedCodecError{Video, videoFourCC(string(b[1:5]))}
	}
	if codec := b[0] & 0x0f; codec != flvCodecAVC {
		return VideoTag{}, &UnsupportedCodecError{Video, videoCodecName(codec)}
	}
	if b[0]>>4 == flvFrameInfo {
		return VideoTag{}, nil
	}
	if len(b) < 5 {
		return VideoTag{}, errors.New("video tag is cut short")
	}
	t := VideoTag{Data: b[5:]}
	switch b[1] {
	case avcSequence:
		t.Config = true
	case avcNALU:
		// CompositionTime is SI24.
		t.CompositionTime = int32(uint32(b[2])<<24|uint32(b[3])<<16|uint32(b[4])<<8) >> 8
	case avcEndOfSeq:
		t.Data = nil
	default:
		return VideoTag{}, fmt.Errorf("video tag has the unknown AVC packet type %d", b[1])
	}
	return t, nil
}

func videoFourCC(cc string) string {
	switch cc {
	case "hvc1":
		return "HEVC"
	case "av01":
		return "AV1"
	case "vp09":
		return "VP9"
	}
	return fmt.Sprintf("%q", cc)
}

func videoCodecName(codec byte) string {
	switch codec {
	case 2:
		return "Sorenson H.263"
	case 4, 5:
		return "VP6"
	case 12:
		return "HEVC"
	}
	return fmt.Sprintf("number %d", codec)
}

// AppendVideoTag appends an FLV tag that carries u, whose payload is AVC.
func AppendVideoTag(b []byte, timestamp uint32, u *AccessUnit) []byte {
	frame := byte(flvFrameInter)
	if u.IDR {
		frame = flvFrameKey
	}
	size := 5 + len(u.Payload)
	cts := int32((u.PTS - u.DTS).Milliseconds())
	b = AppendTagHeader(b, TagVideo, timestamp, size)
	b = append(b, frame<<4|flvCodecAVC, avcNALU, byte(cts>>16), byte(cts>>8), byte(cts))
	b = append(b, u.Payload...)
	return binary.BigEndian.AppendUint32(b, uint32(flvTagOverhead+size))
}

// AppendVideoConfigTag appends an FLV tag with an AVCDecoderConfigurationRecord.
func AppendVideoConfigTag(b []byte, timestamp uint32, record []byte) []byte {
	size := 5 + len(record)
	b = AppendTagHeader(b, TagVideo, timestamp, size)
	b = append(b, flvFrameKey<<4|flvCodecAVC, avcSequence, 0, 0, 0)
	b = append(b, record...)
	return binary.BigEndian.AppendUint32(b, uint32(flvTagOverhead+size))
}

// AudioTag is a parsed AAC audio tag body.
type AudioTag struct {
	// Config is set when Data is an AudioSpecificConfig.
	Config bool
	// Data is the configuration or one raw AAC frame.
	Data []byte
}

// ParseAudioTag parses the body of an audio tag (E.4.2). A codec other than
// AAC gives an [UnsupportedCodecError].
func ParseAudioTag(b []byte) (AudioTag, error) {
	if len(b) == 0 {
		return AudioTag{}, errors.New("audio tag is empty")
	}
	if format := b[0] >> 4; format != flvFormatAAC {
		return AudioTag{}, &UnsupportedCodecError{Audio, audioFormatName(format, b)}
	}
	if len(b) < 2 {
		return AudioTag{}, errors.New("audio tag is cut short")
	}
	switch b[1] {
	case aacSequence:
		return AudioTag{Config: true, Data: b[2:]}, nil
	case aacRaw:
		return AudioTag{Data: b[2:]}, nil
	}
	return AudioTag{}, fmt.Errorf("audio tag has the unknown AAC packet type %d", b[1])
}

func audioFormatName(format byte, b []byte) string {
	switch format {
	case 0, 3:
		return "PCM"
	case 1:
		return "ADPCM"
	case 2, 14:
		return "MP3"
	case 4, 5, 6:
		return "Nellymoser"
	case 7, 8:
		return "G.711"
	case 9:
		if len(b) >= 5 {
			return fmt.Sprintf("%q", b[1:5])
		}
	case 11:
		return "Speex"
	}
	return fmt.Sprintf("number %d", format)
}

// AppendAudioTag appends an FLV tag with one raw AAC frame, or, with config
// set, an AudioSpecificConfig.
func AppendAudioTag(b []byte, timestamp uint32, config bool, data []byte) []byte {
	packet := byte(aacRaw)
	if config {
		packet = aacSequence
	}
	size := 2 + len(data)
	b = AppendTagHeader(b, TagAudio, timestamp, size)
	b = append(b, flvAACTagByte, packet)
	b = append(b, data...)
	return binary.BigEndian.AppendUint32(b, uint32(flvTagOverhead+size))
}
