package media

import (
	"errors"
	"fmt"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
)

// AACConfig is what a decoder must know before the first audio frame.
type AACConfig struct {
	// ASC is the AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1).
	ASC []byte
	// Rate is in samples a second.
	Rate int
	// Channels is how many there are.
	Channels int
	// Plain is set for AAC-LC in mono or stereo with 1,024 samples a frame,
	// which every player takes; anything else must be encoded anew.
	Plain bool
}

// Codec is the RFC 6381 name of AAC-LC.
func (c *AACConfig) Codec() string { return "mp4a.40.2" }

// ParseAACConfig reads an AudioSpecificConfig. It keeps asc.
func ParseAACConfig(asc []byte) (*AACConfig, error) {
	var a mpeg4audio.AudioSpecificConfig
	if err := a.Unmarshal(asc); err != nil {
		return nil, fmt.Errorf("parse AAC configuration: %w", err)
	}
	if a.SampleRate < 7350 || a.SampleRate > 96000 {
		return nil, fmt.Errorf("parse AAC configuration: a rate of %d samples a second is out of range", a.SampleRate)
	}
	if a.ChannelCount < 1 || a.ChannelCount > 8 {
		return nil, errors.New("parse AAC configuration: the number of channels is out of range")
	}
	if a.FrameLengthFlag {
		return nil, errors.New("parse AAC configuration: frames of 960 samples can't be taken, 1,024 are needed")
	}
	return &AACConfig{
		ASC: asc, Rate: a.SampleRate, Channels: a.ChannelCount,
		Plain: a.Type == mpeg4audio.ObjectTypeAACLC && a.ExtensionType == 0 && a.ChannelCount <= 2,
	}, nil
}

// SilentStereo48k is the AudioSpecificConfig of AAC-LC, 48 kHz, stereo: the
// track that a broadcast without sound gets.
var SilentStereo48k = []byte{0x11, 0x90}

// SilentAAC returns one AAC-LC frame of silence for 1 or 2 channels, at any rate.
// Frames of more channels are filled with the stereo one, which decoders refuse
// quietly. The caller must not change it.
func SilentAAC(channels int) []byte {
	if channels == 1 {
		return silentMono
	}
	return silentStereo
}

var (
	silentMono   = []byte{0x01, 0x18, 0x20, 0x07}
	silentStereo = []byte{0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c}
)
