package media

import (
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/hevc"
	"github.com/Eyevinn/mp4ff/mp4"
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
	var sps h265.SPS
	if err := sps.Unmarshal(sets[hevc.NALU_SPS][0]); err != nil {
		return c, fmt.Errorf("SPS: %w", err)
	}
	c.Width, c.Height = sps.Width(), sps.Height()
	// The record repeats what the SPS says of profile, tier and level.
	c.Name = hevc.CodecString(string(HEVC), &hevc.SPS{ProfileTierLevel: hevc.ProfileTierLevel{
		GeneralProfileSpace: rec.GeneralProfileSpace, GeneralTierFlag: rec.GeneralTierFlag,
		GeneralProfileIDC: rec.GeneralProfileIDC, GeneralProfileCompatibilityFlags: rec.GeneralProfileCompatibilityFlags,
		GeneralConstraintIndicatorFlags: rec.GeneralConstraintIndicatorFlags, GeneralLevelIDC: rec.GeneralLevelIDC,
	}})
	if rec.BitDepthLumaMinus8 > 0 {
		c.Variety = fmt.Sprintf("%d bits", rec.BitDepthLumaMinus8+8)
	}
	return c, checkPicture(c)
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

func hevcBox(c *Codec) (mp4.Box, error) {
	rec, err := hevc.DecodeHEVCDecConfRec(c.Record)
	return &mp4.HvcCBox{DecConfRec: rec}, err
}
