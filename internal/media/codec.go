package media

import (
	"bytes"
	"fmt"

	"github.com/Eyevinn/mp4ff/mp4"
)

// Format is a coding format of pictures or sound, by the four characters that
// name its sample entry in MP4 and its FourCC in Enhanced RTMP.
type Format string

// The formats that Millrace takes. Another one is another line in formats, and
// a file of its own.
const (
	H264 Format = "avc1"
	HEVC Format = "hvc1"
	AV1  Format = "av01"
	AAC  Format = "mp4a"
	Opus Format = "Opus"
	// Sound of older encoders, which is always encoded anew.
	MP3   Format = ".mp3"
	ALaw  Format = "alaw"
	MuLaw Format = "ulaw"
)

// format is what there is to know of a [Format].
type format struct {
	kind  Kind
	title string
	// parse reads a decoder configuration record into all of a Codec but its
	// Format and Record.
	parse func(record []byte) (Codec, error)
	// randomAccess reports whether decoding can start at an access unit, and
	// fails when a decoder would stumble over it.
	randomAccess func(payload []byte) (bool, error)
	// box builds the box in the sample entry that holds the record.
	box func(c *Codec) (mp4.Box, error)
	// silence returns one access unit of silence; nil for pictures.
	silence func(c *Codec) []byte
}

// formats has a line for each format.
var formats = map[Format]*format{
	H264: {Video, "H.264", parseH264, h264RandomAccess, recordBox("avcC"), nil},
	HEVC: {Video, "HEVC", parseHEVC, hevcRandomAccess, recordBox("hvcC"), nil},
	AV1:  {Video, "AV1", parseAV1, av1RandomAccess, recordBox("av1C"), nil},
	AAC:  {Audio, "AAC", parseAAC, soundRandomAccess, aacBox, aacSilence},
	Opus: {Audio, "Opus", parseOpus, soundRandomAccess, opusBox, opusSilence},

	MP3:   {Audio, "MP3", parseMP3, soundRandomAccess, noBox, mp3Silence},
	ALaw:  {Audio, "G.711", parseG711, soundRandomAccess, noBox, g711Silence},
	MuLaw: {Audio, "G.711", parseG711, soundRandomAccess, noBox, g711Silence},
}

// Kind tells whether f is of pictures or of sound; 0 for an unknown format.
func (f Format) Kind() Kind {
	if known := formats[f]; known != nil {
		return known.kind
	}
	return 0
}

// String returns the format's plain name, such as "H.264".
func (f Format) String() string {
	if known := formats[f]; known != nil {
		return known.title
	}
	return fmt.Sprintf("%q", string(f))
}

// Codec is one configuration of a format: what a decoder must know before the
// first access unit. It is never changed once it is made, and so shared freely.
type Codec struct {
	Format Format
	// Record is the decoder configuration record: an
	// AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1), an
	// HEVCDecoderConfigurationRecord (8.3.3.1), an AV1CodecConfigurationRecord
	// (AV1-ISOBMFF, 2.3.3), an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1),
	// an Opus identification header (RFC 7845, 5.1), a frame header of MP3 (see
	// [MP3Config]), or a WAVEFORMATEX of G.711.
	Record []byte
	// Name is the RFC 6381 name that playlists need, such as "avc1.64001f".
	Name string

	// Width and Height are the shown picture's, in square pixels; Picture says
	// what is coded.
	Width, Height int
	Picture       Picture

	// Rate is in samples a second.
	Rate int
	// Channels is how many there are.
	Channels int
	// FrameSamples is how many samples per channel one access unit holds.
	FrameSamples Samples

	// Universal is set where every player can play it: H.264 of 8 bits and
	// 4:2:0; AAC-LC in mono or stereo with 1,024 samples a frame.
	Universal bool
	// Variety names, for people, the kind of its format: "High 10", "HE-AAC".
	Variety string
}

// MaxRecord is the largest configuration record that is taken, in bytes: real
// ones have some hundreds, and whoever reads a log bounds its entries.
const MaxRecord = 32 << 10

// ParseCodec reads a decoder configuration record, which it keeps. Errors name
// the format, in words that a streamer can read.
func ParseCodec(f Format, record []byte) (*Codec, error) {
	known := formats[f]
	if known == nil {
		return nil, fmt.Errorf("the codec %s is not supported", f)
	}
	if len(record) > MaxRecord {
		return nil, fmt.Errorf("parse %s configuration: it has %d bytes, at most %d are accepted", f, len(record), MaxRecord)
	}
	c, err := known.parse(record)
	if err != nil {
		return nil, fmt.Errorf("parse %s configuration: %w", f, err)
	}
	c.Format, c.Record = f, record
	return &c, nil
}

// Kind tells whether c is of pictures or of sound.
func (c *Codec) Kind() Kind { return c.Format.Kind() }

// Equal reports whether c and d, which may be nil, configure a decoder alike.
func (c *Codec) Equal(d *Codec) bool {
	if c == nil || d == nil {
		return c == d
	}
	if c.Format != d.Format || c.FrameSamples != d.FrameSamples {
		return false
	}
	// Plain AAC-LC is all said by its rate and channels, whatever follows in its record.
	plain := c.Format == AAC && c.Universal && d.Universal && c.Rate == d.Rate && c.Channels == d.Channels
	return plain || bytes.Equal(c.Record, d.Record)
}

// RandomAccess reports whether decoding can start at an access unit of c, and
// fails when a decoder would stumble over it.
func (c *Codec) RandomAccess(payload []byte) (bool, error) {
	return formats[c.Format].randomAccess(payload)
}

// Silence returns an access unit of silence, nil for pictures. The caller must
// not change it.
func (c *Codec) Silence() []byte {
	if silence := formats[c.Format].silence; silence != nil {
		return silence(c)
	}
	return nil
}

// WithFrame returns c, of sound, with another number of samples in an access unit. AAC of
// several frames in one isn't [Codec.Universal] any more.
func (c *Codec) WithFrame(samples Samples) *Codec {
	d := *c
	d.FrameSamples = samples
	if c.Universal && samples != c.FrameSamples {
		d.Universal, d.Variety = false, "AAC of several frames in one"
	}
	return &d
}

// Timescale is that of a rendition in c: [VideoTimescale], or the sample rate.
func (c *Codec) Timescale() int {
	if c.Kind() == Audio {
		return c.Rate
	}
	return VideoTimescale
}

// Grid returns the grid that c's frames lie on, through a place of it.
func (c *Codec) Grid(origin Samples) Grid {
	return Grid{Rate: c.Rate, Frame: c.FrameSamples, Origin: origin}
}

// Step is how long one access unit of sound lasts, rounded down; 0 of pictures.
func (c *Codec) Step() Ticks {
	if c.Kind() != Audio {
		return 0
	}
	return c.FrameSamples.Ticks(c.Rate)
}

// noBox: what is always encoded anew is never in an init section.
func noBox(c *Codec) (mp4.Box, error) {
	return nil, fmt.Errorf("build the sample entry of %s: it isn't for players", c.Format)
}

// soundRandomAccess: any access unit of sound can be decoded by itself.
func soundRandomAccess(payload []byte) (bool, error) {
	if len(payload) == 0 {
		return false, errEmpty
	}
	return true, nil
}
