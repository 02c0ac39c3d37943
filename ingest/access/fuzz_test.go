package access

import (
	"encoding/binary"
	"slices"
	"testing"

	"millrace/ingest/front"
	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

// appendMessage and cutMessage write and read a message of a fuzzed stream: a byte
// that says what it is, how many milliseconds after the one before it comes, its
// size, the payload.
func appendMessage(b []byte, what, after byte, payload []byte) []byte {
	b = append(b, what, after)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(payload))), payload...)
}

func cutMessage(b []byte) (what, after byte, payload, rest []byte, ok bool) {
	if len(b) < 4 {
		return 0, 0, nil, nil, false
	}
	n := min(int(binary.BigEndian.Uint16(b[2:])), len(b)-4)
	return b[0], b[1], b[4 : 4+n], b[4+n:], true
}

const (
	fuzzPicture = iota
	fuzzConfig
	fuzzSound
	fuzzBack // a picture, at an earlier time
)

// FuzzAssembler gives an assembler any messages. Whatever they are, units are what
// their codec takes.
func FuzzAssembler(f *testing.F) {
	for i, name := range []string{"h264-opus", "hevc-opus", "av1-aac"} {
		track, _ := mediatest.Clip(f, name)
		whole := appendMessage(nil, fuzzConfig, 0, track.Codec.Record)
		pieces := slices.Clone(whole)
		for _, u := range track.Units {
			whole = appendMessage(whole, fuzzPicture, 33, u.Payload)
			whole = appendMessage(whole, fuzzSound, 0, nil)
			for j, nalu := range nalus(u.Payload) {
				pieces = appendMessage(pieces, fuzzPicture, byte(33*(1-min(j, 1))), coded([][]byte{aud, nalu}, start(3)))
			}
		}
		f.Add(byte(i), whole)
		f.Add(byte(i), pieces)
	}
	f.Add(byte(0), appendMessage(nil, fuzzPicture, 0, coded([][]byte{fieldSPS, fieldPPS(0), piece{header: 0x65, field: "top"}.nalu()}, length(4))))
	f.Add(byte(0), appendMessage(nil, fuzzConfig, 0, []byte{1, 0x64, 0, 10, 0xfd, 0xe1, 0xff}))
	f.Fuzz(assembleAny)
}

func assembleAny(t *testing.T, format byte, b []byte) {
	formats := []media.Format{media.H264, media.HEVC, media.AV1}
	r := &checker{t: t}
	a := New(formats[int(format)%len(formats)], r)
	var at media.Ticks
	for {
		what, after, payload, rest, ok := cutMessage(b)
		if !ok {
			break
		}
		b = rest
		err := error(nil)
		switch what % 4 {
		case fuzzConfig:
			err = a.Config(payload)
		case fuzzSound:
			err = a.Sound(at + media.Ticks(after)*ms)
		case fuzzBack:
			at -= 20 * media.Ticks(after) * ms
			err = a.Take(at, 0, false, payload)
		default:
			at += media.Ticks(after) * ms
			err = a.Take(at, 0, false, payload)
		}
		if refusal, ok := err.(*front.Refusal); err != nil && (!ok || refusal.Text == "") {
			t.Fatal(err)
		}
		if n := len(a.held); n > learning || len(a.pending) > maxParts {
			t.Fatalf("%d pictures and %d parts are held", n, len(a.pending))
		}
	}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
}

// checker is a sink that looks at what it gets.
type checker struct {
	t     *testing.T
	codec *media.Codec
}

func (c *checker) Config(codec *media.Codec) error { c.codec = codec; return nil }

func (c *checker) Fault(f front.Fault) {
	if !f.OfPictures() || f.Advice() == "" {
		c.t.Fatalf("fault %q", f)
	}
}

func (c *checker) Write(u media.Unit) error {
	if c.codec == nil {
		c.t.Fatal("a unit comes before its codec")
	}
	if start, err := c.codec.RandomAccess(u.Payload); err != nil || start != u.RandomAccess || len(u.Payload) > maxBytes {
		c.t.Fatalf("%+v, %v", u, err)
	}
	return nil
}
