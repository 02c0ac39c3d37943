package media

import (
	"errors"
	"fmt"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
)

// SPS is an H.264 sequence parameter set (ITU-T H.264, 7.3.2.1.1): what it says
// of the pictures, and what the headers of their slices can't be read without.
type SPS struct {
	ID      int
	Profile byte // profile_idc
	Level   byte // level_idc
	Picture Picture
	// SeparatePlanes: each slice is of one colour, and says of which.
	SeparatePlanes bool
	// FrameNumBits is the length of frame_num.
	FrameNumBits int
	// POCType is pic_order_cnt_type; POCBits, of type 0, the length of
	// pic_order_cnt_lsb; DeltaPOCAlwaysZero belongs to type 1.
	POCType            int
	POCBits            int
	DeltaPOCAlwaysZero bool
	// FrameMBsOnly: there are no fields, and slices don't say whether they are of one.
	FrameMBsOnly bool
	// PicStruct: picture timing messages tell which fields a picture shows.
	PicStruct bool
	// ReorderFrames is how many frames may precede a frame in decoding that follow
	// it when they are shown; -1 where the SPS doesn't say.
	ReorderFrames int
}

// ParseSPS reads a sequence parameter set, a NAL unit without its length. What is
// wrong in its last part, the video usability information, doesn't matter: the
// picture can be decoded without it, and encoders cut it short.
func ParseSPS(nalu []byte) (*SPS, error) {
	if len(nalu) < 4 {
		return nil, errors.New("the SPS is cut short")
	}
	var raw h264.SPS
	if err := raw.Unmarshal(nalu); err != nil && raw.VUI == nil {
		return nil, fmt.Errorf("SPS: %w", err)
	}
	if raw.ChromaFormatIdc > uint32(Chroma444) || raw.BitDepthLumaMinus8 > 6 || raw.BitDepthChromaMinus8 > 6 ||
		raw.Log2MaxFrameNumMinus4 > 12 || raw.Log2MaxPicOrderCntLsbMinus4 > 12 || raw.ID > 31 {
		return nil, errors.New("SPS: a value is out of range")
	}
	s := &SPS{
		ID: int(raw.ID), Profile: raw.ProfileIdc, Level: raw.LevelIdc,
		SeparatePlanes: raw.SeparateColourPlaneFlag,
		FrameNumBits:   int(raw.Log2MaxFrameNumMinus4) + 4,
		POCType:        int(raw.PicOrderCntType), DeltaPOCAlwaysZero: raw.DeltaPicOrderAlwaysZeroFlag,
		FrameMBsOnly: raw.FrameMbsOnlyFlag, ReorderFrames: -1,
		Picture: Picture{
			Chroma: Chroma(raw.ChromaFormatIdc), Colour: unspecified, Interlaced: !raw.FrameMbsOnlyFlag,
			Depth: int(max(raw.BitDepthLumaMinus8, raw.BitDepthChromaMinus8)) + 8, Decoded: Decoded{Pictures: int(raw.MaxNumRefFrames), Delayed: int(raw.MaxNumRefFrames)},
		},
	}
	if s.POCType == 0 {
		s.POCBits = int(raw.Log2MaxPicOrderCntLsbMinus4) + 4
	}
	s.size(&raw)
	if v := raw.VUI; v != nil {
		s.usability(v)
	}
	return s, s.Picture.check()
}

// size works out the picture's size (7.4.2.1.1, equations 7-13 to 7-22).
func (s *SPS) size(raw *h264.SPS) {
	rows := 16
	if !raw.FrameMbsOnlyFlag {
		rows = 32 // of a frame, whose fields have 16
	}
	s.Picture.Width = 16 * (int(raw.PicWidthInMbsMinus1) + 1)
	s.Picture.Height = rows * (int(raw.PicHeightInMapUnitsMinus1) + 1)
	s.Picture.Decoded.Width, s.Picture.Decoded.Height = s.Picture.Width, s.Picture.Height
	crop := raw.FrameCropping
	if crop == nil {
		return
	}
	// Where each colour is coded as if it were alone, samples are counted, not colours.
	unitX, unitY := 1, 1
	if !raw.SeparateColourPlaneFlag {
		unitX, unitY = s.Picture.Chroma.samples()
	}
	unitY *= rows / 16
	s.Picture.Width -= unitX * (int(crop.LeftOffset) + int(crop.RightOffset))
	s.Picture.Height -= unitY * (int(crop.TopOffset) + int(crop.BottomOffset))
}

// usability takes the video usability information (annex E).
func (s *SPS) usability(v *h264.SPS_VUI) {
	if v.AspectRatioInfoPresentFlag {
		s.Picture.Aspect = aspectOf(v.AspectRatioIdc, v.SarWidth, v.SarHeight)
	}
	s.Picture.Colour.FullRange = v.VideoFullRangeFlag
	if v.ColourDescriptionPresentFlag {
		s.Picture.Colour = colourOf(v.ColourPrimaries, v.TransferCharacteristics, v.MatrixCoefficients, v.VideoFullRangeFlag)
	}
	s.PicStruct = v.PicStructPresentFlag
	if r := v.BitstreamRestriction; r != nil {
		s.ReorderFrames = int(r.MaxNumReorderFrames)
		s.Picture.Decoded.Pictures = max(s.Picture.Decoded.Pictures, int(r.MaxDecFrameBuffering))
		s.Picture.Decoded.Delayed = int(r.MaxNumReorderFrames)
	}
}
