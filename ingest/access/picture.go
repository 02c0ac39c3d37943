package access

import "millrace/internal/media"

// role is what a part of a message is for.
type role int

const (
	dropped role = iota // nothing for viewers, or kept elsewhere
	prefix              // belongs to the picture that comes next
	slice               // a piece of a picture
	suffix              // belongs to the picture before
)

// part is a NAL unit or an open bitstream unit.
type part struct {
	data []byte
	role role

	// Of prefixes: all is right again so many frames after this picture.
	recovery bool
	frames   int

	head // of slices
}

// head is what a slice says of its picture.
type head struct {
	slice media.Slice // of H.264
	sps   uint32      // of HEVC: the number of its SPS
	// first: it is the first one of its picture, whatever came before.
	first bool
	// follows: it can't be the first one.
	follows bool
	// key: other parameter sets may be used from this picture on.
	key, idr, intra, disposable bool
	// hidden: its frame is shown with a later one, which is in the same unit.
	hidden bool
}

// picture is an access unit that is put together.
type picture struct {
	message          int // in which it began
	dts, composition media.Ticks
	codec            *media.Codec // that it is coded with; nil: that of the one before
	payload          []byte       // set where it is a message's, as it came
	parts            [][]byte
	bytes            int
	held             int  // the bytes of the messages that they lie in
	dropped          bool // it grew too large: it takes what belongs to it, and nothing comes of it
	last             head // of the newest slice
	zero             bool // the slice with its first macroblock is here
	fields           int  // so many came, of a picture that comes in fields
	access           media.Access
}

func (p *picture) add(parts ...part) {
	for _, x := range parts {
		if !p.dropped {
			p.parts, p.payload = append(p.parts, x.data), nil
			p.bytes += len(x.data) + 4
		}
		if x.recovery {
			p.access.Recovery, p.access.RecoveryFrames = true, x.frames
		}
		if x.role != slice || x.follows {
			continue
		}
		if x.slice.Field && (p.fields == 0 || p.last.slice.SecondField(&x.slice)) {
			p.fields++
		}
		p.zero = p.zero || x.slice.FirstMB == 0
		p.last = x.head
		p.access.IDR = p.access.IDR || x.idr
		p.access.Intra = p.access.Intra && x.intra
		p.access.Disposable = p.access.Disposable && x.disposable
	}
}

// half reports that what is shown at once isn't here yet: the other field, or the
// frame that is shown.
func (p *picture) half() bool { return p.fields == 1 || p.last.hidden }

// takes reports whether a slice that comes next, in a message with the time dts,
// is of this picture.
func (p *picture) takes(x *part, message int, dts media.Ticks) bool {
	near := dts-p.dts < patience && p.dts-dts < patience
	switch {
	case x.first:
		return false
	case p.last.hidden:
		return true
	case x.follows:
		return near
	case p.fields == 1 && p.last.slice.SecondField(&x.slice):
		return true
	case message == p.message && x.slice.FirstMB > p.last.slice.FirstMB:
		return x.idr == p.last.idr // whatever else its header says: encoders' mistakes, or ours
	case !near || !p.last.slice.SamePicture(&x.slice):
		return false
	}
	// A picture has only one slice that begins with its first macroblock.
	return x.slice.FirstMB != 0 || !p.zero && dts == p.dts
}
