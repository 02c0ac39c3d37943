package media

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/avc"
)

// naluIDR is the type of an IDR picture's slice (ITU-T H.264, table 7-1).
const naluIDR = 5

var (
	errEmpty   = errors.New("access unit is empty")
	errLengths = errors.New("the lengths of its NAL units don't add up")
)

// h264Profiles are the profiles that players know or that encoders make, by
// profile_idc (annex A).
var h264Profiles = map[byte]struct {
	name string
	// universal: every player decodes it.
	universal bool
}{
	66: {"Baseline", true}, 77: {"Main", true}, 100: {"High", true},
	44: {"CAVLC 4:4:4", false}, 88: {"Extended", false}, 110: {"High 10", false}, 122: {"High 4:2:2", false}, 244: {"High 4:4:4", false},
}

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
	sps, err := ParseSPS(nalu)
	if err != nil {
		return c, err
	}
	for _, other := range rec.SPSnalus[1:] { // a decoder keeps all of them
		if _, err := ParseSPS(other); err != nil {
			return c, err
		}
	}
	c.Name = fmt.Sprintf("avc1.%02x%02x%02x", nalu[1], nalu[2], nalu[3])
	profile, variety := h264Profiles[sps.Profile], sps.Picture.variety()
	c.Universal = profile.universal && variety == ""
	switch {
	case c.Universal:
	case profile.name == "":
		c.Variety = fmt.Sprintf("profile %d", sps.Profile)
	case profile.universal:
		c.Variety = profile.name + " (" + variety + ")"
	default:
		c.Variety = profile.name
	}
	return c, c.setPicture(sps.Picture)
}

// checkLengthSize looks at the byte of a record that ends with lengthSizeMinusOne.
func checkLengthSize(b byte) error {
	if b&3 != 3 {
		return fmt.Errorf("NAL units have lengths of %d bytes, 4 are needed", b&3+1)
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
