package media

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestFLVRoundTrip(t *testing.T) {
	const timestamp = 0xfedcba98 // 32 bits, in FLV's odd order
	frame := AccessUnit{Kind: Video, DTS: 90_000, PTS: 90_000 - 3*TicksPerMillisecond, IDR: true, Payload: []byte{0, 0, 0, 1, 5}}
	file := FLVHeader(true, true)
	file = AppendVideoConfigTag(file, timestamp, record)
	file = AppendAudioTag(file, timestamp, true, SilentStereo48k)
	file = AppendVideoTag(file, timestamp, &frame)
	file = AppendAudioTag(file, timestamp, false, SilentAAC(2))
	file = AppendTag(file, Tag{Type: TagScript, Timestamp: timestamp, Payload: []byte("script")})

	r := bytes.NewReader(file)
	if err := ReadFLVHeader(r); err != nil {
		t.Fatal(err)
	}
	var types []byte
	for {
		tag, err := ReadTag(r)
		if err == io.EOF {
			break
		}
		if err != nil || tag.Timestamp != timestamp {
			t.Fatalf("%+v, %v", tag, err)
		}
		types = append(types, tag.Type)
		switch tag.Type {
		case TagVideo:
			v, err := ParseVideoTag(tag.Payload)
			if err != nil || v.Config != (len(types) == 1) || v.Config && !bytes.Equal(v.Data, record) ||
				!v.Config && (v.CompositionTime != -3 || !bytes.Equal(v.Data, frame.Payload)) {
				t.Errorf("%+v, %v", v, err)
			}
		case TagAudio:
			a, err := ParseAudioTag(tag.Payload)
			if err != nil || a.Config != (len(types) == 2) || !a.Config && !bytes.Equal(a.Data, SilentAAC(2)) {
				t.Errorf("%+v, %v", a, err)
			}
		}
	}
	if want := []byte{TagVideo, TagAudio, TagVideo, TagAudio, TagScript}; !slices.Equal(types, want) {
		t.Errorf("tags are %d, want %d", types, want)
	}
}

func TestReadTagRefuses(t *testing.T) {
	whole := AppendTag(nil, Tag{Type: TagVideo, Payload: make([]byte, 100)})
	for n := 1; n < len(whole); n++ {
		if _, err := ReadTag(bytes.NewReader(whole[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes gave %v", n, len(whole), err)
		}
	}
	huge := AppendTagHeader(nil, TagVideo, 0, MaxTagPayload+1)
	if _, err := ReadTag(bytes.NewReader(huge)); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a tag too large gave %v", err)
	}
	if err := ReadFLVHeader(strings.NewReader("RIFF and so on and on")); err == nil {
		t.Error("another file was taken for FLV")
	}
}

func TestUnsupportedCodecs(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		body string
		want string
	}{
		{Video, "\x1c\x00\x00\x00\x00", "HEVC"},
		{Video, "\x90hvc1", "HEVC"},
		{Video, "\x90vp09", "VP9"},
		{Video, "\x90xyz!", `"xyz!"`},
		{Video, "\x12\x00", "Sorenson H.263"},
		{Video, "\x19\x00", "number 9"},
		{Audio, "\x2f\x00", "MP3"},
		{Audio, "\x90Opus", `"Opus"`},
		{Audio, "\x90", "number 9"},
		{Audio, "\xbf\x00", "Speex"},
	} {
		var err error
		if c.kind == Video {
			_, err = ParseVideoTag([]byte(c.body))
		} else {
			_, err = ParseAudioTag([]byte(c.body))
		}
		var codec *UnsupportedCodecError
		if !errors.As(err, &codec) || codec.Kind != c.kind || codec.Name != c.want {
			t.Errorf("%q gave %v, want %s", c.body, err, c.want)
		}
	}
}

func FuzzReadTag(f *testing.F) {
	f.Add(AppendVideoConfigTag(nil, 1<<31, record))
	f.Add(AppendTagHeader(nil, TagAudio, 0, MaxTagPayload+1))
	f.Add(AppendTag(nil, Tag{Type: TagScript, Payload: []byte{2, 0, 1, 'x'}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		tag, err := ReadTag(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := ReadTag(bytes.NewReader(AppendTag(nil, tag)))
		if err != nil || again.Type != tag.Type || again.Timestamp != tag.Timestamp || !bytes.Equal(again.Payload, tag.Payload) {
			t.Errorf("%+v became %+v, %v", tag, again, err)
		}
	})
}

func FuzzParseVideoTag(f *testing.F) {
	f.Add([]byte{0x17, 0, 0, 0, 0})
	f.Add([]byte{0x27, 1, 0xff, 0xff, 0xff, 0})
	f.Add([]byte{0x57})
	f.Add([]byte("\x90hvc1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseVideoTag(b)
		if err == nil && (len(v.Data) > len(b) || v.CompositionTime < -1<<23 || v.CompositionTime >= 1<<23) {
			t.Errorf("%+v", v)
		}
	})
}

func FuzzParseAudioTag(f *testing.F) {
	f.Add([]byte{0xaf, 0, 0x11, 0x90})
	f.Add([]byte{0xaf, 1})
	f.Add([]byte("\x90Opus"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := ParseAudioTag(b); err == nil && len(a.Data) != len(b)-2 {
			t.Errorf("%+v", a)
		}
	})
}
