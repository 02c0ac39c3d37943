package media

import (
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
)

// SilentStereo48k is the AudioSpecificConfig of AAC-LC, 48 kHz, stereo: the
// track that a broadcast without sound gets, and what odd sound is encoded to.
var SilentStereo48k = []byte{0x11, 0x90}

// Samples of an AAC access unit (ISO/IEC 14496-3, frameLengthFlag 0 and 1).
const (
	aacFrame      Samples = 1024
	aacShortFrame Samples = 960
)

func parseAAC(asc []byte) (c Codec, err error) {
	var a mpeg4audio.AudioSpecificConfig
	if err := a.Unmarshal(asc); err != nil {
		return c, err
	}
	if a.SampleRate < 7350 || a.SampleRate > 96000 {
		return c, fmt.Errorf("a rate of %d samples a second is out of range", a.SampleRate)
	}
	if a.ChannelCount < 1 || a.ChannelCount > 8 {
		return c, errors.New("the number of channels is out of range")
	}
	c.Name, c.Rate, c.Channels, c.FrameSamples = "mp4a.40.2", a.SampleRate, a.ChannelCount, aacFrame
	if a.FrameLengthFlag {
		c.FrameSamples = aacShortFrame
	}
	lc := a.Type == mpeg4audio.ObjectTypeAACLC && a.ExtensionType == 0
	c.Universal = lc && c.Channels <= 2 && c.FrameSamples == aacFrame
	if !lc {
		c.Variety = "HE-AAC"
	}
	return c, nil
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
