package media

import (
	"errors"
	"fmt"

	av1codec "github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
)

// OBU is an open bitstream unit of AV1 (5.3).
type OBU struct {
	Type byte
	// Body is what follows its header.
	Body []byte
	// Coded is the whole of it, with its size.
	Coded []byte
}

// CutOBU reads the first open bitstream unit of a temporal unit, and returns what
// follows. One without a size, which only the last one may lack, reaches to the
// end, and is given one. It fails when the sizes don't add up.
func CutOBU(b []byte) (obu OBU, rest []byte, err error) {
	if len(b) == 0 || b[0]&0x80 != 0 {
		return obu, nil, errOBUs
	}
	obu.Type = b[0] >> 3 & 0xf
	head := 1 + int(b[0]>>2&1) // an extension byte
	if len(b) < head {
		return obu, nil, errOBUs
	}
	if b[0]&2 == 0 {
		obu.Body = b[head:]
		obu.Coded = appendOBU([]byte{b[0] | 2}, b[1:head], obu.Body)
		return obu, nil, nil
	}
	var size av1codec.LEB128
	n, err := size.Unmarshal(b[head:])
	if err != nil || int64(size) > int64(len(b)-head-n) {
		return obu, nil, errOBUs
	}
	end := head + n + int(size)
	obu.Body, obu.Coded = b[head+n:end], b[:end]
	return obu, b[end:], nil
}

// appendOBU appends an open bitstream unit's extension, size and body to its first byte.
func appendOBU(head, extension, body []byte) []byte {
	size := av1codec.LEB128(len(body))
	b := append(head, extension...)
	b = append(b, make([]byte, size.MarshalSize())...)
	size.MarshalTo(b[len(b)-size.MarshalSize():])
	return append(b, body...)
}

// CheckAV1Sequence looks whether the body of a sequence header can be used.
func CheckAV1Sequence(sequence []byte) error {
	h, err := parseSequence(sequence)
	if err != nil {
		return err
	}
	return av1Picture(&h).check()
}

// parseSequence reads the body of a sequence header.
func parseSequence(body []byte) (h av1codec.SequenceHeader, err error) {
	if err := h.Unmarshal(append([]byte{obuSequenceHeader << 3}, body...)); err != nil {
		return h, fmt.Errorf("sequence header: %w", err)
	}
	return h, nil
}

// AV1Record makes an AV1CodecConfigurationRecord (AV1-ISOBMFF, 2.3.3) of the body
// of a sequence header.
func AV1Record(sequence []byte) ([]byte, error) {
	h, err := parseSequence(sequence)
	if err != nil {
		return nil, err
	}
	if len(h.SeqLevelIdx) == 0 || len(h.SeqTier) == 0 {
		return nil, errors.New("sequence header: it has no level")
	}
	bit := func(set bool, place int) byte {
		if set {
			return 1 << place
		}
		return 0
	}
	k := &h.ColorConfig
	record := []byte{0x81, h.SeqProfile<<5 | h.SeqLevelIdx[0]&0x1f,
		bit(h.SeqTier[0], 7) | bit(k.HighBitDepth, 6) | bit(k.TwelveBit, 5) | bit(k.MonoChrome, 4) |
			bit(k.SubsamplingX, 3) | bit(k.SubsamplingY, 2) | byte(k.ChromaSamplePosition)&3, 0}
	return append(record, appendOBU([]byte{obuSequenceHeader<<3 | 2}, nil, sequence)...), nil
}
