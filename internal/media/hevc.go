package media

import (
	"errors"
	"fmt"
	"slices"

	"github.com/Eyevinn/mp4ff/hevc"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
)

// hevcMinRecord is the size of a record without parameter sets, in bytes.
const hevcMinRecord = 23

func parseHEVC(record []byte) (c Codec, err error) {
	if len(record) < hevcMinRecord {
		return c, errors.New("it is cut short")
	}
	rec, err := hevc.DecodeHEVCDecConfRec(record)
	if err != nil {
		return c, err
	}
	if err := checkLengthSize(record[21]); err != nil {
		return c, err
	}
	sets := map[hevc.NaluType][][]byte{}
	for _, t := range []hevc.NaluType{hevc.NALU_VPS, hevc.NALU_SPS, hevc.NALU_PPS} {
		if sets[t] = rec.GetNalusForType(t); len(sets[t]) == 0 {
			return c, errors.New("it has no VPS, no SPS or no PPS")
		}
	}
	picture, err := hevcPicture(sets[hevc.NALU_SPS][0])
	if err != nil {
		return c, err
	}
	for _, nalu := range sets[hevc.NALU_SPS][1:] { // a decoder keeps all of them
		if _, err := ParseHEVCSPS(nalu); err != nil {
			return c, err
		}
	}
	// The record repeats what the SPS says of profile, tier and level.
	c.Name = hevc.CodecString(string(HEVC), &hevc.SPS{ProfileTierLevel: hevc.ProfileTierLevel{
		GeneralProfileSpace: rec.GeneralProfileSpace, GeneralTierFlag: rec.GeneralTierFlag,
		GeneralProfileIDC: rec.GeneralProfileIDC, GeneralProfileCompatibilityFlags: rec.GeneralProfileCompatibilityFlags,
		GeneralConstraintIndicatorFlags: rec.GeneralConstraintIndicatorFlags, GeneralLevelIDC: rec.GeneralLevelIDC,
	}})
	c.Variety = picture.variety()
	return c, c.setPicture(picture)
}

// hevcPicture reads what a sequence parameter set says of the pictures (ITU-T
// H.265, 7.3.2.2.1 and annex E).
func hevcPicture(nalu []byte) (p Picture, err error) {
	var sps h265.SPS
	// What is wrong in the video usability information doesn't keep it from being decoded.
	if err := sps.Unmarshal(nalu); err != nil && sps.VUI == nil {
		return p, fmt.Errorf("SPS: %w", err)
	}
	p = Picture{
		Width: sps.Width(), Height: sps.Height(), Chroma: Chroma(sps.ChromaFormatIdc), Colour: unspecified,
		Depth:      int(max(sps.BitDepthLumaMinus8, sps.BitDepthChromaMinus8)) + 8,
		Interlaced: sps.ProfileTierLevel.GeneralInterlacedSourceFlag && !sps.ProfileTierLevel.GeneralProgressiveSourceFlag,
		Decoded: Decoded{
			Width: int(sps.PicWidthInLumaSamples), Height: int(sps.PicHeightInLumaSamples),
			Pictures: int(slices.Max(sps.MaxDecPicBufferingMinus1)) + 1,
		},
	}
	v := sps.VUI
	if v == nil {
		return p, nil
	}
	p.Interlaced = p.Interlaced || v.FieldSeqFlag
	if v.AspectRatioInfoPresentFlag {
		p.Aspect = aspectOf(v.AspectRatioIdc, v.SarWidth, v.SarHeight)
	}
	p.Colour.FullRange = v.VideoFullRangeFlag
	if v.ColourDescriptionPresentFlag {
		p.Colour = colourOf(v.ColourPrimaries, v.TransferCharacteristics, v.MatrixCoefficients, v.VideoFullRangeFlag)
	}
	return p, nil
}

// hevcRandomAccess looks for a slice of an IRAP picture (ITU-T H.265, table
// 7-1): IDR, BLA or CRA. Pictures that follow a CRA and refer past it are shown
// before it, and left out by a decoder that starts there.
func hevcRandomAccess(payload []byte) (irap bool, err error) {
	err = eachNALU(payload, func(nalu []byte) {
		t := h265.NALUType(nalu[0] >> 1 & 0x3f)
		irap = irap || t >= h265.NALUType_BLA_W_LP && t <= h265.NALUType_CRA_NUT
	})
	return irap, err
}
