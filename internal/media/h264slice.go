package media

import (
	"errors"
	"fmt"

	"github.com/bluenviron/mediacommon/v2/pkg/bits"
)

// Types of H.264 NAL units (ITU-T H.264, table 7-1).
const (
	H264Slice      = 1 // of a picture that isn't IDR
	H264PartitionA = 2 // of a slice whose data come in up to three NAL units
	H264PartitionB = 3
	H264PartitionC = 4
	H264IDR        = 5
	H264SEI        = 6
	H264SPS        = 7
	H264PPS        = 8
	H264Prefix     = 14 // of the NAL unit behind it, for layers
	H264Auxiliary  = 19 // a slice of a picture that isn't shown, such as alpha
	H264Layer      = 20 // a slice of a further layer or view
	H264Depth      = 21
	// H264Unspecified is the first of the types that no stream may use; RTP gives
	// them meanings of its own.
	H264Unspecified = 24
)

// ErrNoParameterSet is that a slice names a parameter set that didn't come.
var ErrNoParameterSet = errors.New("the parameter sets that a slice needs are missing")

// PPS is what the start of a slice's header needs of an H.264 picture parameter
// set (7.3.2.2).
type PPS struct {
	ID, SPS int
	// FieldPOC: slices of frames tell when the second field is shown.
	FieldPOC bool
}

// ParsePPS reads a picture parameter set, a NAL unit without its length.
func ParsePPS(nalu []byte) (*PPS, error) {
	r := newHeaderReader(nalu)
	p := &PPS{ID: int(r.ue()), SPS: int(r.ue())}
	r.u(1) // entropy_coding_mode_flag
	p.FieldPOC = r.flag()
	if r.err != nil || p.ID > 255 || p.SPS > 31 {
		return nil, errors.New("the PPS makes no sense")
	}
	return p, nil
}

// ParameterSets are those that the slices of a stream can name, by their
// numbers; nil where none came.
type ParameterSets struct {
	SPS [32]*SPS
	PPS [256]*PPS
}

// Slice is the start of an H.264 slice's header (7.3.3): what tells pictures apart.
type Slice struct {
	IDR       bool
	Reference bool // other pictures may refer to it
	// FirstMB is the address of its first macroblock; 0 in the first slice of a picture.
	FirstMB uint32
	// Intra: it refers to no other picture.
	Intra bool
	PPS   int
	SPS   int // that of its PPS

	FrameNum      uint64
	Field, Bottom bool
	idrPicID      uint32
	poc           uint64 // pic_order_cnt_lsb
	deltaPOC      [2]int32
}

// ParseSlice reads the header of a slice, a NAL unit without its length. It fails
// with [ErrNoParameterSet] where that can't be read yet.
func ParseSlice(nalu []byte, sets *ParameterSets) (Slice, error) {
	r := newHeaderReader(nalu)
	s := Slice{IDR: nalu[0]&0x1f == H264IDR, Reference: nalu[0]&0x60 != 0}
	s.FirstMB = r.ue()
	kind := r.ue()
	s.Intra = kind%5 == 2 || kind%5 == 4 // I, SI
	s.PPS = int(r.ue())
	if r.err != nil || kind > 9 || s.PPS > 255 {
		return s, errors.New("the header of a slice makes no sense")
	}
	pps := sets.PPS[s.PPS]
	if pps == nil || sets.SPS[pps.SPS] == nil {
		return s, fmt.Errorf("PPS %d: %w", s.PPS, ErrNoParameterSet)
	}
	s.SPS = pps.SPS
	sps := sets.SPS[pps.SPS]
	if sps.SeparatePlanes {
		r.u(2)
	}
	s.FrameNum = r.u(sps.FrameNumBits)
	if !sps.FrameMBsOnly {
		if s.Field = r.flag(); s.Field {
			s.Bottom = r.flag()
		}
	}
	if s.IDR {
		s.idrPicID = r.ue()
	}
	s.pictureOrder(r, sps, pps)
	if r.err != nil {
		return s, errors.New("the header of a slice is cut short")
	}
	return s, nil
}

func (s *Slice) pictureOrder(r *headerReader, sps *SPS, pps *PPS) {
	second := pps.FieldPOC && !s.Field
	switch {
	case sps.POCType == 0:
		s.poc = r.u(sps.POCBits)
		if second {
			s.deltaPOC[0] = r.se()
		}
	case sps.POCType == 1 && !sps.DeltaPOCAlwaysZero:
		s.deltaPOC[0] = r.se()
		if second {
			s.deltaPOC[1] = r.se()
		}
	}
}

