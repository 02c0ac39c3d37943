// Package ertmp publishes encoded media as an encoder does that speaks Enhanced
// RTMP (veovera v2-2026-01-31-r2), in every form that the specification knows:
// FourCC and legacy tags, composition times or none, ModEx, multitrack. Debian's
// FFmpeg 5.1 makes the bitstreams, and can't write such tags itself. The tags are
// made here a second time, apart from the product's own, so that a test doesn't
// judge a parser by the writer that came with it.
package ertmp

import (
	"fmt"
	"os"
	"time"

	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

// Source is a clip to publish, once or over and over. Either track may be nil.
type Source struct {
	Video, Audio *Track
}

// Track is a clip's one kind of media.
type Track struct {
	// FourCC is the codec's: avc1, hvc1, av01, mp4a or Opus.
	FourCC string
	// Config is the body of a SequenceStart: the record of avcC, hvcC or av1C,
	// an AudioSpecificConfig, or OpusHead.
	Config []byte
	units  []unit
	length time.Duration
}

// unit is one access unit; its times count from the clip's beginning.
type unit struct {
	dts     time.Duration
	offset  time.Duration // PTS minus DTS
	key     bool
	payload []byte
}

// Read reads a fragmented MP4 file: see [mediatest.Parse].
func Read(path string) (*Source, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	video, audio, err := mediatest.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return New(video, audio), nil
}

// New makes a source of a clip's tracks.
func New(video, audio *mediatest.Track) *Source {
	return &Source{newTrack(video), newTrack(audio)}
}

func newTrack(from *mediatest.Track) *Track {
	if from == nil {
		return nil
	}
	t := &Track{FourCC: string(from.Codec.Format), Config: from.Codec.Record, length: nearest(from.Length)}
	for _, u := range from.Units {
		dts := nearest(u.DTS)
		t.units = append(t.units, unit{dts, nearest(u.PTS) - dts, u.RandomAccess, u.Payload})
	}
	return t
}

// nearest converts ticks to a duration, to the nearest nanosecond.
func nearest(t media.Ticks) time.Duration {
	whole, rest := t/media.VideoTimescale, t%media.VideoTimescale
	return time.Duration(whole)*time.Second + (time.Duration(rest)*time.Second+media.VideoTimescale/2)/media.VideoTimescale
}
