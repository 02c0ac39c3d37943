package access

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"millrace/ingest/front"
	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

const (
	ms   = media.TicksPerMillisecond
	step = 40 * ms // of the clips
)

// encode makes a clip of 25 frames a second: 20 frames in 2 GOPs.
func encode(t testing.TB, args ...string) *mediatest.Track {
	t.Helper()
	file := filepath.Join(t.TempDir(), "clip.mp4")
	list := append([]string{"-hide_banner", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=96x96:rate=25", "-frames:v", "20"}, args...)
	list = append(list, "-movflags", "+frag_keyframe+delay_moov+default_base_moof", file)
	if out, err := exec.Command("ffmpeg", list...).CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	track, _, err := mediatest.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return track
}

// message is what an assembler takes.
type message struct {
	dts, composition media.Ticks
	payload          []byte
}

// plain are the messages of a clip as encoders usually send them.
func plain(track *mediatest.Track) (list []message) {
	for _, u := range track.Units {
		list = append(list, message{u.DTS, u.PTS - u.DTS, u.Payload})
	}
	return list
}

// recorder is a sink.
type recorder struct {
	codecs []*media.Codec
	units  []media.Unit
	faults []front.Fault
}

func (r *recorder) Config(c *media.Codec) error { r.codecs = append(r.codecs, c); return nil }
func (r *recorder) Write(u media.Unit) error    { r.units = append(r.units, u); return nil }
func (r *recorder) Fault(f front.Fault)         { r.faults = append(r.faults, f) }

// assemble gives an assembler a record, nil for none, and messages.
func assemble(t testing.TB, format media.Format, record []byte, list []message) *recorder {
	t.Helper()
	r := &recorder{}
	a := New(format, r)
	if record != nil {
		if err := a.Config(record); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range list {
		if err := a.Take(m.dts, m.composition, false, slices.Clone(m.payload)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	return r
}

// nalus cuts a sample of MP4.
func nalus(sample []byte) [][]byte {
	f := framing{size: 4, plausible: h264Plausible}
	list, _, _ := f.split(sample)
	return list
}

// coded puts NAL units behind what before returns for each.
func coded(list [][]byte, before func(i int, nalu []byte) []byte) (b []byte) {
	for i, nalu := range list {
		b = append(append(b, before(i, nalu)...), nalu...)
	}
	return b
}

func length(size int) func(int, []byte) []byte {
	return func(_ int, nalu []byte) []byte {
		return binary.BigEndian.AppendUint32(nil, uint32(len(nalu)))[4-size:]
	}
}

func start(zeros int) func(int, []byte) []byte {
	return func(int, []byte) []byte { return append(make([]byte, zeros), 1) }
}

// each makes one message of each by its NAL units.
func each(list []message, fn func(i int, nalus [][]byte) []byte) (out []message) {
	for i, m := range list {
		m.payload = fn(i, nalus(m.payload))
		out = append(out, m)
	}
	return out
}

// alone makes a message of each NAL unit, slices apart ticks after the one before.
func alone(list []message, apart media.Ticks) (out []message) {
	for _, m := range list {
		at := m.dts
		for _, nalu := range nalus(m.payload) {
			out = append(out, message{at, m.composition, coded([][]byte{nalu}, length(4))})
			if nalu[0]&0x1f != media.H264SEI {
				at += apart
			}
		}
	}
	return out
}

// setsOf are the parameter sets of a codec's record.
func setsOf(t testing.TB, c *media.Codec) (list [][]byte) {
	t.Helper()
	if c.Format == media.HEVC {
		list, _, _ = splitHVCC(c.Record)
	} else {
		list, _, _ = splitAVCC(c.Record)
	}
	if len(list) == 0 {
		t.Fatal("the record has no parameter sets")
	}
	return list
}

var (
	aud    = []byte{9, 0xf0}
	filler = []byte{12, 0xff, 0xff, 0x80}
	sei    = append([]byte{6, 5, 20}, "0123456789abcdefDJI!\x80"...)
)

// However an encoder packs a stream, the same access units come out, at the times
// of their first parts, with the same codec.
func TestPacking(t *testing.T) {
	track := encode(t, "-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "10", "-slices", "4", "-qp", "44")
	list, record, sets := plain(track), track.Codec.Record, setsOf(t, track.Codec)
	before := func(sets [][]byte, which func(i int) bool) []message {
		return each(list, func(i int, nalus [][]byte) []byte {
			if which(i) {
				nalus = append(slices.Clone(sets), nalus...)
			}
			return coded(nalus, length(4))
		})
	}
	first := func(i int) bool { return i == 0 }
	keyframes := func(i int) bool { return i%10 == 0 }
	with := func(size byte) []byte {
		r := slices.Clone(record)
		r[4] = 0xfc | size - 1
		return r
	}
	small := each(list, func(_ int, nalus [][]byte) []byte {
		return coded(slices.DeleteFunc(nalus, func(n []byte) bool { return len(n) > 255 }), length(4))
	})
	for _, c := range []struct {
		name   string
		record []byte // nil: none is sent
		list   []message
		want   []message // nil: as the clip
	}{
		{"as it is", record, list, nil},
		{"start codes of 4 bytes", record, each(list, func(_ int, n [][]byte) []byte { return coded(n, start(3)) }), nil},
		{"start codes of 3 bytes", record, each(list, func(_ int, n [][]byte) []byte { return coded(n, start(2)) }), nil},
		{"start codes, zeros behind each", record, each(list, func(_ int, n [][]byte) []byte { return append(coded(n, start(5)), 0, 0, 0) }), nil},
		{"start codes in every other message", record, each(list, func(i int, n [][]byte) []byte {
			if i%2 == 0 {
				return coded(n, start(3))
			}
			return coded(n, length(4))
		}), nil},
		{"lengths of 2 bytes", with(2), each(list, func(_ int, n [][]byte) []byte { return coded(n, length(2)) }), nil},
		{"lengths of 1 byte", with(1), each(small, func(_ int, n [][]byte) []byte { return coded(n, length(1)) }), small},
		{"lengths of 4 bytes that are said to be 2", with(2), list, nil},
		{"one length, start codes between", record, each(list, func(_ int, n [][]byte) []byte {
			b := coded(n, start(3))
			return append(binary.BigEndian.AppendUint32(nil, uint32(len(b)-4)), b[4:]...)
		}), nil},
		{"lengths and start codes", record, each(list, func(_ int, n [][]byte) []byte {
			return coded(n, func(_ int, nalu []byte) []byte {
				return append(binary.BigEndian.AppendUint32(nil, uint32(len(nalu)+4)), 0, 0, 0, 1)
			})
		}), nil},
		{"empty ones, delimiters, filler", record, each(list, func(i int, n [][]byte) []byte {
			n = append([][]byte{nil, aud}, n...)
			return coded(append(n, nil, filler), length(4))
		}), nil},
		{"delimiters between slices", record, each(list, func(i int, n [][]byte) []byte {
			var out [][]byte
			for _, nalu := range n {
				out = append(out, aud, nalu)
			}
			return coded(out, length(4))
		}), nil},
		{"zeros at the end", record, each(list, func(_ int, n [][]byte) []byte { return append(coded(n, length(4)), 0, 0, 0) }), nil},
		{"a message for each slice", record, alone(list, 0), nil},
		{"a message for each slice, 1 ms apart", record, alone(list, ms), nil},
		{"messages with nothing, at other times", record, slices.Concat(list[:6], []message{{list[5].dts + 10*ms, 0, []byte{0, 0, 0, 0}}}, list[6:]), nil},
		{"no configuration", nil, before(sets, keyframes), nil},
		{"no configuration, and sets once", nil, before(sets, first), nil},
		{"sets at each picture", record, before(sets, func(int) bool { return true }), nil},
		{"sets with start codes for a configuration", coded(sets, start(3)), list, nil},
		{"a configuration without sets", []byte{1, 0x64, 0, 10, 0xff, 0xe0, 0}, before(sets, keyframes), nil},
		{"a configuration whose sets have start codes", startedRecord(record, sets), list, nil},
		{"sets in messages of their own", nil, slices.Concat([]message{{0, 0, coded(sets, start(3))}}, list), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == nil {
				c.want = list
			}
			r := assemble(t, media.H264, c.record, c.list)
			if len(r.faults) > 0 {
				t.Errorf("faults: %q", r.faults)
			}
			if len(r.codecs) != 1 || !bytes.Equal(r.codecs[0].Record, record) {
				t.Errorf("%d codecs", len(r.codecs))
			}
			compare(t, r, c.want)
		})
	}
}

// startedRecord is a record whose parameter sets have start codes.
func startedRecord(record []byte, sets [][]byte) []byte {
	b := slices.Clone(record[:6])
	for i, set := range sets {
		if i == 1 {
			b = append(b, 1)
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(set)+4)), 0, 0, 0, 1)
		b = append(b, set...)
	}
	return append(b, record[len(record)-4:]...)
}

// compare compares what came out with messages as they should be.
func compare(t *testing.T, r *recorder, want []message) {
	t.Helper()
	if len(r.units) != len(want) {
		t.Fatalf("%d units, want %d", len(r.units), len(want))
	}
	for i, u := range r.units {
		w := want[i]
		if u.DTS != w.dts || u.PTS != w.dts+w.composition || u.RandomAccess != (i%10 == 0) || u.Access.IDR != u.RandomAccess {
			t.Errorf("unit %d: %d, %d, %+v, want %d, %d", i, u.DTS, u.PTS, u.Access, w.dts, w.dts+w.composition)
		}
		if !bytes.Equal(u.Payload, w.payload) {
			t.Errorf("unit %d has %d bytes, want %d: %s", i, len(u.Payload), len(w.payload), kinds(u.Payload))
		}
	}
}

func kinds(sample []byte) string {
	var list []string
	for _, n := range nalus(sample) {
		list = append(list, fmt.Sprint(n[0]&31))
	}
	return strings.Join(list, " ")
}

// Pictures that share a time, or a message, are spread evenly.
func TestSharedTimes(t *testing.T) {
	track := encode(t, "-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-g", "10")
	list := plain(track)
	for _, c := range []struct {
		name  string
		n     int
		join  bool // in one message
		fault front.Fault
	}{
		{"pairs", 2, false, front.FaultTimes},
		{"fours", 4, false, front.FaultTimes},
		{"pairs in one message", 2, true, front.FaultSeveral},
	} {
		var sent []message
		for i, m := range list {
			m.dts = list[i-i%c.n].dts
			if c.join && i%c.n > 0 {
				last := &sent[len(sent)-1]
				last.payload = slices.Concat(last.payload, m.payload)
				continue
			}
			sent = append(sent, m)
		}
		r := assemble(t, media.H264, track.Codec.Record, sent)
		t.Run(c.name, func(t *testing.T) { compare(t, r, list) })
		if len(r.faults) == 0 || slices.ContainsFunc(r.faults, func(f front.Fault) bool { return f != c.fault }) {
			t.Errorf("%s: faults %q", c.name, r.faults)
		}
	}
	// One time that comes twice isn't worth a word.
	list[14].dts = list[13].dts
	r := assemble(t, media.H264, track.Codec.Record, list)
	if len(r.faults) > 0 || r.units[14].DTS != list[13].dts+step/2 || r.units[15].DTS != list[15].dts {
		t.Errorf("faults %q, %d after %d", r.faults, r.units[14].DTS, list[13].dts)
	}
}

// What an encoder sends in one piece goes on with it, once that is known of the
// encoder; before that, a broadcast doesn't begin anyway.
func TestNothingWaits(t *testing.T) {
	track := encode(t, "-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "10", "-slices", "4")
	for _, c := range []struct {
		name string
		list []message
		late int // messages after a picture is whole until it goes on
	}{
		{"one message a picture", plain(track), 0},
		{"messages of parameter sets and SEI before it", withSEI(plain(track)), 0},
		{"a message for each slice", alone(plain(track), 0), 1},
	} {
		r := &recorder{}
		a := New(media.H264, r)
		if err := a.Config(track.Codec.Record); err != nil {
			t.Fatal(err)
		}
		whole := 0
		for i, m := range c.list {
			if err := a.Take(m.dts, m.composition, false, m.payload); err != nil {
				t.Fatal(err)
			}
			if i+1 == len(c.list) || c.list[i+1].dts != m.dts {
				whole++
			}
			if want := whole - c.late; whole > learning+1 && (i+1 == len(c.list) || c.list[i+1].dts != m.dts) && len(r.units) != want {
				t.Errorf("%s: after message %d %d units are through, want %d", c.name, i, len(r.units), want)
			}
		}
	}
}

// withSEI puts a message with SEI before each one, at its time.
func withSEI(list []message) (out []message) {
	for _, m := range list {
		out = append(out, message{m.dts, 0, coded([][]byte{sei}, length(4))}, m)
	}
	return out
}

// While the sound goes on, nothing is held for long.
func TestPicturesDontWaitForSound(t *testing.T) {
	track := encode(t, "-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-g", "10")
	r := &recorder{}
	a := New(media.H264, r)
	if err := a.Config(track.Codec.Record); err != nil {
		t.Fatal(err)
	}
	m := plain(track)[0]
	if err := a.Sound(5 * ms); err != nil {
		t.Fatal(err)
	}
	if err := a.Take(m.dts, m.composition, false, m.payload); err != nil {
		t.Fatal(err)
	}
	for at := media.Ticks(0); at <= 120*ms; at += 20 * ms {
		if err := a.Sound(5*ms + at); err != nil {
			t.Fatal(err)
		}
		if through := len(r.units) == 1; through != (at > patience) {
			t.Errorf("after %d ms of sound %d units are through", at/ms, len(r.units))
		}
	}
}
