package media

import (
	"encoding/binary"
	"errors"
	"slices"
)

const (
	adtsHead = 7 // bytes, without what follows where there is a checksum
	adtsWord = 2 // bytes of a checksum, and of the place of a block
	maxADTS  = 64
)

// ADTS is a frame of an Audio Data Transport Stream (ISO/IEC 13818-7, 6.2; 14496-3,
// 1.A.2): AAC with a header of its own, which neither FLV nor MP4 have.
type ADTS struct {
	// Header is what the frame says of all that is coded like it.
	Header ADTSHeader
	// Blocks are the raw data blocks: access units of AAC. Where a frame has several
	// and no checksum, nothing says where each begins: then all of them are in one.
	Blocks [][]byte
	// Joined is how many raw data blocks each of Blocks holds.
	Joined int
}

// ADTSHeader is how frames are coded. It is comparable.
type ADTSHeader struct {
	object, rateIndex, layout int
}

// IsADTS reports whether a payload begins as a frame of ADTS does, and as no access unit of AAC.
func IsADTS(payload []byte) bool {
	// The sync word, and a layer that is always 0. As AAC it were a block that ends at once.
	return len(payload) >= 2 && payload[0] == 0xff && payload[1]&0xf6 == 0xf0
}

// SplitADTS takes a payload apart that holds whole frames of ADTS, up to 64. With an error
// it returns the frames before what makes no sense.
// What it returns shares the payload's memory.
func SplitADTS(payload []byte) (frames []ADTS, err error) {
	for len(payload) > 0 {
		if len(frames) == maxADTS {
			return frames, errors.New("parse ADTS: there are too many frames")
		}
		f, rest, err := cutADTS(payload)
		if err != nil {
			return frames, err
		}
		frames, payload = append(frames, f), rest
	}
	return frames, nil
}

// cutADTS takes the first frame of a payload.
func cutADTS(b []byte) (f ADTS, rest []byte, err error) {
	if len(b) < adtsHead || !IsADTS(b) {
		return f, nil, errors.New("parse ADTS: there is no header")
	}
	r := &bitReader{b: b, pos: 15}
	bare := r.flag() // protection_absent
	f.Header.object = r.read(2) + aacMain
	f.Header.rateIndex = r.read(4)
	r.read(1)
	f.Header.layout = r.read(3)
	r.read(4)
	size := r.read(13)
	r.read(11) // the buffer's fullness
	blocks := r.read(2) + 1
	head := adtsHead
	if !bare {
		head += adtsWord * blocks // the places of all blocks but the first, and a checksum
	}
	if f.Header.rateIndex >= len(aacRates) || size <= head || size > len(b) {
		return f, nil, errors.New("parse ADTS: the header makes no sense")
	}
	data, rest := b[head:size], b[size:]
	switch {
	case blocks == 1:
		f.Blocks, f.Joined = [][]byte{data}, 1
	case bare:
		f.Blocks, f.Joined = [][]byte{data}, blocks
	default:
		f.Joined = 1
		f.Blocks, err = cutBlocks(data, b[adtsHead:head-adtsWord])
	}
	return f, rest, err
}

// cutBlocks takes the raw data blocks of a frame apart, each with a checksum behind
// it. places are where all but the first begin.
func cutBlocks(data, places []byte) (blocks [][]byte, err error) {
	from := 0
	for len(places) > 0 || from < len(data) {
		to := len(data)
		if len(places) > 0 {
			to, places = int(binary.BigEndian.Uint16(places)), places[2:]
		}
		if to > len(data) || to-from <= adtsWord {
			return nil, errors.New("parse ADTS: the places of its blocks make no sense")
		}
		blocks, from = append(blocks, data[from:to-adtsWord]), to
	}
	return blocks, nil
}

// Rate is in samples a second.
func (h ADTSHeader) Rate() int { return aacRates[h.rateIndex] }

// Describes reports whether a decoder that is set up with c decodes frames with this header.
func (h ADTSHeader) Describes(c *Codec) bool {
	if c.Format != AAC {
		return false
	}
	a, err := parseASC(c.Record)
	if err != nil || a.object != h.object || a.rate != h.Rate() {
		return false
	}
	// A program config element in the frames may describe what the configuration names.
	return h.layout == 0 || h.layout == a.layout
}

// Config returns the AudioSpecificConfig of what has this header. Where the header leaves
// the channels to a program config element, that is taken from a raw data block, and
// it is an error when the block doesn't begin with one.
func (h ADTSHeader) Config(block []byte) ([]byte, error) {
	w := &bitAppender{}
	w.write(h.object, 5)
	w.write(h.rateIndex, 4)
	w.write(h.layout, 4)
	w.write(0, 3) // 1,024 samples, no core coder, no extension
	if h.layout != 0 {
		return w.b, nil
	}
	r := &bitReader{b: block}
	if r.read(3) != elementProgram {
		return nil, errors.New("parse ADTS: nothing says how many channels there are")
	}
	from := r.pos
	readProgram(r)
	end := r.pos
	r.align()
	comment := r.read(8)
	if r.err != nil || r.left() < 8*comment {
		return nil, errCutShort
	}
	for c := (&bitReader{b: block, pos: from}); c.pos < end; {
		w.write(c.read(1), 1)
	}
	w.align()
	return append(w.b, 0), nil // without its comment
}

// HeaderOf returns the header that a configuration of AAC would have in ADTS, with other
// channels: 1 or 2. ok is false where there is none.
func HeaderOf(c *Codec, channels int) (h ADTSHeader, ok bool) {
	a, err := parseASC(c.Record)
	rate := slices.Index(aacRates[:], a.rate)
	if c.Format != AAC || err != nil || a.object > aacLTP || rate < 0 {
		return h, false
	}
	return ADTSHeader{a.object, rate, channels}, true
}
