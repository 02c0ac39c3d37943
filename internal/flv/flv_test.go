package flv

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/internal/media"
)

const ms = media.TicksPerMillisecond

func TestFileRoundTrip(t *testing.T) {
	const timestamp = 0xfedcba98 // 32 bits, in FLV's odd order
	videos := []Video{
		{Kind: Config, Format: media.H264, Keyframe: true, Data: []byte("record")},
		{Kind: Frame, Format: media.H264, Keyframe: true, Composition: -3 * ms, Data: []byte{0, 0, 0, 1, 5}},
		{Kind: Frame, Format: media.H264, Composition: 70 * ms, Data: []byte{0, 0, 0, 1, 1}},
		{Kind: Config, Format: media.HEVC, Keyframe: true, Data: []byte("hevc record")},
		{Kind: Frame, Format: media.HEVC, Data: []byte{0, 0, 0, 1, 1}},
		{Kind: End, Format: media.HEVC, Keyframe: true},
	}
	audios := []Audio{
		{Kind: Config, Format: media.AAC, Data: []byte{0x11, 0x90}},
		{Kind: Frame, Format: media.AAC, Data: []byte{0x21, 0x10}},
	}
	file := Header(true, true)
	for _, v := range videos {
		file = AppendTag(file, Tag{TagVideo, timestamp, AppendVideo(nil, v)})
	}
	for _, a := range audios {
		file = AppendTag(file, Tag{TagAudio, timestamp, AppendAudio(nil, a)})
	}
	file = AppendTag(file, Tag{Type: TagScript, Timestamp: timestamp, Payload: []byte("script")})

	r := bytes.NewReader(file)
	if err := ReadHeader(r); err != nil {
		t.Fatal(err)
	}
	for i := range len(videos) + len(audios) + 1 {
		tag, err := ReadTag(r)
		if err != nil || tag.Timestamp != timestamp {
			t.Fatalf("tag %d: %+v, %v", i, tag, err)
		}
		switch {
		case i < len(videos):
			if v, err := ParseVideo(tag.Payload); err != nil || tag.Type != TagVideo || !sameVideo(v, videos[i]) {
				t.Errorf("%+v became %+v, %v", videos[i], v, err)
			}
		case i < len(videos)+len(audios):
			want := audios[i-len(videos)]
			if a, err := ParseAudio(tag.Payload); err != nil || tag.Type != TagAudio || !sameAudio(a, want) {
				t.Errorf("%+v became %+v, %v", want, a, err)
			}
		default:
			if tag.Type != TagScript || string(tag.Payload) != "script" {
				t.Errorf("the script became %+v", tag)
			}
		}
	}
	if _, err := ReadTag(r); err != io.EOF {
		t.Errorf("the end gave %v", err)
	}
}

// What the enhanced form can say is read as it was written, with any track and offset.
func TestEnhancedRoundTrip(t *testing.T) {
	for _, track := range []byte{0, 1, 255} {
		for _, offset := range []time.Duration{0, 1, 999_999} {
			for _, format := range []media.Format{media.H264, media.HEVC, media.AV1} {
				for _, v := range []Video{
					{Kind: Config, Keyframe: true, Data: []byte("record")},
					{Kind: Frame, Keyframe: true, Data: []byte("frame")},
					{Kind: Frame, Composition: -40 * ms, Data: []byte("frame")},
					{Kind: End, Keyframe: true},
				} {
					v.Format, v.Track, v.Offset = format, track, offset
					if format == media.AV1 {
						v.Composition = 0 // there is no place for it
					}
					if got, err := ParseVideo(AppendExVideo(nil, v)); err != nil || !sameVideo(got, v) {
						t.Errorf("%+v became %+v, %v", v, got, err)
					}
				}
			}
			for _, format := range []media.Format{media.AAC, media.Opus} {
				for _, a := range []Audio{{Kind: Config, Data: []byte("record")}, {Kind: Frame, Data: []byte("frame")}, {Kind: End}} {
					a.Format, a.Track, a.Offset = format, track, offset
					if got, err := ParseAudio(AppendExAudio(nil, a)); err != nil || !sameAudio(got, a) {
						t.Errorf("%+v became %+v, %v", a, got, err)
					}
				}
			}
		}
	}
}

