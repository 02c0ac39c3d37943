package access

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// later moves messages on.
func later(list []message, by media.Ticks) (out []message) {
	for _, m := range list {
		m.dts += by
		out = append(out, m)
	}
	return out
}

// withSets puts NAL units before those of a message.
func withSets(m message, sets ...[]byte) message {
	m.payload = coded(append(slices.Clone(sets), nalus(m.payload)...), length(4))
	return m
}

// A picture that turns, told by parameter sets in the stream alone, is another
// codec from its keyframe on; what is repeated isn't.
func TestParameterSetsChange(t *testing.T) {
	wide := encode(t, "-c:v", "libx264", "-preset", "veryfast", "-g", "10", "-s", "128x64")
	tall := encode(t, "-c:v", "libx264", "-preset", "veryfast", "-g", "10", "-s", "64x128")
	first, second := plain(wide), later(plain(tall), 20*step)
	second[0], second[10] = withSets(second[0], setsOf(t, tall.Codec)...), withSets(second[10], setsOf(t, tall.Codec)...)
	r := &recorder{}
	a := New(media.H264, r)
	for _, list := range [][]message{first, second} {
		if err := a.Config(wide.Codec.Record); err != nil { // which some encoders go on repeating
			t.Fatal(err)
		}
		for _, m := range list {
			if err := a.Take(m.dts, m.composition, false, m.payload); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(r.codecs) != 2 || !r.codecs[0].Equal(wide.Codec) || !r.codecs[1].Equal(tall.Codec) || len(r.faults) > 0 {
		t.Fatalf("%d codecs, faults %q", len(r.codecs), r.faults)
	}
	for i, u := range r.units[20:] {
		if !bytes.Equal(u.Payload, tall.Units[i].Payload) {
			t.Errorf("unit %d is %s, want %s", i, kinds(u.Payload), kinds(tall.Units[i].Payload))
		}
	}
}

// A PPS that changes between keyframes stays where it is until the next one, and
// further numbers are kept beside those that there are.
func TestPPSBetweenKeyframes(t *testing.T) {
	track := encode(t, "-c:v", "libx264", "-preset", "veryfast", "-g", "10", "-bf", "0")
	list := plain(track)
	w := bits{}
	w.ue(7).ue(0).u(1, 1).u(1, 0).ue(0).ue(0).ue(0).u(1, 0).u(2, 0).ue(0).ue(0).ue(0).u(3, 0)
	pps := w.nalu(0x68)
	list[5] = withSets(list[5], pps)
	r := assemble(t, media.H264, track.Codec.Record, list)
	if len(r.codecs) != 2 || len(r.faults) > 0 {
		t.Fatalf("%d codecs, faults %q", len(r.codecs), r.faults)
	}
	if sets := setsOf(t, r.codecs[1]); len(sets) != 3 || !bytes.Equal(sets[2], pps) {
		t.Errorf("the second codec has %d sets", len(sets))
	}
	for i, u := range r.units {
		if want := track.Units[i].Payload; i != 5 && !bytes.Equal(u.Payload, want) || i == 5 && !bytes.Equal(u.Payload, list[5].payload) {
			t.Errorf("unit %d is %s", i, kinds(u.Payload))
		}
	}
}

// What makes no sense is left out by its name, and all else goes on.
func TestFaults(t *testing.T) {
	track := encode(t, "-c:v", "libx264", "-preset", "veryfast", "-g", "10", "-bf", "0", "-slices", "4")
	list, sets := plain(track), setsOf(t, track.Codec)
	slice := nalus(list[1].payload)[0]
	many := make([][]byte, maxParts+1)
	for i := range many {
		many[i] = []byte{9, 0xf0}
	}
	for _, c := range []struct {
		name    string
		payload []byte
		fault   front.Fault
	}{
		{"lengths that run over the end", list[1].payload[:len(list[1].payload)-1], front.FaultLengths},
		{"a length of 4 GB", []byte{0xff, 0xff, 0xff, 0xff, 0x65}, front.FaultLengths},
		{"RTP's fragments", coded([][]byte{{0x7c, 0x85, 1, 2, 3}}, length(4)), front.FaultUnits},
		{"the forbidden bit", coded([][]byte{{0x85, 1, 2, 3}}, length(4)), front.FaultUnits},
		{"a slice that is cut short", coded([][]byte{slice[:2]}, length(4)), front.FaultUnits},
		{"a slice of an unknown PPS", coded([][]byte{(&bits{}).ue(0).ue(7).ue(99).u(16, 0).nalu(0x61)}, length(4)), front.FaultParameterSets},
		{"an SPS that is cut short", coded([][]byte{sets[0][:3]}, length(4)), front.FaultParameterSets},
		{"too many", coded(many, length(4)), front.FaultTooLarge},
		{"nothing", nil, ""},
		{"SEI alone", coded([][]byte{sei}, length(4)), ""},
	} {
		sent := slices.Concat(list[:10], []message{{list[9].dts + 5*ms, 0, c.payload}}, list[10:])
		r := assemble(t, media.H264, track.Codec.Record, sent)
		var want []front.Fault
		if c.fault != "" {
			want = []front.Fault{c.fault}
		}
		if !slices.Equal(r.faults, want) || len(r.units) != len(list) || len(r.codecs) != 1 {
			t.Errorf("%s: faults %q, want %q; %d units", c.name, r.faults, want, len(r.units))
		}
	}

	// Without any parameter sets nothing can be read.
	r := assemble(t, media.H264, nil, list)
	if len(r.units)+len(r.codecs) > 0 || len(r.faults) == 0 || r.faults[0] != front.FaultParameterSets {
		t.Errorf("without parameter sets: %d units, faults %q", len(r.units), r.faults)
	}

	// An encoder that begins to send slices one by one is waited for from then on.
	var late []message
	for i, m := range list {
		if i < 12 {
			late = append(late, m)
			continue
		}
		for _, nalu := range nalus(m.payload) {
			late = append(late, message{m.dts, 0, coded([][]byte{nalu}, length(4))})
		}
	}
	r = assemble(t, media.H264, track.Codec.Record, late)
	if len(r.units) != len(list) || !bytes.Equal(r.units[13].Payload, list[13].payload) || bytes.Equal(r.units[12].Payload, list[12].payload) {
		t.Errorf("%d units", len(r.units))
	}
	if len(r.faults) == 0 || slices.ContainsFunc(r.faults, func(f front.Fault) bool { return f != front.FaultApart }) {
		t.Errorf("faults %q", r.faults)
	}
}

// What can't be a configuration at all ends the publisher, in words.
func TestConfigurations(t *testing.T) {
	for _, f := range []media.Format{media.H264, media.HEVC, media.AV1} {
		for _, record := range []string{"\x02nothing that is known", "\x01", "\x00\x00\x00\x01\x67\x64"} {
			err := New(f, &recorder{}).Config([]byte(record))
			if refusal := (*front.Refusal)(nil); err != nil && !errors.As(err, &refusal) {
				t.Errorf("%s: %q: %v", f, record, err)
			} else if err == nil && record[0] != 0 {
				t.Errorf("%s: %q is taken", f, record)
			}
		}
		r := &recorder{}
		if err := New(f, r).Config(nil); err != nil || len(r.codecs) > 0 {
			t.Errorf("%s: an empty one: %v", f, err)
		}
	}
}
