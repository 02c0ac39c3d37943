//go:build hostile

package hostile

import (
	"encoding/binary"
)

// bitWriter writes H.264's syntax elements (clause 7.2, 9.1).
type bitWriter struct {
	data []byte
	n    int // bits in the last byte
}

func (w *bitWriter) bits(value uint32, n int) {
	for i := n - 1; i >= 0; i-- {
		if w.n%8 == 0 {
			w.data = append(w.data, 0)
		}
		w.data[len(w.data)-1] |= byte(value>>i&1) << (7 - w.n%8)
		w.n++
	}
}

func (w *bitWriter) ue(value uint32) {
	size := 0
	for (value+1)>>size > 1 {
		size++
	}
	w.bits(0, size)
	w.bits(value+1, size+1)
}

// nal ends the NAL unit: the stop bit, and bytes that keep it from looking like a start code.
func (w *bitWriter) nal() []byte {
	w.bits(1, 1)
	var out []byte
	zeros := 0
	for _, b := range w.data {
		if zeros >= 2 && b <= 3 {
			out, zeros = append(out, 3), 0
		}
		out = append(out, b)
		if zeros++; b != 0 {
			zeros = 0
		}
	}
	return out
}

// giantSPS says that pictures are so many macroblocks wide and high, with so many
// references, and that numbers of frames may be left out: a decoder then fills them in.
func giantSPS(width, height, references uint32) []byte {
	w := &bitWriter{}
	w.bits(0x67, 8)
	w.bits(100, 8) // High
	w.bits(0, 8)
	w.bits(62, 8) // level 6.2
	w.ue(0)       // seq_parameter_set_id
	w.ue(1)       // chroma_format_idc
	w.ue(0)       // bit_depth_luma_minus8
	w.ue(0)       // bit_depth_chroma_minus8
	w.bits(0, 2)  // no bypass, no scaling matrix
	w.ue(4)       // log2_max_frame_num_minus4
	w.ue(2)       // pic_order_cnt_type
	w.ue(references)
	w.bits(1, 1) // gaps_in_frame_num_value_allowed_flag
	w.ue(width - 1)
	w.ue(height - 1)
	w.bits(1, 1) // frame_mbs_only_flag
	w.bits(1, 1) // direct_8x8_inference_flag
	w.bits(0, 2) // no cropping, no VUI
	return w.nal()
}

// giantPPS goes with it: CAVLC, one slice group.
func giantPPS() []byte {
	w := &bitWriter{}
	w.bits(0x68, 8)
	w.ue(0)
	w.ue(0)
	w.bits(0, 2)
	w.ue(0)
	w.ue(0)
	w.ue(0)
	w.bits(0, 3)
	w.ue(0) // pic_init_qp_minus26
	w.ue(0)
	w.ue(0)
	w.bits(0, 3)
	return w.nal()
}

// giantPicture is a slice of the n-th picture, and then nothing that can be decoded:
// decoders conceal the rest of the picture.
func giantPicture(n uint32) []byte {
	w := &bitWriter{}
	keyframe := n == 0
	if keyframe {
		w.bits(0x65, 8)
	} else {
		w.bits(0x41, 8)
	}
	w.ue(0) // first_mb_in_slice
	if keyframe {
		w.ue(7) // all slices are I
	} else {
		w.ue(5) // all slices are P
	}
	w.ue(0)
	w.bits(n*3%256, 8) // frame_num: two are left out each time
	if keyframe {
		w.ue(0)      // idr_pic_id
		w.bits(0, 2) // no_output_of_prior_pics, long_term_reference
	} else {
		w.bits(0, 3) // override, reordering, adaptive marking
	}
	w.ue(0) // slice_qp_delta
	w.ue(1) // disable_deblocking_filter_idc
	if !keyframe {
		w.ue(262143 % 65535) // mb_skip_run
	}
	for range 200 {
		w.bits(0xa5c3, 16)
	}
	return w.nal()
}

// avcRecord is the body of a video tag that configures H.264.
func avcRecord(sps, pps []byte) []byte {
	b := []byte{0x17, 0, 0, 0, 0, 1, sps[1], sps[2], sps[3], 0xff, 0xe1}
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(sps))), sps...)
	b = append(b, 1)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(pps))), pps...)
	return append(b, 0xfd, 0xf8, 0xf8, 0)
}

// avcPicture is the body of a video tag with one NAL unit.
func avcPicture(keyframe bool, nal []byte) []byte {
	b := []byte{0x27, 1, 0, 0, 0}
	if keyframe {
		b[0] = 0x17
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(nal))), nal...)
}
