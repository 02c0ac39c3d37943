package access

import (
	"bytes"
	"encoding/binary"

	"millrace/ingest/front"
)

// framing is how an encoder packs NAL units into messages: with their lengths
// before them, or with start codes between them (ITU-T H.264, annex B). What it
// says of itself isn't always true, and some do both.
type framing struct {
	size      int                    // of lengths, in bytes: what the record says
	starts    bool                   // the newest payload had start codes
	plausible func(nalu []byte) bool // whether it can be a NAL unit
}

var startCode = []byte{0, 0, 1}

// split cuts a payload into NAL units, without empty ones. exact: each has a
// length of four bytes before it, and nothing is between them.
func (f *framing) split(payload []byte) (nalus [][]byte, exact bool, fault front.Fault) {
	coded := hasStartCode(payload)
	if coded && f.starts { // it can be read both ways by chance
		if nalus = splitStartCodes(payload); f.allPlausible(nalus) {
			return bounded(nalus, false)
		}
	}
	for _, size := range []int{f.size, 4} {
		nalus, exact, ok := f.lengths(payload, size)
		if ok && (!coded || f.allPlausible(nalus)) {
			f.starts = false
			return bounded(nalus, exact)
		}
	}
	if !coded {
		return nil, false, front.FaultLengths
	}
	f.starts = true
	return bounded(splitStartCodes(payload), false)
}

// bounded returns what split does, if there aren't too many NAL units.
func bounded(list [][]byte, exact bool) (nalus [][]byte, whole bool, fault front.Fault) {
	if len(list) > maxParts {
		return nil, false, front.FaultTooLarge
	}
	return list, exact, ""
}

// lengths cuts a payload by lengths of size bytes. Zeros behind the last NAL unit
// don't matter, and neither do start codes after lengths.
func (f *framing) lengths(payload []byte, size int) (nalus [][]byte, exact, ok bool) {
	exact = size == 4
	for len(payload) > 0 && len(nalus) <= maxParts {
		if len(payload) < size {
			return nalus, false, len(bytes.Trim(payload, "\x00")) == 0
		}
		var word [4]byte
		copy(word[4-size:], payload[:size])
		n := int64(binary.BigEndian.Uint32(word[:]))
		payload = payload[size:]
		switch {
		case n > int64(len(payload)):
			return nil, false, false
		case n == 0:
			exact = false
			continue
		}
		nalu := payload[:n]
		payload = payload[n:]
		if inner := f.inner(nalu); inner != nil {
			nalus, exact = append(nalus, inner...), false
			continue
		}
		nalus = append(nalus, nalu)
	}
	return nalus, exact, true
}

// inner cuts what has one length but holds start codes, which no NAL unit can:
// some programs overwrite only the first start code by a length. It returns nil
// for a NAL unit.
func (f *framing) inner(nalu []byte) [][]byte {
	if !bytes.Contains(nalu, startCode) {
		return nil
	}
	parts := splitStartCodes(append(append([]byte{}, startCode...), nalu...))
	if !f.allPlausible(parts) {
		return nil // an encoder that doesn't escape
	}
	return parts
}

func (f *framing) allPlausible(nalus [][]byte) bool {
	for _, nalu := range nalus {
		if !f.plausible(nalu) {
			return false
		}
	}
	return true
}

// hasStartCode reports whether b begins with a start code; zeros may be before it.
func hasStartCode(b []byte) bool {
	i := bytes.Index(b[:min(len(b), 16)], startCode)
	return i >= 0 && len(bytes.Trim(b[:i], "\x00")) == 0
}

// splitStartCodes cuts a stream that begins with a start code into NAL units,
// which end with the last byte that isn't zero (B.1.1).
func splitStartCodes(b []byte) (nalus [][]byte) {
	for len(nalus) <= maxParts {
		i := bytes.Index(b, startCode)
		nalu := b
		if i >= 0 {
			nalu = b[:i]
		}
		if nalu = bytes.TrimRight(nalu, "\x00"); len(nalu) > 0 {
			nalus = append(nalus, nalu)
		}
		if i < 0 {
			break
		}
		b = b[i+len(startCode):]
	}
	return nalus
}

// pack puts lengths of four bytes before NAL units.
func (f *framing) pack(nalus [][]byte, size int) []byte {
	b := make([]byte, 0, size)
	for _, nalu := range nalus {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(nalu))), nalu...)
	}
	return b
}
