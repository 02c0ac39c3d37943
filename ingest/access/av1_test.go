package access

import (
	"bytes"
	"slices"
	"testing"

	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

// obus cuts a temporal unit.
func obus(t *testing.T, b []byte) (list []media.OBU) {
	t.Helper()
	for len(b) > 0 {
		var obu media.OBU
		var err error
		if obu, b, err = media.CutOBU(b); err != nil {
			t.Fatal(err)
		}
		list = append(list, obu)
	}
	return list
}

// A temporal unit is one access unit, whatever messages its parts come in; its
// delimiter has no place in it.
func TestAV1(t *testing.T) {
	track, _ := mediatest.Clip(t, "av1-aac")
	list := plain(track)
	delimiter := []byte{0x12, 0}
	var alone, joined, unsized, delimited []message
	frames := 0
	for i, m := range list {
		units := obus(t, m.payload)
		for _, obu := range units {
			alone = append(alone, message{m.dts, 0, obu.Coded})
			if obu.Type == obuFrame || obu.Type == obuFrameHeader {
				frames++
			}
		}
		last := units[len(units)-1]
		head := len(m.payload) - len(last.Coded)
		unsized = append(unsized, message{m.dts, 0, slices.Concat(m.payload[:head], []byte{last.Coded[0] &^ 2}, last.Body)})
		d := slices.Concat(delimiter, m.payload)
		delimited = append(delimited, message{m.dts, 0, d})
		if i%2 == 1 {
			joined[i/2].payload = append(joined[i/2].payload, d...)
		} else {
			joined = append(joined, message{m.dts, 0, d})
		}
	}
	if frames <= len(list) {
		t.Fatalf("%d frames in %d units: none is hidden", frames, len(list))
	}
	for _, c := range []struct {
		name   string
		record []byte
		list   []message
	}{
		{"as it is", track.Codec.Record, list},
		{"delimiters", track.Codec.Record, delimited},
		{"the last one without its size", track.Codec.Record, unsized},
		{"a message for each one", track.Codec.Record, alone},
		{"two units in a message", track.Codec.Record, joined},
		{"no configuration", nil, list},
	} {
		r := assemble(t, media.AV1, c.record, c.list)
		last := r.codecs[len(r.codecs)-1]
		if last.Name != track.Codec.Name || last.Width != 128 || last.Height != 72 || len(r.units) != len(list) {
			t.Errorf("%s: %+v, %d units, want %d; faults %q", c.name, last, len(r.units), len(list), r.faults)
			continue
		}
		for i, u := range r.units {
			if !bytes.Equal(u.Payload, list[i].payload) || u.RandomAccess != (i == 0) || u.Access.IDR != (i == 0) || u.DTS < list[i].dts-ms || u.DTS > list[i].dts+ms {
				t.Errorf("%s: unit %d: %d, %+v, %d bytes, want %d, %d bytes", c.name, i, u.DTS, u.Access, len(u.Payload), list[i].dts, len(list[i].payload))
			}
		}
	}
}