func sameVideo(a, b Video) bool {
	same := bytes.Equal(a.Data, b.Data)
	a.Data, b.Data = nil, nil
	return same && a.Kind == b.Kind && a.Format == b.Format && a.Track == b.Track && a.Further == b.Further &&
		a.Keyframe == b.Keyframe && a.Composition == b.Composition && a.Offset == b.Offset
}

func sameAudio(a, b Audio) bool {
	return bytes.Equal(a.Data, b.Data) && a.Kind == b.Kind && a.Format == b.Format && a.Track == b.Track &&
		a.Further == b.Further && a.Offset == b.Offset
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
	if err := ReadHeader(strings.NewReader("RIFF and so on and on")); err == nil {
		t.Error("another file was taken for FLV")
	}
}

// What FFmpeg 9 muxes is read: a configuration for each track, then frames, and their ends.
func TestFilesOfFFmpeg(t *testing.T) {
	for _, c := range []struct {
		name         string
		video, audio media.Format
	}{
		{"hevc-opus", media.HEVC, media.Opus}, {"av1-aac", media.AV1, media.AAC}, {"h264-opus", media.H264, media.Opus},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, err := os.Open("../../e2e/ertmp/testdata/" + c.name + ".flv")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if err := ReadHeader(file); err != nil {
				t.Fatal(err)
			}
			counts := map[media.Format]map[Kind]int{c.video: {}, c.audio: {}}
			count := func(format media.Format, kind Kind, data []byte) {
				if kind == Nothing { // colour information, the order of channels
					return
				}
				if counts[format] == nil {
					t.Fatalf("a tag brings kind %d of %v", kind, format)
				}
				counts[format][kind]++
				if kind == Config {
					if _, err := media.ParseCodec(format, data); err != nil {
						t.Error(err)
					}
				}
			}
			for {
				tag, err := ReadTag(file)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				switch tag.Type {
				case TagVideo:
					v, err := ParseVideo(tag.Payload)
					if err != nil {
						t.Fatal(err)
					}
					count(v.Format, v.Kind, v.Data)
				case TagAudio:
					a, err := ParseAudio(tag.Payload)
					if err != nil {
						t.Fatal(err)
					}
					count(a.Format, a.Kind, a.Data)
				}
			}
			if v, a := counts[c.video], counts[c.audio]; v[Config] != 1 || v[Frame] < 5 || a[Config] != 1 || a[Frame] < 5 {
				t.Errorf("found %v", counts)
			}
		})
	}
}

func TestUnsupportedCodecs(t *testing.T) {
	for _, c := range []struct {
		kind  media.Kind
		body  string
		want  string
		track byte
	}{
		{media.Video, "\x12\x00", "Sorenson H.263", 0},
		{media.Video, "\x16\x00", "Screen Video", 0},
		{media.Video, "\x14\x00", "VP6", 0},
		{media.Video, "\x19\x00", "number 9", 0},
		{media.Video, "\x1d\x00", "AV1 by number", 0},
		{media.Video, "\x90vp08", "VP8", 0},
		{media.Video, "\x90vp09", "VP9", 0},
		{media.Video, "\x91vvc1", "VVC", 0},
		{media.Video, "\x90xyz!", `"xyz!"`, 0},
		{media.Video, "\x90hev1", `"hev1"`, 0},
		{media.Video, "\x96\x00vp09\x03", "VP9", 3},
		{media.Video, "\x95av01\x80\x00\x00\x00", "AV1 as in MPEG-2 TS", 0},
		{media.Audio, "\x6f\x00", "Nellymoser", 0},
		{media.Audio, "\xbf\x00", "Speex", 0},
		{media.Audio, "\xc0", "number 12", 0},
		{media.Audio, "\x90ac-3", "AC-3", 0},
		{media.Audio, "\x91ec-3", "E-AC-3", 0},
		{media.Audio, "\x90fLaC", "FLAC", 0},
		{media.Audio, "\x95\x01fLaC\x01", "FLAC", 1},
	} {
		var err error
		if c.kind == media.Video {
			_, err = ParseVideo([]byte(c.body))
		} else {
			_, err = ParseAudio([]byte(c.body))
		}
		var codec *UnsupportedCodecError
		if !errors.As(err, &codec) || codec.Kind != c.kind || codec.Name != c.want || codec.Track != c.track {
			t.Errorf("%q gave %v, want %s", c.body, err, c.want)
		}
	}
}

