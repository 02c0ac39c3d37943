package access

import (
	"bytes"
	"slices"
	"testing"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// bits writes the syntax elements of H.264.
type bits struct {
	b []byte
	n int
}

// u writes v in n bits.
func (w *bits) u(n int, v uint32) *bits {
	for i := n - 1; i >= 0; i-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v>>i&1) << (7 - w.n%8)
		w.n++
	}
	return w
}

// ue writes v as an Exp-Golomb code (9.1).
func (w *bits) ue(v uint32) *bits {
	n := 0
	for (v+1)>>(n+1) > 0 {
		n++
	}
	return w.u(n, 0).u(n+1, v+1)
}

// nalu ends the content, and puts a NAL unit's header before it.
func (w *bits) nalu(header byte) []byte {
	w.u(1, 1)
	return append([]byte{header}, w.b...)
}

// Parameter sets of a stream that may have fields: 4 bits of frame_num, and of
// pic_order_cnt_lsb.
var (
	fieldSPS = (&bits{}).u(8, 77).u(8, 0).u(8, 30).ue(0). // profile, constraints, level, number
			ue(0).ue(0).ue(0).                           // log2_max_frame_num - 4, pic_order_cnt_type, log2_max_poc_lsb - 4
			ue(2).u(1, 0).                               // reference frames, gaps
			ue(7).ue(3).                                 // 128 x 128
			u(1, 0).u(1, 0).                             // frame_mbs_only_flag, mb_adaptive_frame_field_flag
			u(1, 1).u(1, 0).u(1, 0).nalu(0x67)
	fieldPPS = func(id uint32) []byte {
		return (&bits{}).ue(id).ue(0).u(1, 0).u(1, 0).ue(0).ue(0).ue(0).u(1, 0).u(2, 0).ue(0).ue(0).ue(0).u(3, 0).nalu(0x68)
	}
)

// piece is a slice for tests.
type piece struct {
	message    int
	header     byte // of the NAL unit; 0: 0x41
	mb         uint32
	pps        uint32
	frame, poc uint32
	idr        uint32 // idr_pic_id
	field      string // "top", "bottom"
}

func (p piece) nalu() []byte {
	if p.header == 0 {
		p.header = 0x41
	}
	w := (&bits{}).ue(p.mb).ue(7).ue(p.pps).u(4, p.frame)
	switch p.field {
	case "":
		w.u(1, 0)
	case "top":
		w.u(2, 2)
	case "bottom":
		w.u(2, 3)
	}
	if p.header&0x1f == media.H264IDR {
		w.ue(p.idr)
	}
	return w.u(4, p.poc).u(24, 0).nalu(p.header)
}

