package access

import (
	"slices"
	"testing"
)

// Three bytes can be a start code or the most of a length. What adds up as lengths
// is taken for that, unless the encoder was seen to send start codes.
func TestFramingBothWays(t *testing.T) {
	both := append([]byte{0, 0, 1, 0x41}, make([]byte, 0x141)...) // a slice, or a NAL unit of 0x141 bytes
	both[4], both[len(both)-1] = 0x01, 0x80
	lengths := slices.Clone(both)
	lengths = append(lengths[:3], append([]byte{0x80}, make([]byte, 0x180)...)...) // no NAL unit begins with 0x80
	lengths[4] = 0x41
	for _, c := range []struct {
		name   string
		starts bool
		b      []byte
		first  byte // of the only NAL unit
		then   bool
	}{
		{"either, first of all", false, both, 0x01, false},
		{"either, after start codes", true, both, 0x41, true},
		{"lengths, first of all", false, lengths, 0x41, false},
		{"lengths, after start codes", true, lengths, 0x41, false},
	} {
		f := framing{size: 4, starts: c.starts, plausible: h264Plausible}
		nalus, exact, fault := f.split(c.b)
		if fault != "" || len(nalus) != 1 || nalus[0][0] != c.first || f.starts != c.then || exact == c.then {
			t.Errorf("%s: %d NAL units, %v, %q, start codes %v", c.name, len(nalus), exact, fault, f.starts)
		}
	}
}