// Sound that needs no configuration is frames from its first body on.
func TestSoundWithoutConfiguration(t *testing.T) {
	for body, want := range map[string]Audio{
		"\x2fxy":    {Kind: Frame, Format: media.MP3, Data: []byte("xy")},
		"\xe2xy":    {Kind: Frame, Format: media.MP3, Data: []byte("xy")},
		"\x91.mp3x": {Kind: Frame, Format: media.MP3, Data: []byte("x")},
		"\x90.mp3x": {},
		"\x72xy":    {Kind: Frame, Format: media.ALaw, Channels: 1, Data: []byte("xy")},
		"\x83xy":    {Kind: Frame, Format: media.MuLaw, Channels: 2, Data: []byte("xy")},
		"\x72":      {Kind: Nothing, Format: media.ALaw, Channels: 1, Data: []byte{}},
	} {
		if got, err := ParseAudio([]byte(body)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q gave %+v, %v, want %+v", body, got, err, want)
		}
	}
}

func FuzzReadTag(f *testing.F) {
	f.Add(AppendTag(nil, Tag{TagVideo, 1 << 31, AppendVideo(nil, Video{Kind: Config, Format: media.H264, Data: []byte("record")})}))
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

// FuzzParseVideo gives any bytes for a body. What is read is part of them, and what can be written
// again is read as the same.
func FuzzParseVideo(f *testing.F) {
	for _, c := range videoCases {
		f.Add([]byte(c.body))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseVideo(b)
		if err != nil {
			return
		}
		checkContent(t, b, v.Kind, v.Format, media.Video, v.Offset, v.Data)
		if v.Composition < -1<<23*ms || v.Composition >= 1<<23*ms {
			t.Fatalf("%+v", v)
		}
		if v.Kind == Nothing || v.Kind == End || !v.Keyframe && v.Kind == Config {
			return
		}
		v.Further = 0
		if again, err := ParseVideo(AppendExVideo(nil, v)); err != nil || !sameVideo(again, v) {
			t.Errorf("%+v became %+v, %v", v, again, err)
		}
	})
}

// FuzzParseAudio does the same with sound.
func FuzzParseAudio(f *testing.F) {
	for _, c := range audioCases {
		f.Add([]byte(c.body))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAudio(b)
		if err != nil {
			return
		}
		checkContent(t, b, a.Kind, a.Format, media.Audio, a.Offset, a.Data)
		if a.Kind == Nothing {
			return
		}
		a.Further = 0
		if again, err := ParseAudio(AppendExAudio(nil, a)); err != nil || !sameAudio(again, a) {
			t.Errorf("%+v became %+v, %v", a, again, err)
		}
	})
}

func checkContent(t *testing.T, body []byte, kind Kind, format media.Format, track media.Kind, offset time.Duration, data []byte) {
	t.Helper()
	formats := []media.Format{media.H264, media.HEVC, media.AV1}
	if track == media.Audio {
		formats = []media.Format{media.AAC, media.Opus}
	}
	switch {
	case kind != Nothing && !slices.Contains(formats, format),
		kind == Frame && len(data) == 0,
		kind == End && len(data) > 0,
		len(data) > len(body) && !bytes.Equal(data, defaultOpusHead),
		offset < 0 || offset >= time.Millisecond:
		t.Fatalf("kind %d of %q, %d bytes, %v", kind, format, len(data), offset)
	}
}
