package media

import (
	"errors"
	"fmt"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
)

// HEVCSPS is what a decoder configuration record repeats of an HEVC sequence
// parameter set (ITU-T H.265, 7.3.2.2).
type HEVCSPS struct {
	ID uint32
	// Profile is the general part of its profile_tier_level, as it is coded.
	Profile [12]byte
	// Layers is how many temporal ones there are at most; Nested, whether they may be
	// switched at any picture.
	Layers byte
	Nested bool
	// Chroma is chroma_format_idc; LumaDepth and ChromaDepth are what is over 8 bits.
	Chroma, LumaDepth, ChromaDepth byte
}

// ParseHEVCSPS reads a sequence parameter set, a NAL unit without its length.
func ParseHEVCSPS(nalu []byte) (*HEVCSPS, error) {
	var sps h265.SPS
	if err := sps.Unmarshal(nalu); err != nil && sps.VUI == nil {
		return nil, fmt.Errorf("SPS: %w", err)
	}
	picture, err := hevcPicture(nalu)
	if err == nil {
		err = picture.check()
	}
	b := unescape(nalu, 15)
	if err != nil || len(b) < 15 || sps.ID > 15 || sps.BitDepthLumaMinus8 > 8 || sps.BitDepthChromaMinus8 > 8 {
		return nil, errors.Join(errors.New("the SPS makes no sense"), err)
	}
	return &HEVCSPS{
		ID: uint32(sps.ID), Profile: [12]byte(b[3:15]), Layers: sps.MaxSubLayersMinus1 + 1, Nested: sps.TemporalIDNestingFlag,
		Chroma: byte(sps.ChromaFormatIdc), LumaDepth: byte(sps.BitDepthLumaMinus8), ChromaDepth: byte(sps.BitDepthChromaMinus8),
	}, nil
}

// ParseHEVCVPS reads the number of a video parameter set (7.3.2.1).
func ParseHEVCVPS(nalu []byte) (id uint32, err error) {
	r := hevcReader(nalu)
	id = uint32(r.u(4))
	return id, r.err
}

// ParseHEVCPPS reads the number of a picture parameter set and that of its SPS (7.3.2.3).
func ParseHEVCPPS(nalu []byte) (id, sps uint32, err error) {
	r := hevcReader(nalu)
	if id, sps = r.ue(), r.ue(); r.err == nil && (id > 63 || sps > 15) {
		r.err = errors.New("the PPS makes no sense")
	}
	return id, sps, r.err
}

// ParseHEVCSlice reads whether a slice is the first one of its picture, and the
// number of its PPS (7.3.6.1).
func ParseHEVCSlice(nalu []byte) (first bool, pps uint32, err error) {
	r := hevcReader(nalu)
	first = r.flag()
	if kind := h265.NALUType(nalu[0] >> 1 & 0x3f); kind >= h265.NALUType_BLA_W_LP && kind <= h265.NALUType_RSV_IRAP_VCL23 {
		r.u(1) // no_output_of_prior_pics_flag
	}
	pps = r.ue()
	return first, pps, r.err
}

// hevcReader begins behind a NAL unit's header of two bytes.
func hevcReader(nalu []byte) *headerReader { return newHeaderReader(nalu[min(1, len(nalu)):]) }
