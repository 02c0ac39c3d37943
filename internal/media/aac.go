package media

import (
	"errors"

	"github.com/Eyevinn/mp4ff/mp4"
)

// SilentStereo48k is the AudioSpecificConfig of AAC-LC, 48 kHz, stereo: the
// track that a broadcast without sound gets, and what odd sound is encoded to.
var SilentStereo48k = []byte{0x11, 0x90}

// aacFrame is how many samples a frame has that every player can play.
const aacFrame Samples = 1024

func parseAAC(asc []byte) (c Codec, err error) {
	a, err := parseASC(asc)
	if err != nil {
		return c, err
	}
	c.Name, c.Rate, c.Channels, c.FrameSamples = "mp4a.40.2", a.rate, a.channels, a.frame
	switch plain := a.object == aacLC; {
	case a.ps:
		c.Variety = "HE-AAC v2"
	case a.sbr:
		c.Variety = "HE-AAC"
	case !plain:
		c.Variety = aacKinds[a.object]
	case a.layout == 0:
		c.Variety = "AAC with a program config element"
	case a.frame != aacFrame:
		c.Variety = "AAC of 960 samples a frame"
	default:
		c.Universal = a.channels <= 2
	}
	return c, nil
}

// Syntax elements of a raw data block, by their id_syn_ele (14496-3, table 4.85).
const (
	elementSingle = iota
	elementPair
	elementCoupling
	elementLFE
	elementData
	elementProgram
	elementFill
	elementEnd
)

// AACChannels returns how many channels the first element of an access unit of AAC
// has that has any: 1 or 2, and 0 where that isn't known. It fails where no
// decoder could make sense of the unit. Of the error resilient types it knows nothing.
func AACChannels(payload []byte) (int, error) {
	for r := (&bitReader{b: payload}); r.left() >= 3; {
		switch r.read(3) {
		case elementSingle:
			return 1, nil
		case elementPair:
			return 2, nil
		case elementData:
			r.read(4)
			aligned, n := r.flag(), r.read(8)
			if n == 255 {
				n += r.read(8)
			}
			if aligned {
				r.align()
			}
			r.skip(8 * n)
		case elementFill:
			n := r.read(4)
			if n == 15 {
				n += r.read(8) - 1
			}
			r.skip(8 * n)
		case elementEnd:
			return 0, errors.New("parse AAC: an access unit has no channel")
		default:
			return 0, nil
		}
	}
	return 0, errCutShort
}

// aacSilence returns an AAC-LC frame of silence for 1 or 2 channels, at any
// rate. Of more channels it is the stereo one, which decoders refuse quietly.
func aacSilence(c *Codec) []byte {
	if c.Channels == 1 {
		return silentMono
	}
	return silentStereo
}

var (
	silentMono   = []byte{0x01, 0x18, 0x20, 0x07}
	silentStereo = []byte{0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c}
)

// StereoAAC is the codec of [SilentStereo48k].
func StereoAAC() *Codec {
	c, err := ParseCodec(AAC, SilentStereo48k)
	if err != nil {
		panic(err) // it is a constant
	}
	return c
}

func aacBox(c *Codec) (mp4.Box, error) { return mp4.CreateEsdsBox(c.Record), nil }
