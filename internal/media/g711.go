package media

import (
	"bytes"
	"encoding/binary"
	"errors"
)

const (
	// g711Rate is the only rate of G.711 (ITU-T G.711, 2), and g711Frame the samples that an access
	// unit has here: 20 ms. G.711 itself knows no frames.
	g711Rate          = 8000
	g711Frame Samples = 160
	// The kinds of WAVEFORMATEX (RFC 2361, A.6 and A.7), and its size.
	waveALaw, waveMuLaw = 6, 7
	waveFormat          = 18
)

// G711Config returns the configuration of G.711 with so many channels: a WAVEFORMATEX (RFC 2361),
// which is what Matroska has of it. G.711 itself has none.
func G711Config(f Format, channels int) []byte {
	kind := uint16(waveALaw)
	if f == MuLaw {
		kind = waveMuLaw
	}
	b := binary.LittleEndian.AppendUint16(nil, kind)
	b = binary.LittleEndian.AppendUint16(b, uint16(channels))
	b = binary.LittleEndian.AppendUint32(b, g711Rate)
	b = binary.LittleEndian.AppendUint32(b, uint32(g711Rate*channels))
	b = binary.LittleEndian.AppendUint16(b, uint16(channels)) // bytes of a sample of all channels
	b = binary.LittleEndian.AppendUint16(b, 8)                // bits of a sample
	return append(b, 0, 0)
}

func parseG711(record []byte) (c Codec, err error) {
	if len(record) != waveFormat {
		return c, errors.New("it is no WAVEFORMATEX")
	}
	f := ALaw
	if binary.LittleEndian.Uint16(record) == waveMuLaw {
		f = MuLaw
	}
	channels := int(binary.LittleEndian.Uint16(record[2:]))
	if channels != 1 && channels != 2 || !bytes.Equal(record, G711Config(f, channels)) {
		return c, errors.New("it isn't that of G.711 at 8 kHz in mono or stereo")
	}
	c.Name, c.Variety = string(f), "G.711"
	c.Rate, c.Channels, c.FrameSamples = g711Rate, channels, g711Frame
	return c, nil
}

// g711Silence is all zero amplitude, which both laws have bits inverted for.
func g711Silence(c *Codec) []byte {
	zero := byte(0xd5)
	if c.Format == MuLaw {
		zero = 0xff
	}
	return bytes.Repeat([]byte{zero}, int(c.FrameSamples)*c.Channels)
}
