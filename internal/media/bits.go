package media

import "errors"

var errCutShort = errors.New("it is cut short")

// bitReader reads bits, the highest of a byte first. Once there are too few, it
// gives zeros and err is set.
type bitReader struct {
	b   []byte
	pos int // in bits
	err error
}

// read returns the next n bits, at most 32.
func (r *bitReader) read(n int) int {
	if r.pos+n > 8*len(r.b) {
		r.pos, r.err = 8*len(r.b), errCutShort
		return 0
	}
	v := 0
	for range n {
		v = v<<1 | int(r.b[r.pos/8]>>(7-r.pos%8)&1)
		r.pos++
	}
	return v
}

// skip goes on by n bits.
func (r *bitReader) skip(n int) {
	if r.pos += n; r.pos > 8*len(r.b) {
		r.pos, r.err = 8*len(r.b), errCutShort
	}
}

func (r *bitReader) flag() bool { return r.read(1) == 1 }

// left is how many bits there are still.
func (r *bitReader) left() int { return 8*len(r.b) - r.pos }

// align goes on to the next whole byte.
func (r *bitReader) align() { r.pos = (r.pos + 7) / 8 * 8 }

// bitAppender writes bits, the highest of a byte first.
type bitAppender struct {
	b []byte
	n int // bits written
}

func (w *bitAppender) write(v, n int) {
	for i := n - 1; i >= 0; i-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (7 - w.n%8)
		w.n++
	}
}

// align goes on to the next whole byte.
func (w *bitAppender) align() { w.n = 8 * len(w.b) }
