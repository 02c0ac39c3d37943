package media

import (
	"encoding/binary"
	"testing"
)

// A message on a picture's orientation is found beside others, in both formats.
func TestOrientation(t *testing.T) {
	other := []byte{5, 3, 'a', 'b', 'c'}
	message := func(cancel, horizontal, vertical uint, turn uint) []byte {
		w := new(bitWriter).u(1, cancel)
		if cancel == 0 {
			w.u(1, horizontal).u(1, vertical).u(16, turn).ue(1).u(1, 0)
		}
		w.u(1, 1)
		return append(append(append([]byte{}, other...), 47, byte(len(w.b))), append(w.b, 0x80)...)
	}
	unit := func(nalus ...[]byte) (b []byte) {
		for _, n := range nalus {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(n))), n...)
		}
		return b
	}
	idr := []byte{0x65, 0x88}
	for _, c := range []struct {
		name    string
		format  Format
		payload []byte
		want    Orientation
	}{
		{"none", H264, unit(append([]byte{6}, append(other, 0x80)...), idr), Orientation{}},
		{"a quarter", H264, unit(append([]byte{6}, message(0, 0, 0, 1<<14)...), idr), Orientation{Turn: 90}},
		{"three quarters", H264, unit(append([]byte{6}, message(0, 0, 0, 3<<14)...), idr), Orientation{Turn: 270}},
		{"mirrored", H264, unit(append([]byte{6}, message(0, 1, 0, 0)...), idr), Orientation{Mirrored: true}},
		{"both mirrored", H264, unit(append([]byte{6}, message(0, 1, 1, 0)...), idr), Orientation{Turn: 180}},
		{"cancelled", H264, unit(append([]byte{6}, message(1, 0, 0, 0)...), idr), Orientation{}},
		{"cut short", H264, unit([]byte{6, 47, 9, 1}, idr), Orientation{}},
		{"HEVC", HEVC, unit(append([]byte{39 << 1, 1}, message(0, 0, 0, 1<<15)...), []byte{19 << 1, 1}), Orientation{Turn: 180}},
		{"AV1", AV1, unit(idr), Orientation{}},
	} {
		if got := (&Codec{Format: c.format}).Orientation(c.payload); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
