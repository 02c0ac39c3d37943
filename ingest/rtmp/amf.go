package rtmp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Bounds on what an encoder may say in AMF0. What real encoders send stays far below them: a
// connect has some 15 values, the longest metadata seen some 60.
const (
	maxAMFDepth  = 8
	maxAMFValues = 1024
)

// AMF0's type markers (AMF0 section 2.1) that are read here.
const (
	amfNumber      = 0
	amfBoolean     = 1
	amfString      = 2
	amfObject      = 3
	amfNull        = 5
	amfUndefined   = 6
	amfECMAArray   = 8
	amfObjectEnd   = 9
	amfStrictArray = 10
	amfDate        = 11
	amfLongString  = 12
)

var errAMFShort = errors.New("it ends in the middle of a value")

// amfReader reads AMF0 values off the front of b, never using more memory than a small multiple
// of b, and never more stack than maxAMFDepth calls.
type amfReader struct {
	b      []byte
	values int
}

// readAMF reads all the values in b: float64, bool, string, nil (null and undefined),
// map[string]any (objects and ECMA arrays), []any, and dates as the float64 of their
// milliseconds since 1970.
func readAMF(b []byte) ([]any, error) {
	r := amfReader{b: b}
	var values []any
	for len(r.b) > 0 {
		v, err := r.value(1)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// value reads one value, nested depth deep.
func (r *amfReader) value(depth int) (any, error) {
	if r.values++; r.values > maxAMFValues {
		return nil, fmt.Errorf("it has more than %d values", maxAMFValues)
	}
	if depth > maxAMFDepth {
		return nil, fmt.Errorf("it nests more than %d deep", maxAMFDepth)
	}
	marker, err := r.take(1)
	if err != nil {
		return nil, err
	}
	switch marker[0] {
	case amfNumber:
		return r.number()
	case amfBoolean:
		b, err := r.take(1)
		if err != nil {
			return nil, err
		}
		return b[0] != 0, nil
	case amfString:
		return r.text(2)
	case amfLongString:
		return r.text(4)
	case amfNull, amfUndefined:
		return nil, nil
	case amfObject:
		return r.object(depth)
	case amfECMAArray:
		// "associative-count" is a hint only: the object end marker closes the array.
		if _, err := r.take(4); err != nil {
			return nil, err
		}
		return r.object(depth)
	case amfStrictArray:
		return r.array(depth)
	case amfDate:
		ms, err := r.number()
		if err != nil {
			return nil, err
		}
		_, err = r.take(2) // "time-zone": reserved, SHOULD be 0
		return ms, err
	default:
		return nil, fmt.Errorf("it has a value of the unknown type %d", marker[0])
	}
}

// object reads key-value pairs up to the object end marker.
func (r *amfReader) object(depth int) (any, error) {
	m := map[string]any{}
	for {
		key, err := r.text(2)
		if err != nil {
			return nil, err
		}
		if key == "" {
			end, err := r.take(1)
			if err != nil {
				return nil, err
			}
			if end[0] != amfObjectEnd {
				return nil, errors.New("it has a key without a name")
			}
			return m, nil
		}
		if m[key], err = r.value(depth + 1); err != nil {
			return nil, err
		}
	}
}

// array reads a strict array. An element takes a byte at least, so a count above the bytes left
// is a lie, and is found out before anything is allocated for it.
func (r *amfReader) array(depth int) (any, error) {
	b, err := r.take(4)
	if err != nil {
		return nil, err
	}
	count := binary.BigEndian.Uint32(b)
	if uint64(count) > uint64(len(r.b)) {
		return nil, fmt.Errorf("it announces an array of %d values in %d bytes", count, len(r.b))
	}
	var a []any
	for range count {
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	return a, nil
}

func (r *amfReader) number() (float64, error) {
	b, err := r.take(8)
	if err != nil {
		return 0, err
	}
	return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
}

// text reads a string whose length stands before it in so many bytes. What isn't UTF-8 (titles
// in Latin-1 exist) is replaced.
func (r *amfReader) text(lengthBytes int) (string, error) {
	b, err := r.take(lengthBytes)
	if err != nil {
		return "", err
	}
	n := 0
	for _, c := range b {
		n = n<<8 | int(c)
	}
	if b, err = r.take(n); err != nil {
		return "", err
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), nil
}

func (r *amfReader) take(n int) ([]byte, error) {
	if n > len(r.b) {
		return nil, errAMFShort
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b, nil
}

// appendAMF appends values in AMF0. It writes the types that answers and rewritten commands need:
// nil, float64, string (cut at 65,535 bytes), []string, and amfProperties.
func appendAMF(b []byte, values ...any) []byte {
	for _, v := range values {
		switch v := v.(type) {
		case float64:
			b = append(b, amfNumber)
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(v))
		case string:
			b = appendAMFText(append(b, amfString), v)
		case []string:
			b = binary.BigEndian.AppendUint32(append(b, amfStrictArray), uint32(len(v)))
			for _, text := range v {
				b = appendAMF(b, text)
			}
		case amfProperties:
			b = append(b, amfObject)
			for _, p := range v {
				b = appendAMFText(b, p.key)
				b = appendAMF(b, p.value)
			}
			b = append(b, 0, 0, amfObjectEnd)
		default:
			b = append(b, amfNull)
		}
	}
	return b
}

// amfProperties is an object to write, in order.
type amfProperties []amfProperty

type amfProperty struct {
	key   string
	value any
}

func appendAMFText(b []byte, s string) []byte {
	s = s[:min(len(s), math.MaxUint16)]
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}