// Which slices are of one picture: what H.264 says in 7.4.1.2.4, and messages.
func TestPictureBoundaries(t *testing.T) {
	idr := piece{header: 0x65}
	for _, c := range []struct {
		name   string
		pieces []piece
		want   []int // slices of each unit
	}{
		{"slices of one picture", []piece{idr, {0, 0x65, 8, 0, 0, 0, 0, ""}, {1, 0, 0, 0, 1, 2, 0, ""}, {1, 0, 8, 0, 1, 2, 0, ""}}, []int{2, 2}},
		{"in messages of their own", []piece{idr, {1, 0x65, 8, 0, 0, 0, 0, ""}, {2, 0, 0, 0, 1, 2, 0, ""}, {3, 0, 8, 0, 1, 2, 0, ""}}, []int{2, 2}},
		{"frame_num differs", []piece{idr, {0, 0, 0, 0, 1, 0, 0, ""}, {1, 0, 8, 0, 2, 0, 0, ""}}, []int{1, 1, 1}},
		{"pic_parameter_set_id differs", []piece{idr, {1, 0, 8, 0, 1, 2, 0, ""}, {2, 0, 16, 1, 1, 2, 0, ""}}, []int{1, 1, 1}},
		{"one of them isn't referred to", []piece{idr, {1, 0x41, 8, 0, 1, 2, 0, ""}, {2, 0x01, 16, 0, 1, 2, 0, ""}}, []int{1, 1, 1}},
		{"pic_order_cnt_lsb differs", []piece{idr, {1, 1, 0, 0, 1, 2, 0, ""}, {2, 1, 8, 0, 1, 4, 0, ""}}, []int{1, 1, 1}},
		{"one of them is IDR", []piece{idr, {1, 0x41, 8, 0, 0, 0, 0, ""}}, []int{1, 1}},
		{"idr_pic_id differs", []piece{idr, {1, 0x65, 8, 0, 0, 0, 1, ""}}, []int{1, 1}},
		{"the first macroblock again", []piece{idr, {0, 0x65, 0, 0, 0, 0, 0, ""}, {1, 0x65, 0, 0, 0, 0, 0, ""}}, []int{1, 1, 1}},
		{"slices in any order", []piece{{0, 0x65, 8, 0, 0, 0, 0, ""}, {0, 0x65, 0, 0, 0, 0, 0, ""}, {1, 0, 0, 0, 1, 2, 0, ""}}, []int{2, 1}},
		{"two fields", []piece{{0, 0x65, 0, 0, 0, 0, 0, "top"}, {0, 0x41, 0, 0, 0, 1, 0, "bottom"}, {1, 0, 0, 0, 1, 2, 0, "top"}, {1, 0, 0, 0, 1, 3, 0, "bottom"}}, []int{2, 2}},
		{"two fields, in messages of their own", []piece{{0, 0x65, 0, 0, 0, 0, 0, "bottom"}, {1, 0x41, 0, 0, 0, 1, 0, "top"}, {2, 0, 0, 0, 1, 2, 0, "top"}, {3, 0, 0, 0, 1, 3, 0, "bottom"}}, []int{2, 2}},
		{"two slices a field, each in a message", []piece{{0, 0x65, 0, 0, 0, 0, 0, "top"}, {1, 0x65, 8, 0, 0, 0, 0, "top"}, {2, 0x41, 0, 0, 0, 1, 0, "bottom"}, {3, 0x41, 8, 0, 0, 1, 0, "bottom"}}, []int{4}},
		{"a field without its other one", []piece{{0, 0x65, 0, 0, 0, 0, 0, "top"}, {1, 0, 0, 0, 1, 2, 0, "top"}, {2, 0, 0, 0, 1, 3, 0, "bottom"}}, []int{1, 2}},
	} {
		r := &recorder{}
		a := New(media.H264, r)
		if err := a.Config(coded([][]byte{fieldSPS, fieldPPS(0), fieldPPS(1)}, start(3))); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(c.pieces); {
			var b []byte
			n := c.pieces[i].message
			for ; i < len(c.pieces) && c.pieces[i].message == n; i++ {
				b = append(b, coded([][]byte{c.pieces[i].nalu()}, length(4))...)
			}
			if err := a.Take(media.Ticks(n)*10*ms, 0, false, b); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Flush(); err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, u := range r.units {
			got = append(got, len(nalus(u.Payload)))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: units of %d slices, want %d; faults %q", c.name, got, c.want, r.faults)
		}
	}
}

// HEVC says which slice is the first one.
func TestHEVC(t *testing.T) {
	track := encode(t, "-c:v", "libx265", "-tag:v", "hvc1", "-preset", "ultrafast", "-x265-params", "keyint=10:min-keyint=10:scenecut=0:slices=3:ctu=16:open-gop=0:log-level=error")
	list := plain(track)
	// x265 puts a message about itself into the record, too.
	sets := slices.DeleteFunc(setsOf(t, track.Codec), func(nalu []byte) bool { return hevcKind(nalu) > hevcPPS })
	if n := len(nalus(list[1].payload)); n != 3 {
		t.Fatalf("%d slices a picture", n)
	}
	two := slices.Clone(track.Codec.Record)
	two[21] = two[21]&^3 | 1
	aud := []byte{0x46, 1, 0x50}
	for _, c := range []struct {
		name   string
		record []byte
		list   []message
	}{
		{"as it is", track.Codec.Record, list},
		{"start codes", coded(sets, start(3)), each(list, func(_ int, n [][]byte) []byte { return coded(append([][]byte{aud}, n...), start(2)) })},
		{"lengths of 2 bytes", two, each(list, func(_ int, n [][]byte) []byte { return coded(n, length(2)) })},
		{"a message for each slice", track.Codec.Record, hevcAlone(list)},
		{"sets in the stream alone", nil, slices.Concat([]message{withSets(list[0], sets...)}, list[1:10], []message{withSets(list[10], sets...)}, list[11:])},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := assemble(t, media.HEVC, c.record, c.list)
			if len(r.codecs) != 1 || len(r.faults) > 0 || r.codecs[0].Name != track.Codec.Name || r.codecs[0].Width != 96 {
				t.Fatalf("%d codecs, faults %q", len(r.codecs), r.faults)
			}
			if got := setsOf(t, r.codecs[0])[:len(sets)]; !slices.EqualFunc(got, sets, bytes.Equal) {
				t.Errorf("the codec has other sets: %x, want %x", got, sets)
			}
			compare(t, r, list)
		})
	}
}