// SamePicture reports whether t, which comes after s, can be of the same picture:
// none of what tells the first slice of a picture differs (7.4.1.2.4).
func (s *Slice) SamePicture(t *Slice) bool {
	return s.FrameNum == t.FrameNum && s.PPS == t.PPS && s.Field == t.Field && s.Bottom == t.Bottom &&
		s.Reference == t.Reference && s.IDR == t.IDR && s.idrPicID == t.idrPicID &&
		s.poc == t.poc && s.deltaPOC == t.deltaPOC
}

// SecondField reports whether t, which comes after s, can be of the other field
// of the same frame.
func (s *Slice) SecondField(t *Slice) bool {
	return s.Field && t.Field && s.Bottom != t.Bottom && s.FrameNum == t.FrameNum && !t.IDR
}

// seiRecoveryPoint is the kind of message that tells of a recovery point (D.1.1).
const seiRecoveryPoint = 6

// RecoveryPoint looks into a message of supplemental enhancement information, a
// NAL unit without its length, for a recovery point (D.1.8): the pictures are
// right again so many frames after the one that it belongs to.
func RecoveryPoint(sei []byte) (frames int, ok bool) {
	m := seiMessage(sei, 1, seiRecoveryPoint)
	r := headerReader{b: m}
	n := r.ue()
	return int(n), m != nil && r.err == nil && n < 1<<16
}

// HEVCRecoveryPoint is RecoveryPoint of HEVC (ITU-T H.265, D.3.8), which counts
// pictures in the order of showing. Where that lies before it, the count is 0.
func HEVCRecoveryPoint(sei []byte) (frames int, ok bool) {
	m := seiMessage(sei, 2, seiRecoveryPoint)
	r := headerReader{b: m}
	n := r.se()
	return int(max(0, n)), m != nil && r.err == nil && n < 1<<16
}

// seiMessage returns the first message of a kind (7.3.2.3.1) that a NAL unit has
// after so many bytes of its header; nil where there is none.
func seiMessage(nalu []byte, header, want int) []byte {
	b := unescape(nalu[min(header, len(nalu)):], 16<<10)
	for len(b) > 2 {
		var kind, size int
		kind, b = seiNumber(b)
		size, b = seiNumber(b)
		if size > len(b) {
			return nil
		}
		if kind == want {
			return b[:size:size]
		}
		b = b[size:]
	}
	return nil
}

// seiNumber reads a number of which each byte 255 says that more follows (7.3.2.3.1).
func seiNumber(b []byte) (n int, rest []byte) {
	for len(b) > 0 && b[0] == 0xff {
		n, b = n+0xff, b[1:]
	}
	if len(b) == 0 {
		return n, nil
	}
	return n + int(b[0]), b[1:]
}

// headerReader reads the syntax elements of a header. After the first error all are 0.
type headerReader struct {
	b   []byte
	pos int
	err error
}

// newHeaderReader begins behind the NAL unit's first byte. It doesn't see more
// than headers have.
func newHeaderReader(nalu []byte) *headerReader {
	return &headerReader{b: unescape(nalu[min(1, len(nalu)):], 64)}
}

func (r *headerReader) u(n int) uint64 {
	v, err := bits.ReadBits(r.b, &r.pos, n)
	return uint64(r.take(err)) * v
}

func (r *headerReader) flag() bool { return r.u(1) == 1 }

func (r *headerReader) ue() uint32 {
	v, err := bits.ReadGolombUnsigned(r.b, &r.pos)
	return r.take(err) * v
}

func (r *headerReader) se() int32 {
	v, err := bits.ReadGolombSigned(r.b, &r.pos)
	return int32(r.take(err)) * v
}

// take notes the first error, and returns 1 before there was any.
func (r *headerReader) take(err error) uint32 {
	if r.err == nil {
		r.err = err
	}
	if r.err != nil {
		return 0
	}
	return 1
}

// unescape returns at most the first n bytes of a NAL unit's content without its
// emulation prevention bytes (7.4.1).
func unescape(b []byte, n int) []byte {
	out := make([]byte, 0, min(n, len(b)))
	zeros := 0
	for _, x := range b {
		if len(out) == n {
			break
		}
		if zeros >= 2 && x == 3 {
			zeros = 0
			continue
		}
		if out = append(out, x); x == 0 {
			zeros++
		} else {
			zeros = 0
		}
	}
	return out
}
