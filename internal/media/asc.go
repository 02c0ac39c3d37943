package media

import (
	"errors"
	"fmt"
)

// Audio object types (ISO/IEC 14496-3, table 1.17).
const (
	aacMain    = 1
	aacLC      = 2
	aacSSR     = 3
	aacLTP     = 4
	aacSBR     = 5
	aacERLC    = 17
	aacERLD    = 23
	aacPS      = 29
	aacEscape  = 31 // the type is 32 and six further bits
	aacERELD   = 39
	aacUSAC    = 42
	erBSAC     = 22 // a base type that brings a field of its own
	aacSync    = 0x2b7
	aacSyncPS  = 0x548
	rateEscape = 15 // the rate is 24 further bits
)

// aacRates are the rates of the sampling frequency indexes.
var aacRates = [...]int{96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350}

// aacLayouts are the channels of the channel configurations (14496-3, table 1.19); 0 of
// those that are reserved, or that a program config element stands for.
var aacLayouts = [16]int{0, 1, 2, 3, 4, 5, 6, 8, 0, 0, 0, 7, 8, 0, 8, 0}

// aacKinds names object types for people; what FFmpeg decodes stands in aacSamples, too.
var aacKinds = map[int]string{
	aacMain: "AAC Main", aacLC: "AAC-LC", aacSSR: "AAC SSR", aacLTP: "AAC LTP", aacERLC: "ER AAC-LC",
	aacERLD: "AAC-LD", aacERELD: "AAC-ELD", aacUSAC: "xHE-AAC",
}

// aacSamples are the samples of a frame by the object type and frameLengthFlag.
var aacSamples = map[int][2]Samples{
	aacMain: {1024, 960}, aacLC: {1024, 960}, aacLTP: {1024, 960}, aacERLC: {1024, 960},
	aacERLD: {512, 480}, aacERELD: {512, 480},
}

// aacConfig is an AudioSpecificConfig (14496-3, 1.6.2.1).
type aacConfig struct {
	object   int // the core's audio object type
	rate     int // the core's
	layout   int // the channel configuration; 0: a program config element says it
	channels int
	frame    Samples // of the core
	sbr, ps  bool    // signalled explicitly, in either way
}

// parseASC reads an AudioSpecificConfig.
func parseASC(asc []byte) (aacConfig, error) {
	r := &bitReader{b: asc}
	c := aacConfig{object: readObject(r)}
	c.rate, c.layout = readRate(r), r.read(4)
	if c.object == aacSBR || c.object == aacPS {
		c.sbr, c.ps = true, c.object == aacPS
		readRate(r) // with SBR
		if c.object = readObject(r); c.object == erBSAC {
			r.read(4)
		}
	}
	samples, ok := aacSamples[c.object]
	if !ok && r.err == nil {
		if kind := aacKinds[c.object]; kind != "" {
			return c, fmt.Errorf("%s can't be decoded", kind)
		}
		return c, fmt.Errorf("the audio object type %d can't be decoded", c.object)
	}
	c.channels = aacLayouts[c.layout]
	c.frame = samples[r.read(1)] // frameLengthFlag
	if c.object == aacERELD {
		return c, c.check(r)
	}
	if r.flag() { // dependsOnCoreCoder
		r.read(14)
	}
	extension := r.flag()
	if c.layout == 0 {
		c.channels = readProgram(r)
	}
	if extension && c.object >= aacERLC {
		r.read(4) // resilience flags, extensionFlag3
	}
	if c.object >= aacERLC {
		r.read(2) // epConfig
	}
	if err := c.check(r); err != nil {
		return c, err
	}
	c.readSync(r)
	return c, nil
}

// check says what is wrong with what was read.
func (c *aacConfig) check(r *bitReader) error {
	switch {
	case r.err != nil:
		return r.err
	case c.rate < 7350 || c.rate > 96000:
		return fmt.Errorf("a rate of %d samples a second is out of range", c.rate)
	case c.channels < 1 || c.channels > 8:
		return errors.New("the number of channels is out of range")
	}
	return nil
}

// readSync reads what encoders write behind the configuration, so that decoders
// without SBR overlook it: the backward compatible signalling (14496-3, 1.6.5.2).
func (c *aacConfig) readSync(r *bitReader) {
	if c.sbr || r.left() < 16 || r.read(11) != aacSync || readObject(r) != aacSBR || !r.flag() {
		return
	}
	c.sbr = true
	readRate(r)
	c.ps = r.left() >= 12 && r.read(11) == aacSyncPS && r.flag()
}

func readObject(r *bitReader) int {
	if object := r.read(5); object != aacEscape {
		return object
	}
	return 32 + r.read(6)
}

func readRate(r *bitReader) int {
	switch index := r.read(4); {
	case index == rateEscape:
		return r.read(24)
	case index < len(aacRates):
		return aacRates[index]
	}
	return 0
}

// readProgram reads a program config element (14496-3, 4.4.1.1) up to its
// comment, and returns how many channels it describes.
func readProgram(r *bitReader) (channels int) {
	r.read(4 + 2 + 4) // element_instance_tag, object_type, sampling_frequency_index
	main := r.read(4) + r.read(4) + r.read(4)
	lfe, data, coupling := r.read(2), r.read(3), r.read(4)
	for range 2 { // mono and stereo mixdown
		if r.flag() {
			r.read(4)
		}
	}
	if r.flag() { // matrix mixdown
		r.read(2 + 1)
	}
	for range main {
		channels++
		if r.flag() { // a pair
			channels++
		}
		r.read(4)
	}
	for range lfe + data {
		r.read(4)
	}
	for range coupling {
		r.read(1 + 4)
	}
	return channels + lfe
}
