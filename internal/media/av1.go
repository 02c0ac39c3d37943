package media

import (
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/av1"
	av1codec "github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
)

// Types of open bitstream units (AV1 specification, 6.2.2).
const (
	obuSequenceHeader = 1
	obuFrameHeader    = 3
	obuFrame          = 6
)

// av1Kept is how many frames every decoder keeps (7.20, NUM_REF_FRAMES).
const av1Kept = 8

var errOBUs = errors.New("the lengths of its OBUs don't add up")

func parseAV1(record []byte) (c Codec, err error) {
	rec, err := av1.DecodeAV1CodecConfRec(record)
	if err != nil {
		return c, err
	}
	var sequence []byte
	var further error
	err = eachOBU(rec.ConfigOBUs, func(t byte, body []byte) {
		switch {
		case t != obuSequenceHeader:
		case sequence == nil:
			sequence = body
		default: // a decoder goes by the last one
			further = errors.Join(further, CheckAV1Sequence(body))
		}
	})
	if err != nil || sequence == nil {
		return c, errors.Join(errors.New("it has no sequence header"), err)
	}
	if further != nil {
		return c, further
	}
	h, err := parseSequence(sequence)
	if err != nil {
		return c, err
	}
	picture := av1Picture(&h)
	c.Variety = picture.variety()
	tier := "M"
	if rec.SeqTier0 == 1 {
		tier = "H"
	}
	// AV1-ISOBMFF, 5: av01.<profile>.<level><tier>.<bit depth>
	c.Name = fmt.Sprintf("av01.%d.%02d%s.%02d", rec.SeqProfile, rec.SeqLevelIdx0, tier, picture.Depth)
	return c, c.setPicture(picture)
}

// av1Picture returns what a sequence header says of the pictures (5.5.2). It
// knows neither samples that aren't square nor fields.
func av1Picture(h *av1codec.SequenceHeader) Picture {
	k := &h.ColorConfig
	p := Picture{
		Width: h.Width(), Height: h.Height(), Depth: k.BitDepth, Chroma: Chroma444,
		Decoded: Decoded{Width: h.Width(), Height: h.Height(), Pictures: av1Kept},
		Colour:  colourOf(uint8(k.ColorPrimaries), uint8(k.TransferCharacteristics), uint8(k.MatrixCoefficients), k.ColorRange),
	}
	switch {
	case k.MonoChrome:
		p.Chroma = Monochrome
	case k.SubsamplingY:
		p.Chroma = Chroma420
	case k.SubsamplingX:
		p.Chroma = Chroma422
	}
	return p
}

// av1RandomAccess looks for a sequence header and the header of a key frame
// that is shown, as sync samples have them (AV1-ISOBMFF, 2.4).
func av1RandomAccess(payload []byte) (bool, error) {
	sequence, key := false, false
	err := eachOBU(payload, func(t byte, body []byte) {
		switch {
		case t == obuSequenceHeader:
			sequence = true
		case (t == obuFrame || t == obuFrameHeader) && len(body) > 0:
			// show_existing_frame 0, frame_type KEY_FRAME (0), show_frame 1 (5.9.2).
			key = key || body[0]>>4 == 1
		}
	})
	return sequence && key, err
}

// eachOBU calls fn with the type and body of the open
// bitstream units of a temporal unit, which all have their sizes ("low-overhead
// bitstream format", 5.2). It fails when the sizes don't add up.
func eachOBU(payload []byte, fn func(t byte, body []byte)) error {
	if len(payload) == 0 {
		return errEmpty
	}
	for len(payload) > 0 {
		header := payload[0]
		n := 1
		if header&4 != 0 { // an extension byte
			n = 2
		}
		if header&0x80 != 0 || header&2 == 0 || len(payload) < n+1 {
			return errOBUs
		}
		var size av1codec.LEB128
		length, err := size.Unmarshal(payload[n:])
		if err != nil || int64(size) > int64(len(payload)-n-length) {
			return errOBUs
		}
		n += length
		fn(header>>3&0xf, payload[n:n+int(size)])
		payload = payload[n+int(size):]
	}
	return nil
}
