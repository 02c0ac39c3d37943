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
	Timescale int64
	trex      *mp4.TrexBox
	init      []byte
}

// Sample is one access unit of a fragment, in its track's timescale.
type Sample struct {
	DTS, PTS, duration int64
	sync, idr          bool
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
	return &Track{
		video: trak.Mdia.Hdlr.HandlerType == "vide", Timescale: int64(trak.Mdia.Mdhd.Timescale),
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
					sync: !mp4.DecodeSampleFlags(x.Flags).SampleIsNonSync, idr: tr.video && hasIDR(x.Data), Data: x.Data,
				})
			}
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no samples")
	}
	return list, nil
}

// hasIDR looks through the NAL units of an access unit with 4-byte lengths.
func hasIDR(data []byte) bool {
	for len(data) > 4 {
		n := int(binary.BigEndian.Uint32(data))
		if data[4]&0x1f == 5 {
			return true
		}
		if n < 0 || n > len(data)-4 {
			return false
		}
		data = data[4+n:]
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
			return fmt.Errorf("sample %d: sync flag %t, IDR %t", i, x.sync, x.idr)
		}
		if !tr.video && !x.sync {
			return fmt.Errorf("audio sample %d isn't a sync sample", i)
		}
	}
	return nil
}
