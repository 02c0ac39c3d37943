package media

import (
	"errors"
	"fmt"

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

// AACElement is the first element with sound of an access unit of AAC. It is comparable.
type AACElement struct {
	// Channels is 1 or 2.
	Channels int
	tag      int
}

// FirstAACElement looks at how an access unit of AAC-LC in mono or stereo begins. It
// fails where no decoder could make sense of that.
func FirstAACElement(payload []byte) (e AACElement, err error) {
	for r := (&bitReader{b: payload}); r.left() >= 3; {
		switch id := r.read(3); id {
		case elementSingle, elementPair:
			e = AACElement{id + 1, r.read(4)}
			if id == elementSingle || !r.flag() { // common_window
				r.read(8) // global_gain
			}
			return e, checkWindow(r)
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
		case elementProgram:
			readProgram(r)
			r.align()
			r.skip(8 * r.read(8))
		default:
			return e, fmt.Errorf("parse AAC: an access unit begins with the element %d", id)
		}
	}
	return e, errCutShort
}

// checkWindow looks at an ics_info (14496-3, 4.4.2.1) of AAC-LC.
func checkWindow(r *bitReader) error {
	const (
		short     = 2 // of the window sequences, the one of eight short windows
		mostLong  = 51
		mostShort = 15
	)
	reserved, sequence := r.flag(), r.read(2)
	r.read(1) // window_shape
	bad := reserved
	if sequence == short {
		bad = bad || r.read(4) > mostShort
		r.read(7) // scale_factor_grouping
	} else {
		bad = bad || r.read(6) > mostLong
		bad = bad || r.flag() // there is no prediction in AAC-LC
	}
	if r.err == nil && bad {
		return errors.New("parse AAC: an access unit's windows make no sense")
	}
	return r.err
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
