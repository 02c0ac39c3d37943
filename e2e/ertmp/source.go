// Package ertmp publishes encoded media as an encoder does that speaks Enhanced
// RTMP (veovera v2-2026-01-31-r2), in every form that the specification knows:
// FourCC and legacy tags, composition times or none, ModEx, multitrack. Debian's
// FFmpeg 5.1 makes the bitstreams, and can't write such tags itself. The tags are
// made here a second time, apart from the product's own, so that a test doesn't
// judge a parser by the writer that came with it.
package ertmp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
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

// Read reads a fragmented MP4 file, as ffmpeg writes it with
// -movflags +frag_keyframe+delay_moov+default_base_moof.
func Read(path string) (*Source, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := mp4.DecodeFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if f.Init == nil || f.Init.Moov == nil || f.Init.Moov.Mvex == nil {
		return nil, fmt.Errorf("read %s: it isn't fragmented MP4", path)
	}
	s := &Source{}
	for _, trak := range f.Init.Moov.Traks {
		t, err := readTrack(f, trak)
		if err != nil {
			return nil, fmt.Errorf("read %s, track %d: %w", path, trak.Tkhd.TrackID, err)
		}
		if trak.Mdia.Hdlr.HandlerType == "vide" {
			s.Video = t
		} else {
			s.Audio = t
		}
	}
	return s, nil
}

func readTrack(f *mp4.File, trak *mp4.TrakBox) (*Track, error) {
	t := &Track{}
	if err := t.describe(trak.Mdia.Minf.Stbl.Stsd); err != nil {
		return nil, err
	}
	trex, ok := f.Init.Moov.Mvex.GetTrex(trak.Tkhd.TrackID)
	if !ok {
		return nil, errors.New("there is no trex box")
	}
	// Ticks are turned into a duration from the clip's beginning, not one by one.
	scale := time.Duration(trak.Mdia.Mdhd.Timescale)
	at := func(ticks int64) time.Duration {
		whole, rest := time.Duration(ticks)/scale, time.Duration(ticks)%scale
		return whole*time.Second + rest*time.Second/scale
	}
	var first uint64
	var length uint32
	for _, s := range f.Segments {
		for _, fragment := range s.Fragments {
			samples, err := fragment.GetFullSamples(trex)
			if err != nil {
				return nil, err
			}
			for _, x := range samples {
				if len(t.units) == 0 {
					first, length = x.DecodeTime, x.Dur
				}
				dts := x.DecodeTime - first
				t.units = append(t.units, unit{
					dts: at(int64(dts)), offset: at(int64(dts)+int64(x.CompositionTimeOffset)) - at(int64(dts)),
					key: !mp4.DecodeSampleFlags(x.Flags).SampleIsNonSync, payload: x.Data,
				})
				// The file may say that the last frame of sound is cut short.
				t.length = at(int64(dts) + int64(length))
			}
		}
	}
	if len(t.units) == 0 {
		return nil, errors.New("there are no samples")
	}
	return t, nil
}

// describe reads the codec and its configuration.
func (t *Track) describe(stsd *mp4.StsdBox) error {
	if len(stsd.Children) != 1 {
		return fmt.Errorf("%d sample entries", len(stsd.Children))
	}
	t.FourCC = stsd.Children[0].Type()
	var record mp4.Box
	switch e := stsd.Children[0].(type) {
	case *mp4.VisualSampleEntryBox:
		switch t.FourCC {
		case "avc1":
			record = e.AvcC
		case "hvc1":
			record = e.HvcC
		case "av01":
			record = e.Av1C
		}
	case *mp4.AudioSampleEntryBox:
		switch {
		case t.FourCC == "mp4a" && e.Esds != nil:
			t.Config = e.Esds.DecConfigDescriptor.DecSpecificInfo.DecConfig
			return nil
		case t.FourCC == "Opus" && e.Dops != nil:
			t.Config = opusHead(e.Dops)
			return nil
		}
	}
	if record == nil {
		return fmt.Errorf("the codec %q isn't known", t.FourCC)
	}
	var b bytes.Buffer
	if err := record.Encode(&b); err != nil {
		return err
	}
	t.Config = b.Bytes()[8:] // without the box's header
	return nil
}

// opusHead returns an identification header (RFC 7845, 5.1): what the dOps box
// says, in the other order of bytes.
func opusHead(d *mp4.DopsBox) []byte {
	b := append([]byte("OpusHead"), 1, d.OutputChannelCount)
	b = binary.LittleEndian.AppendUint16(b, d.PreSkip)
	b = binary.LittleEndian.AppendUint32(b, d.InputSampleRate)
	b = binary.LittleEndian.AppendUint16(b, uint16(d.OutputGain))
	b = append(b, d.ChannelMappingFamily)
	if d.ChannelMappingFamily != 0 {
		b = append(append(b, d.StreamCount, d.CoupledCount), d.ChannelMapping...)
	}
	return b
}
