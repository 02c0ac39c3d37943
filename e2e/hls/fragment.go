package hls

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/mp4"
)

// Track is what an init section says.
type Track struct {
	video     bool
	format    string // the sample entry's name
	Timescale int64
	trex      *mp4.TrexBox
	init      []byte
}

// Sample is one access unit of a fragment, in its track's timescale.
type Sample struct {
	DTS, PTS, duration int64
	sync, idr          bool // idr: decoding can start here
	Data               []byte
}

// ParseInit reads an init section with one track.
func ParseInit(data []byte) (*Track, error) {
	f, err := mp4.DecodeFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if f.Init == nil || f.Init.Moov == nil || len(f.Init.Moov.Traks) != 1 || f.Init.Moov.Mvex == nil {
		return nil, errors.New("not an init section with one track")
	}
	trak := f.Init.Moov.Trak
	if trak.Edts != nil {
		return nil, errors.New("an edit list")
	}
	stsd := trak.Mdia.Minf.Stbl.Stsd
	if len(stsd.Children) != 1 {
		return nil, fmt.Errorf("%d sample entries", len(stsd.Children))
	}
	return &Track{
		video: trak.Mdia.Hdlr.HandlerType == "vide", format: stsd.Children[0].Type(), Timescale: int64(trak.Mdia.Mdhd.Timescale),
		trex: f.Init.Moov.Mvex.Trex, init: data,
	}, nil
}

// ParseFragments reads the samples of a segment or part.
func (tr *Track) ParseFragments(data []byte) ([]Sample, error) {
	f, err := mp4.DecodeFile(bytes.NewReader(append(bytes.Clone(tr.init), data...)))
	if err != nil {
		return nil, err
	}
	var list []Sample
	for _, s := range f.Segments {
		for _, frag := range s.Fragments {
			if len(frag.Moof.Trafs) != 1 {
				return nil, fmt.Errorf("%d tracks in a fragment", len(frag.Moof.Trafs))
			}
			full, err := frag.GetFullSamples(tr.trex)
			if err != nil {
				return nil, err
			}
			for _, x := range full {
				dts := int64(x.DecodeTime)
				list = append(list, Sample{
					DTS: dts, PTS: dts + int64(x.CompositionTimeOffset), duration: int64(x.Dur),
					sync: !mp4.DecodeSampleFlags(x.Flags).SampleIsNonSync, idr: tr.video && tr.startsDecoding(x.Data), Data: x.Data,
				})
			}
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no samples")
	}
	return list, nil
}

// startsDecoding looks whether decoding can start at an access unit.
func (tr *Track) startsDecoding(data []byte) bool {
	if tr.format == "av01" {
		return hasSequenceHeader(data)
	}
	// NAL units with 4-byte lengths.
	for len(data) > 4 {
		n := int(binary.BigEndian.Uint32(data))
		switch kind := data[4]; {
		case tr.format == "avc1" && kind&0x1f == 5: // IDR
			return true
		case tr.format == "hvc1" && kind>>1&0x3f >= 16 && kind>>1&0x3f <= 23: // IRAP
			return true
		}
		if n < 0 || n > len(data)-4 {
			return false
		}
		data = data[4+n:]
	}
	return false
}

// hasSequenceHeader looks through the OBUs of a temporal unit: encoders write the
// sequence header into those that begin with a keyframe.
func hasSequenceHeader(data []byte) bool {
	for len(data) > 1 {
		head, size := 1, 0
		if data[0]&4 != 0 {
			head = 2
		}
		if data[0]>>3&0xf == 1 {
			return true
		}
		for shift := 0; head < len(data); shift += 7 {
			b := data[head]
			head++
			size |= int(b&0x7f) << shift
			if b&0x80 == 0 {
				break
			}
		}
		if data[0]&2 == 0 || head+size > len(data) {
			return false
		}
		data = data[head+size:]
	}
	return false
}

// checkSamples checks one segment: times without a hole, sync flags that tell
// the truth.
func (tr *Track) checkSamples(list []Sample) error {
	for i, x := range list {
		if x.duration <= 0 {
			return fmt.Errorf("sample %d lasts %d", i, x.duration)
		}
		if i > 0 && x.DTS != list[i-1].DTS+list[i-1].duration {
			return fmt.Errorf("sample %d is decoded at %d, the one before it ends at %d", i, x.DTS, list[i-1].DTS+list[i-1].duration)
		}
		if tr.video && x.sync != x.idr {
			return fmt.Errorf("sample %d: sync flag %t, random access %t", i, x.sync, x.idr)
		}
		if !tr.video && !x.sync {
			return fmt.Errorf("audio sample %d isn't a sync sample", i)
		}
	}
	return nil
}
