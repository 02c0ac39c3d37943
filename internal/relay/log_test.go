package relay

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"testing"
	"time"

	"millrace/internal/media"
)

func codec(t testing.TB, f media.Format, record []byte) *media.Codec {
	t.Helper()
	c, err := media.ParseCodec(f, record)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var opusHead = append([]byte("OpusHead"), 1, 2, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, 0)

func entries(t testing.TB) []Entry {
	return []Entry{
		{Settings: &testSettings},
		{Codec: codec(t, media.AAC, media.SilentStereo48k)},
		{Codec: codec(t, media.Opus, opusHead).WithFrame(480)},
		{Mark: &testMark},
		{Unit: &media.Unit{Track: media.Video, DTS: 30 * 3600 * media.VideoTimescale, PTS: 30*3600*media.VideoTimescale - 6000, RandomAccess: true, Payload: []byte{0, 0, 0, 1, 5}}},
		{Unit: &media.Unit{Track: media.Audio, DTS: -1, PTS: -1, Payload: []byte("sound")}},
	}
}

func encode(t testing.TB, all []Entry) []byte {
	t.Helper()
	b := Header()
	for _, e := range all {
		var err error
		if b, err = e.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestLogRoundTrip(t *testing.T) {
	want := entries(t)
	r, err := NewReader(bytes.NewReader(encode(t, want)))
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		got, err := r.Next()
		if err != nil || !reflect.DeepEqual(got, w) {
			t.Errorf("entry %d became %+v, %v, want %+v", i, got, err, w)
		}
	}
	if e, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last entry came %+v, %v", e, err)
	}
}

// The wire form is a contract between versions: it changes only on purpose.
func TestLogWireForm(t *testing.T) {
	all := entries(t)
	for i, want := range map[int]string{
		1: "63" + "0000000a" + "6d703461" + "00000400" + "1190",
		4: "76" + "00000012" + "01" + "00000002435b6e00" + "ffffe890" + "0000000105",
		5: "61" + "00000012" + "00" + "ffffffffffffffff" + "00000000" + "736f756e64",
	} {
		b, err := all[i].Append(nil)
		if got := hex.EncodeToString(b); err != nil || got != want {
			t.Errorf("entry %d is %s, %v, want %s", i, got, err, want)
		}
		if u := all[i].Unit; u != nil && Size(u) != len(b) {
			t.Errorf("a record of %d bytes was said to take %d", len(b), Size(u))
		}
	}
	if b, err := all[3].Append(nil); err != nil || b[0] != 'm' || !bytes.HasPrefix(b[5:], []byte(`{"kind":"open","epoch":`)) {
		t.Errorf("a mark is %q, %v", b, err)
	}
}

// What may be published can be read: the largest record and the largest unit.
func TestLargestEntries(t *testing.T) {
	record := append(bytes.Clone(media.SilentStereo48k), make([]byte, media.MaxRecord-len(media.SilentStereo48k))...)
	want := []Entry{
		{Codec: codec(t, media.AAC, record)},
		{Unit: &media.Unit{Track: media.Video, Payload: make([]byte, MaxPayload)}},
	}
	r, err := NewReader(bytes.NewReader(encode(t, want)))
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		if got, err := r.Next(); err != nil || !reflect.DeepEqual(got, w) {
			t.Errorf("entry %d wasn't read as it was written: %v", i, err)
		}
	}
}

func TestLogsThatAreRefused(t *testing.T) {
	for name, body := range map[string][]byte{
		"unknown kind":             {'x', 0, 0, 0, 0},
		"too large":                {'m', 0xff, 0xff, 0xff, 0xff},
		"a unit that is too large": {'v', 0x7f, 0xff, 0xff, 0xff},
		"cut short":                {'v', 0, 0, 0, 20, 1, 2},
		"sound without payload":    append([]byte{'a', 0, 0, 0, 13}, make([]byte, 13)...),
		"a codec cut short":        {'c', 0, 0, 0, 3, 'a', 'v', 'c'},
		"a codec unknown here":     append([]byte{'c', 0, 0, 0, 9}, "vp08\x00\x00\x00\x00x"...),
		"pictures in samples":      append([]byte{'c', 0, 0, 0, 10}, "mp4a\x7f\x00\x00\x00\x11\x90"...),
		"a mark of unknown kind":   append([]byte{'m', 0, 0, 0, 12}, `{"kind":"x"}`...),
		"no JSON":                  {'s', 0, 0, 0, 1, '{'},
	} {
		r, err := NewReader(bytes.NewReader(append(Header(), body...)))
		if err != nil {
			t.Fatal(err)
		}
		if e, err := r.Next(); err == nil || errors.Is(err, io.EOF) && name != "cut short" {
			t.Errorf("%s gave %+v, %v", name, e, err)
		}
	}
	for _, head := range []string{"", "FLV\x01", "MRLOG\x00\x00\x02"} {
		if _, err := NewReader(bytes.NewReader([]byte(head))); err == nil {
			t.Errorf("a header %q was taken", head)
		}
	}
}