// A first slice that can't be read takes the rest of its picture with it, and says
// nothing of how the encoder sends pictures.
func TestHEVCDamagedSlice(t *testing.T) {
	track := encode(t, "-c:v", "libx265", "-tag:v", "hvc1", "-preset", "ultrafast", "-x265-params", "keyint=10:min-keyint=10:scenecut=0:slices=3:ctu=16:open-gop=0:log-level=error")
	list := plain(track)
	damaged := slices.Clone(list)
	n := nalus(list[12].payload)
	damaged[12].payload = coded(append([][]byte{n[0][:3]}, n[1:]...), length(4))
	damaged[12].payload[6] = 0x80 // the number of the PPS is cut off
	r := assemble(t, media.HEVC, track.Codec.Record, damaged)
	if !slices.Equal(r.faults, []front.Fault{front.FaultUnits}) || len(r.units) != len(list)-1 || !bytes.Equal(r.units[12].Payload, list[13].payload) {
		t.Errorf("faults %q, %d units", r.faults, len(r.units))
	}
}

// hevcAlone makes a message of each slice, with what is before it.
func hevcAlone(list []message) (out []message) {
	for _, m := range list {
		var before [][]byte
		for _, nalu := range nalus(m.payload) {
			if before = append(before, nalu); hevcKind(nalu) < hevcVPS {
				out = append(out, message{m.dts, m.composition, coded(before, length(4))})
				before = nil
			}
		}
	}
	return out
}

// A picture that never ends, and what waits for one that never begins, are bounded
// by the messages that they lie in; what comes after is whole again.
func TestBounds(t *testing.T) {
	r := &recorder{}
	a := New(media.H264, r)
	if err := a.Config(coded([][]byte{fieldSPS, fieldPPS(0)}, start(3))); err != nil {
		t.Fatal(err)
	}
	take := func(dts media.Ticks, nalus ...[]byte) {
		t.Helper()
		if err := a.Take(dts, 0, false, coded(nalus, length(4))); err != nil {
			t.Fatal(err)
		}
	}
	padding := append([]byte{12}, bytes.Repeat([]byte{0xff}, 1<<20)...) // filler, which isn't kept
	take(0, piece{header: 0x65}.nalu(), padding)
	for i := range uint32(20) {
		take(0, piece{header: 0x65, mb: 1 + i}.nalu(), padding)
	}
	if a.open == nil || len(a.open.parts) > 0 || !slices.Equal(r.faults, []front.Fault{front.FaultTooLarge}) {
		t.Errorf("faults %q", r.faults)
	}
	for range 20 {
		take(0, sei, padding)
	}
	if n := len(a.pending); n > 8 {
		t.Errorf("%d messages wait", n)
	}
	for i := range uint32(12) {
		take(media.Ticks(i+1)*step, piece{header: 0x41, frame: i % 16, poc: 2 * i % 16}.nalu())
	}
	if err := a.Flush(); err != nil || len(r.units) != 12 || len(r.faults) > 1 {
		t.Errorf("%d units, faults %q, %v", len(r.units), r.faults, err)
	}
}
