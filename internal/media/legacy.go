package media

import (
	"errors"
	"fmt"
)

// This file holds the names from before [Codec], until nothing uses them.

// AACFrameSamples is how many samples per channel one AAC access unit holds.
const AACFrameSamples = 1024

// AccessUnit is one coded frame.
type AccessUnit struct {
	Kind     Kind
	DTS, PTS Ticks
	IDR      bool
	Payload  []byte
}

// AVCConfig is what a decoder must know before the first access unit.
type AVCConfig struct {
	Record        []byte
	Width, Height int
	Codec         string
}

// ParseAVCConfig reads an AVCDecoderConfigurationRecord.
func ParseAVCConfig(record []byte) (*AVCConfig, error) {
	c, err := ParseCodec(H264, record)
	if err != nil {
		return nil, err
	}
	return &AVCConfig{Record: record, Width: c.Width, Height: c.Height, Codec: c.Name}, nil
}

// ScanAVC reports whether an access unit has an IDR slice.
func ScanAVC(payload []byte) (idr bool, err error) { return h264RandomAccess(payload) }

// AACConfig is what a decoder must know before the first audio frame.
type AACConfig struct {
	ASC            []byte
	Rate, Channels int
	Plain          bool
}

// Codec is the RFC 6381 name of AAC-LC.
func (c *AACConfig) Codec() string { return "mp4a.40.2" }

// ParseAACConfig reads an AudioSpecificConfig.
func ParseAACConfig(asc []byte) (*AACConfig, error) {
	c, err := ParseCodec(AAC, asc)
	if err == nil && c.FrameSamples != AACFrameSamples {
		err = errors.New("frames of 960 samples can't be taken, 1,024 are needed")
	}
	if err != nil {
		return nil, fmt.Errorf("parse AAC configuration: %w", err)
	}
	return &AACConfig{ASC: asc, Rate: c.Rate, Channels: c.Channels, Plain: c.Universal}, nil
}

// SilentAAC returns one AAC-LC frame of silence.
func SilentAAC(channels int) []byte { return aacSilence(&Codec{Channels: channels}) }

// VideoInit builds the header of a video rendition.
func VideoInit(c *AVCConfig) (*Init, error) {
	d, err := ParseCodec(H264, c.Record)
	if err != nil {
		return nil, err
	}
	return d.Init()
}

// AudioInit builds the header of an audio rendition.
func AudioInit(c *AACConfig) (*Init, error) {
	d, err := ParseCodec(AAC, c.ASC)
	if err != nil {
		return nil, err
	}
	return d.Init()
}