// Whoever follows a log comes to the same end: ingest, which wrote it, and a
// worker that read it from a later mark on.
func TestTail(t *testing.T) {
	aac := codec(t, media.AAC, media.SilentStereo48k)
	settings := Settings{PartTarget: 1, Video: true, Audio: true, FrameRate: 30}
	mark := testMark
	mark.DecodeFrom = mark.Sequence
	later := mark
	later.Sequence, later.DecodeFrom, later.Start = mark.Sequence+1, mark.Sequence+1, mark.Start+6000
	later.AudioStart += 3 * 1024
	log := []Entry{{Settings: &settings}, {Codec: aac}, {Mark: &mark}}
	picture := func(dts media.Ticks, composition media.Ticks, key bool) {
		log = append(log, Entry{Unit: &media.Unit{Track: media.Video, DTS: dts, PTS: dts + composition, RandomAccess: key, Payload: []byte{1}}})
	}
	sound := func(at media.Samples) {
		log = append(log, Entry{Unit: &media.Unit{Track: media.Audio, DTS: at.Ticks(48000), Payload: []byte{1}}})
	}
	picture(mark.Start-6000, 6000, true)
	picture(mark.Start-3000, 12000, false)
	log = append(log, Entry{Mark: &later})
	picture(later.Start-6000, 6000, true)
	sound(later.AudioStart)
	picture(later.Start-3000, 9000, false)
	sound(later.AudioStart + 1024)
	var whole, part Tail
	for i, e := range log {
		whole.Add(e)
		if i < 2 || i >= 5 {
			part.Add(e)
		}
	}
	want := later.Start + 3000 + 3000
	for name, tail := range map[string]*Tail{"whole": &whole, "from the later mark": &part} {
		if tail.Last() != later.Start+3000 || tail.End() != want {
			t.Errorf("%s: the last frame lies at %d and ends at %d, want %d", name, tail.Last(), tail.End(), want)
		}
		m := tail.Close(Pause)
		if m.Kind != Pause || m.Sequence != later.Sequence+1 || m.DecodeFrom != m.Sequence || m.Start != want || m.Time != later.Time.Add((want-later.Start).Duration()).Truncate(time.Millisecond) {
			t.Errorf("%s: closed by %+v", name, m)
		}
		if at := m.AudioStart; at.Ticks(48000) < want || (at-1024).Ticks(48000) >= want || (at-later.AudioStart)%1024 != 0 {
			t.Errorf("%s: the sound after it begins at %d", name, at)
		}
	}
	if a, b := whole.Handoff(), part.Handoff(); a != b || a.Mark.Start < want || a.Settings != settings {
		t.Errorf("the handoffs are %+v and %+v", a, b)
	}
	// A pause ends the segment: another ingest opens the same one.
	pause := whole.Close(Pause)
	whole.Add(Entry{Mark: &pause})
	if m := whole.Close(End); m.Sequence != pause.Sequence || m.Start != pause.Start || m.Time != pause.Time {
		t.Errorf("after a pause: %+v, then %+v", pause, m)
	}
}

func TestTailOfSoundAlone(t *testing.T) {
	aac := codec(t, media.AAC, media.SilentStereo48k)
	mark := testMark
	mark.DecodeFrom = mark.Sequence
	mark.Start = mark.AudioStart.Ticks(48000)
	var tail Tail
	for _, e := range []Entry{{Settings: &Settings{PartTarget: 1, Audio: true}}, {Codec: aac}, {Mark: &mark}} {
		tail.Add(e)
	}
	if m := tail.Close(Pause); m.Start != mark.Start+1 {
		t.Errorf("without a frame it ends at %d, want %d", m.Start, mark.Start+1)
	}
	for k := range media.Samples(3) {
		tail.Add(Entry{Unit: &media.Unit{Track: media.Audio, DTS: (mark.AudioStart + k*1024).Ticks(48000), Payload: []byte{1}}})
	}
	end := mark.AudioStart + 3*1024
	if m := tail.Close(End); m.AudioStart != end || end.Ticks(48000)-m.Start > 1 {
		t.Errorf("%+v, want its sound to end at %d", m, end)
	}
	if (&Tail{}).Handoff() != (Handoff{Mark: Mark{Kind: Pause}}) {
		t.Error("a log without a mark has something to hand off")
	}
}

func FuzzReader(f *testing.F) {
	f.Add(encode(f, entries(f)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		var tail Tail
		for {
			e, err := r.Next()
			if err != nil {
				return
			}
			again, err := e.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if e.Unit != nil && len(again) != Size(e.Unit) {
				t.Errorf("%d bytes, %d were said", len(again), Size(e.Unit))
			}
			tail.Add(e)
			tail.Close(Pause)
			tail.Handoff()
		}
	})
}
