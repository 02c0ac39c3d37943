package media

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/Eyevinn/mp4ff/mp4"
)

// trackID is the only track of every file that Millrace writes.
const trackID = 1

// Init is a CMAF header: the codec configuration that EXT-X-MAP names.
type Init struct {
	// Data is the ftyp and moov boxes.
	Data []byte
	// Hash names Data: the first 16 hexadecimal digits of its SHA-256.
	Hash string
}

// Init builds the header of a rendition in c, with c's [Codec.Timescale].
func (c *Codec) Init() (*Init, error) {
	box, err := formats[c.Format].box(c)
	if err != nil {
		return nil, fmt.Errorf("build %s init section: %w", c.Format, err)
	}
	init := mp4.CreateEmptyInit()
	init.AddEmptyTrack(uint32(c.Timescale()), c.Kind().String(), "und")
	trak := init.Moov.Trak
	if c.Kind() == Video {
		trak.Tkhd.Width = mp4.Fixed32(c.Width << 16)
		trak.Tkhd.Height = mp4.Fixed32(c.Height << 16)
		trak.Mdia.Minf.Stbl.Stsd.AddChild(c.pictureEntry(box))
		return encodeInit(init)
	}
	entryRate := c.Rate
	if entryRate > 0xffff {
		entryRate = 0 // 16 bits hold no more; decoders read the rate from the configuration
	}
	trak.Mdia.Minf.Stbl.Stsd.AddChild(mp4.CreateAudioSampleEntryBox(string(c.Format),
		uint16(c.Channels), 16, uint16(entryRate), box))
	return encodeInit(init)
}

// pictureEntry builds the sample entry of pictures, with what they say of their
// samples' shape and of their colours (ISO/IEC 14496-12, 12.1.4 and 12.1.5).
func (c *Codec) pictureEntry(record mp4.Box) *mp4.VisualSampleEntryBox {
	p := c.Picture
	entry := mp4.CreateVisualSampleEntryBox(string(c.Format), uint16(p.Width), uint16(p.Height), record)
	if a := p.Aspect; !a.Square() {
		entry.AddChild(&mp4.PaspBox{HSpacing: uint32(a.Width), VSpacing: uint32(a.Height)})
	}
	if k := p.Colour.Complete(); k != unspecified {
		entry.AddChild(&mp4.ColrBox{
			ColorType: mp4.ColorTypeOnScreenColors, FullRangeFlag: k.FullRange,
			ColorPrimaries: uint16(k.Primaries), TransferCharacteristics: uint16(k.Transfer), MatrixCoefficients: uint16(k.Matrix),
		})
	}
	return entry
}

// recordBox returns a box that holds a record as it came.
func recordBox(name string) func(*Codec) (mp4.Box, error) {
	return func(c *Codec) (mp4.Box, error) {
		const header = 8
		return mp4.CreateUnknownBox(name, uint64(header+len(c.Record)), c.Record), nil
	}
}

func encodeInit(init *mp4.InitSegment) (*Init, error) {
	init.Ftyp = mp4.NewFtyp("iso6", 0, []string{"iso6", "cmfc", "mp41"})
	init.Children[0] = init.Ftyp
	var b bytes.Buffer
	if err := init.Encode(&b); err != nil {
		return nil, fmt.Errorf("build init section: %w", err)
	}
	sum := sha256.Sum256(b.Bytes())
	return &Init{Data: b.Bytes(), Hash: hex.EncodeToString(sum[:8])}, nil
}

// Sample is one access unit inside a [Fragment], timed in its track's timescale.
type Sample struct {
	Duration uint32
	// CompositionOffset is PTS minus decode time; it may be negative.
	CompositionOffset int32
	// Sync is set on samples that decoding can start at.
	Sync    bool
	Payload []byte
}

// Fragment is a CMAF chunk: one moof and one mdat (ISO/IEC 23000-19, 7.3.3).
type Fragment struct {
	// Number is mfhd's sequence_number.
	Number uint32
	// DecodeTime is the first sample's, in the track's timescale.
	DecodeTime uint64
	Samples    []Sample
}

// Sample flags of ISO/IEC 14496-12, 8.8.3.1.
const (
	sampleFlagsSync    = 0x02000000 // depends on no other
	sampleFlagsNonSync = 0x01010000 // depends on others, is not a sync sample
)

const (
	tfhdDefaultBaseIsMoof = 0x020000
	trunDataOffset        = 0x000001
	trunDuration          = 0x000100
	trunSize              = 0x000200
	trunFlags             = 0x000400
	trunComposition       = 0x000800
)

// Append appends the fragment's boxes to b.
func (f *Fragment) Append(b []byte) []byte {
	const (
		mfhdSize = 16
		tfhdSize = 16
		tfdtSize = 20
	)
	trunBox := 20 + 16*len(f.Samples)
	traf := 8 + tfhdSize + tfdtSize + trunBox
	moof := 8 + mfhdSize + traf
	data := 0
	for i := range f.Samples {
		data += len(f.Samples[i].Payload)
	}
	u32 := binary.BigEndian.AppendUint32
	box := func(size int, name string) { b = append(u32(b, uint32(size)), name...) }

	box(moof, "moof")
	box(mfhdSize, "mfhd")
	b = u32(u32(b, 0), f.Number)
	box(traf, "traf")
	box(tfhdSize, "tfhd")
	b = u32(u32(b, tfhdDefaultBaseIsMoof), trackID)
	box(tfdtSize, "tfdt")
	b = u32(b, 1<<24) // version 1: 64-bit time
	b = binary.BigEndian.AppendUint64(b, f.DecodeTime)
	box(trunBox, "trun")
	b = u32(b, 1<<24|trunDataOffset|trunDuration|trunSize|trunFlags|trunComposition) // version 1: signed offsets
	b = u32(b, uint32(len(f.Samples)))
	b = u32(b, uint32(moof+8))
	for i := range f.Samples {
		s := &f.Samples[i]
		flags := uint32(sampleFlagsNonSync)
		if s.Sync {
			flags = sampleFlagsSync
		}
		b = u32(u32(u32(u32(b, s.Duration), uint32(len(s.Payload))), flags), uint32(s.CompositionOffset))
	}
	box(8+data, "mdat")
	for i := range f.Samples {
		b = append(b, f.Samples[i].Payload...)
	}
	return b
}
