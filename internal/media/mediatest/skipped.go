package mediatest

import (
	"encoding/binary"

	"millrace/internal/media"
)

// Skipped writes H.264 that asks for much and says little: pictures of a grey, of which
// all but the first refer to those before them and change nothing, some bytes each. No
// encoder writes it; decoders make room for every picture.
type Skipped struct {
	// Width and Height are in macroblocks of 16 samples.
	Width, Height int
	// Refs is how many pictures are kept.
	Refs int
}

// SPS returns the sequence parameter set (ITU-T H.264, 7.3.2.1.1), of the Main profile.
func (s Skipped) SPS() []byte {
	w := begin(0x67).u(8, 77).u(8, 0).u(8, 62)
	w.ue(0, 12, 2)                                  // number 0, frame_num of 16 bits, order as decoded
	w.ue(uint(s.Refs)).u(1, 0)                      // max_num_ref_frames, no gaps
	w.ue(uint(s.Width-1), uint(s.Height-1)).u(1, 1) // frames only
	return w.u(1, 1).u(1, 0).u(1, 0).end()          // no cropping, nothing on how it is shown
}

// PPS returns the picture parameter set (7.3.2.2): CAVLC, as many references as are kept.
func (s Skipped) PPS() []byte {
	w := begin(0x68).ue(0, 0).u(2, 0).ue(0, uint(s.Refs-1), 0)
	return w.u(1, 0).u(2, 0).ue(0, 0, 0).u(3, 0).end() // nothing weighted, quantisers of 0
}

// Codec returns what decoders are configured with, read as ingest does.
func (s Skipped) Codec() (*media.Codec, error) { return media.ParseCodec(media.H264, s.Record()) }

// Record returns an AVCDecoderConfigurationRecord with the sets.
func (s Skipped) Record() []byte {
	sps, pps := s.SPS(), s.PPS()
	b := append([]byte{1}, sps[1], sps[2], sps[3], 0xff, 0xe1)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(sps))), sps...)
	b = append(b, 1)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(pps))), pps...)
}

// Picture returns the n-th picture, a NAL unit behind its length; the 0th is an IDR
// picture of a byte for each macroblock.
func (s Skipped) Picture(n int) []byte {
	var w *bitWriter
	blocks := s.Width * s.Height
	if n == 0 {
		w = begin(0x65).ue(0, 7, 0).u(16, 0).ue(0) // an I slice, frame_num, idr_pic_id
		w.u(2, 0).ue(0)                            // dec_ref_pic_marking, slice_qp_delta
		for range blocks {
			w.ue(3).u(3, 7) // I_16x16 from nothing, no coefficients
		}
	} else {
		w = begin(0x41).ue(0, 5, 0).u(16, uint(n)) // a P slice
		w.u(3, 0).ue(0)                            // as many references as the PPS says, in order; slice_qp_delta
		w.ue(uint(blocks))                         // mb_skip_run
	}
	nalu := w.end()
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(nalu))), nalu...)
}

// bitWriter writes the bits of a NAL unit.
type bitWriter struct {
	head byte
	b    []byte
	n    int // bits written
}

func begin(head byte) *bitWriter { return &bitWriter{head: head} }

func (w *bitWriter) u(bits int, v uint) *bitWriter {
	for i := bits - 1; i >= 0; i-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (7 - w.n%8)
		w.n++
	}
	return w
}

// ue writes unsigned Exp-Golomb codes (9.1).
func (w *bitWriter) ue(values ...uint) *bitWriter {
	for _, v := range values {
		length := 0
		for (v+1)>>(length+1) > 0 {
			length++
		}
		w.u(length, 0).u(length+1, v+1)
	}
	return w
}

// end returns the NAL unit: with its stop bit, and with emulation prevention (7.4.1).
func (w *bitWriter) end() []byte {
	w.u(1, 1)
	out := []byte{w.head}
	zeros := 0
	for _, b := range w.b {
		if zeros >= 2 && b <= 3 {
			out, zeros = append(out, 3), 0
		}
		if out = append(out, b); b == 0 {
			zeros++
		} else {
			zeros = 0
		}
	}
	return out
}
