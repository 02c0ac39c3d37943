package media

// Orientation is how a picture is to be turned before it is shown, if a message in
// it says so. Few players look at that.
type Orientation struct {
	// Turn is in degrees, anticlockwise; Mirrored is set where a side is to be
	// swapped with the opposite one.
	Turn     int
	Mirrored bool
}

// Orientation looks for a message on a picture's orientation (ITU-T H.264, D.1.27;
// H.265, D.2.18) among the NAL units before it. Its zero value is that of a picture
// that is shown as it is.
func (c *Codec) Orientation(payload []byte) (o Orientation) {
	const displayOrientation, hevcPrefixSEI = 47, 39
	header := map[Format]int{H264: 1, HEVC: 2}[c.Format]
	if header == 0 {
		return o
	}
	_ = eachNALU(payload, func(nalu []byte) {
		if c.Format == H264 && nalu[0]&0x1f != H264SEI || c.Format == HEVC && nalu[0]>>1&0x3f != hevcPrefixSEI {
			return
		}
		m := seiMessage(nalu, header, displayOrientation)
		if m == nil {
			return
		}
		r := headerReader{b: m}
		cancelled, horizontal, vertical, turn := r.flag(), r.flag(), r.flag(), r.u(16)
		if r.err != nil || cancelled {
			return
		}
		o = Orientation{Turn: (int(turn)*360 + 1<<15) >> 16 % 360, Mirrored: horizontal != vertical}
		if horizontal && vertical { // both sides swapped is half a turn
			o.Turn = (o.Turn + 180) % 360
		}
	})
	return o
}
