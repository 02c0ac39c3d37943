package media

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/avc"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
)

// MaxPictureSide bounds the width and height of a source, in pixels.
const MaxPictureSide = 8192

const (
	naluIDR = 5
)

// AVCConfig is what a decoder must know before the first access unit.
type AVCConfig struct {
	// Record is the AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1).
	Record []byte
	// Width and Height are the shown picture's, in pixels.
	Width, Height int
	// Codec is the RFC 6381 name, such as "avc1.64001f".
	Codec string
}

// ParseAVCConfig reads an AVCDecoderConfigurationRecord. It keeps record.
func ParseAVCConfig(record []byte) (*AVCConfig, error) {
	rec, err := avc.DecodeAVCDecConfRec(record)
	if err != nil {
		return nil, fmt.Errorf("parse AVC configuration: %w", err)
	}
	if len(rec.SPSnalus) == 0 || len(rec.PPSnalus) == 0 {
		return nil, errors.New("parse AVC configuration: it has no SPS or no PPS")
	}
	if record[4]&3 != 3 {
		return nil, fmt.Errorf("parse AVC configuration: NAL units have lengths of %d bytes, 4 are needed", record[4]&3+1)
	}
	nalu := rec.SPSnalus[0]
	if len(nalu) < 4 {
		return nil, errors.New("parse AVC configuration: the SPS is cut short")
	}
	var sps h264.SPS
	if err := sps.Unmarshal(nalu); err != nil {
		return nil, fmt.Errorf("parse AVC configuration: SPS: %w", err)
	}
	c := &AVCConfig{
		Record: record,
		Width:  sps.Width(),
		Height: sps.Height(),
		Codec:  fmt.Sprintf("avc1.%02x%02x%02x", nalu[1], nalu[2], nalu[3]),
	}
	if c.Width <= 0 || c.Height <= 0 || c.Width > MaxPictureSide || c.Height > MaxPictureSide {
		return nil, fmt.Errorf("parse AVC configuration: a picture of %dx%d is out of range", c.Width, c.Height)
	}
	return c, nil
}

// ScanAVC walks the length-prefixed NAL units of an access unit. It reports
// whether one is an IDR slice, and fails when the lengths don't add up: a
// decoder would stumble over such a frame.
func ScanAVC(payload []byte) (idr bool, err error) {
	if len(payload) == 0 {
		return false, errors.New("access unit is empty")
	}
	for len(payload) > 0 {
		if len(payload) < 4 {
			return false, errors.New("access unit ends inside a NAL unit's length")
		}
		n := int64(binary.BigEndian.Uint32(payload))
		if n > int64(len(payload)-4) {
			return false, errors.New("access unit ends inside a NAL unit")
		}
		if n > 0 && payload[4]&0x1f == naluIDR {
			idr = true
		}
		payload = payload[4+n:]
	}
	return idr, nil
}
