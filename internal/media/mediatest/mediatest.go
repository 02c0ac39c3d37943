// Package mediatest gives tests real media in every format: three clips that
// FFmpeg encoded, and a reader for further ones.
package mediatest

import (
	"bytes"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"

	"millrace/internal/media"
)

// The clips: 0.4 s, 128x72 at 30 fps with 3 B-frames (AV1: hidden frames) from one
// keyframe, by FFmpeg 5.1.9 with libx264, libx265 and libsvtav1; mono Opus or
// stereo AAC at 48 kHz.
//
//go:embed clips
var clips embed.FS

// Track is the access units of one codec, their times from 0.
type Track struct {
	Codec *media.Codec
	Units []media.Unit
	// Length is when the last unit is over.
	Length media.Ticks
}

// Clip returns the tracks of one of the clips: "h264-opus", "hevc-opus" or "av1-aac".
func Clip(t testing.TB, name string) (video, audio *Track) {
	t.Helper()
	video, audio, err := Parse(Data(t, name))
	if err != nil {
		t.Fatalf("clip %s: %v", name, err)
	}
	return video, audio
}

// Data returns one of the clips as MP4.
func Data(t testing.TB, name string) []byte {
	t.Helper()
	data, err := clips.ReadFile("clips/" + name + ".mp4")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Parse reads the first track of each kind, nil where there is none, from
// fragmented MP4, as FFmpeg writes it with -movflags
// +frag_keyframe+delay_moov+default_base_moof.
func Parse(data []byte) (video, audio *Track, err error) {
	f, err := mp4.DecodeFile(bytes.NewReader(data))
	if err != nil {
		return nil, nil, err
	}
	if f.Init == nil || f.Init.Moov == nil || f.Init.Moov.Mvex == nil {
		return nil, nil, errors.New("it isn't fragmented MP4")
	}
	for _, trak := range f.Init.Moov.Traks {
		kind, into := media.Video, &video
		if trak.Mdia.Hdlr.HandlerType != "vide" {
			kind, into = media.Audio, &audio
		}
		if *into != nil {
			continue
		}
		if *into, err = parseTrack(f, trak, kind); err != nil {
			return nil, nil, fmt.Errorf("track %d: %w", trak.Tkhd.TrackID, err)
		}
	}
	return video, audio, nil
}

func parseTrack(f *mp4.File, trak *mp4.TrakBox, kind media.Kind) (*Track, error) {
	trex, ok := f.Init.Moov.Mvex.GetTrex(trak.Tkhd.TrackID)
	if !ok {
		return nil, errors.New("there is no trex box")
	}
	var samples []mp4.FullSample
	for _, s := range f.Segments {
		for _, fragment := range s.Fragments {
			list, err := fragment.GetFullSamples(trex)
			if err != nil {
				return nil, err
			}
			samples = append(samples, list...)
		}
	}
	if len(samples) == 0 {
		return nil, errors.New("there are no samples")
	}
	t := &Track{}
	var err error
	if t.Codec, err = parseEntry(trak.Mdia.Minf.Stbl.Stsd); err != nil {
		return nil, err
	}
	scale := int(trak.Mdia.Mdhd.Timescale)
	for _, x := range samples {
		dts := media.Samples(x.DecodeTime - samples[0].DecodeTime)
		pts := dts + media.Samples(x.CompositionTimeOffset)
		t.Units = append(t.Units, media.Unit{
			Track: kind, DTS: dts.Ticks(scale), PTS: pts.Ticks(scale),
			RandomAccess: !mp4.DecodeSampleFlags(x.Flags).SampleIsNonSync, Payload: x.Data,
		})
		// The file may say that the last frame of sound is cut short.
		t.Length = (dts + media.Samples(samples[0].Dur)).Ticks(scale)
	}
	return t, nil
}

// parseEntry reads the codec of a track's only sample entry.
func parseEntry(stsd *mp4.StsdBox) (*media.Codec, error) {
	if len(stsd.Children) != 1 {
		return nil, fmt.Errorf("%d sample entries", len(stsd.Children))
	}
	var record []byte
	var box mp4.Box
	switch e := stsd.Children[0].(type) {
	case *mp4.VisualSampleEntryBox:
		switch {
		case e.AvcC != nil:
			box = e.AvcC
		case e.HvcC != nil:
			box = e.HvcC
		case e.Av1C != nil:
			box = e.Av1C
		}
	case *mp4.AudioSampleEntryBox:
		switch {
		case e.Dops != nil:
			record = opusHead(e.Dops)
		case e.Esds != nil:
			record = e.Esds.DecConfigDescriptor.DecSpecificInfo.DecConfig
		}
	}
	if box != nil {
		var b bytes.Buffer
		if err := box.Encode(&b); err != nil {
			return nil, err
		}
		record = b.Bytes()[8:] // without the box's header
	}
	return media.ParseCodec(media.Format(stsd.Children[0].Type()), record)
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
