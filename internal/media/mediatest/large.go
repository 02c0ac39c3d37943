package mediatest

// HEVCSPS returns a sequence parameter set of HEVC (ITU-T H.265, 7.3.2.2.1) for pictures of
// a size, of which a decoder keeps so many.
func HEVCSPS(width, height, kept int) []byte {
	w := begin(0x42).u(8, 1)                      // and the layer
	w.u(4, 0).u(3, 0).u(1, 1)                     // number of the VPS, one temporal layer, nested
	w.u(8, 1).u(32, 0x60000000).u(24, 0x900000)   // the Main profile, progressive frames
	w.u(24, 0).u(8, 186)                          // level 6.2
	w.ue(0, 1, uint(width), uint(height)).u(1, 0) // number, 4:2:0, not cropped
	w.ue(0, 0, 4).u(1, 1).ue(uint(kept-1), 0, 0)  // 8 bits, order of 8 bits
	w.ue(0, 3, 0, 3, 0, 0).u(4, 0)                // sizes of blocks; no tools
	return w.ue(0).u(5, 0).end()                  // no sets of references, no further tools
}

// AV1Sequence returns the body of a sequence header (AV1, 5.5.1) of frames of at most a
// size, with 8 bits and 4:2:0.
func AV1Sequence(width, height int) []byte {
	w := begin(0)
	w.u(3, 0).u(2, 0).u(2, 0)   // profile; no still picture; no timing, no delay
	w.u(5, 0).u(12, 0).u(5, 16) // one operating point of level 6.0
	w.u(1, 0).u(4, 15).u(4, 15) // its tier; sizes have 16 bits
	w.u(16, uint(width-1)).u(16, uint(height-1))
	w.u(1, 0).u(3, 0).u(4, 0) // no frame numbers, no tools
	w.u(1, 0).u(1, 1).u(1, 1) // no order hints; screen content is chosen by frames
	w.u(3, 0).u(1, 0).u(1, 0) // no tools; 8 bits, with colours
	w.u(2, 0).u(2, 0).u(2, 0) // nothing on colours
	return w.u(1, 1).align()
}

// align returns what was written, up to a whole byte.
func (w *bitWriter) align() []byte { return w.b }
