package media

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/avc"
	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
)

// MaxPictureSide bounds the width and height of a source, in pixels.
const MaxPictureSide = 8192

// naluIDR is the type of an IDR picture's slice (ITU-T H.264, table 7-1).
const naluIDR = 5

var (
	errEmpty   = errors.New("access unit is empty")
	errLengths = errors.New("the lengths of its NAL units don't add up")
)

// h264Varieties are the profiles that browsers don't play, by profile_idc.
var h264Varieties = map[byte]string{110: "High 10", 122: "High 4:2:2", 244: "High 4:4:4"}

func parseH264(record []byte) (c Codec, err error) {
	rec, err := avc.DecodeAVCDecConfRec(record)
	if err != nil {
		return c, err
	}
	if len(rec.SPSnalus) == 0 || len(rec.PPSnalus) == 0 {
		return c, errors.New("it has no SPS or no PPS")
	}
	if err := checkLengthSize(record[4]); err != nil {
		return c, err
	}
	nalu := rec.SPSnalus[0]
	if len(nalu) < 4 {
		return c, errors.New("the SPS is cut short")
	}
	var sps h264.SPS
	if err := sps.Unmarshal(nalu); err != nil {
		return c, fmt.Errorf("SPS: %w", err)
	}
	c.Width, c.Height = sps.Width(), sps.Height()
	c.Name = fmt.Sprintf("avc1.%02x%02x%02x", nalu[1], nalu[2], nalu[3])
	c.Variety = h264Varieties[nalu[1]]
	c.Universal = c.Variety == ""
	return c, checkPicture(c)
}

// checkLengthSize looks at the byte of a record that ends with lengthSizeMinusOne.
func checkLengthSize(b byte) error {
	if b&3 != 3 {
		return fmt.Errorf("NAL units have lengths of %d bytes, 4 are needed", b&3+1)
	}
	return nil
}

func checkPicture(c Codec) error {
	if c.Width <= 0 || c.Height <= 0 || c.Width > MaxPictureSide || c.Height > MaxPictureSide {
		return fmt.Errorf("a picture of %dx%d is out of range", c.Width, c.Height)
	}
	return nil
}

func h264RandomAccess(payload []byte) (idr bool, err error) {
	err = eachNALU(payload, func(nalu []byte) {
		idr = idr || nalu[0]&0x1f == naluIDR
	})
	return idr, err
}

// eachNALU calls fn with the NAL units of an access unit, which have lengths of
// 4 bytes before them, but for empty ones. It fails when the lengths don't add
// up: a decoder would stumble over such a frame.
func eachNALU(payload []byte, fn func(nalu []byte)) error {
	if len(payload) == 0 {
		return errEmpty
	}
	for len(payload) > 0 {
		if len(payload) < 4 {
			return errLengths
		}
		n := int64(binary.BigEndian.Uint32(payload))
		if n > int64(len(payload)-4) {
			return errLengths
		}
		if n > 0 {
			fn(payload[4 : 4+n])
		}
		payload = payload[4+n:]
	}
	return nil
}

func h264Box(c *Codec) (mp4.Box, error) {
	rec, err := avc.DecodeAVCDecConfRec(c.Record)
	return &mp4.AvcCBox{DecConfRec: rec}, err
}
