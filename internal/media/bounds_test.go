package media_test

import (
	"errors"
	"strings"
	"testing"

	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

// record is an HEVCDecoderConfigurationRecord with an SPS in the place of a clip's.
func hevcRecord(t *testing.T, sps ...[]byte) []byte {
	t.Helper()
	track, _ := mediatest.Clip(t, "hevc-opus")
	b := append([]byte{}, track.Codec.Record[:22]...)
	b = append(b, 3, 0xa0, 0, 1, 0, 4, 0x40, 1, 0x0c, 1, 0xa1, 0, byte(len(sps)))
	for _, nalu := range sps {
		b = append(append(b, byte(len(nalu)>>8), byte(len(nalu))), nalu...)
	}
	return append(b, 0xa2, 0, 1, 0, 4, 0x44, 1, 0xc0, 0x73)
}

func av1Record(t *testing.T, width, height int) []byte {
	t.Helper()
	record, err := media.AV1Record(mediatest.AV1Sequence(width, height))
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// A configuration of pictures beyond the bounds is refused in words that say what to set, in
// all formats, and also where its first parameter set is harmless. What streamers send isn't.
func TestPicturesBeyondTheBounds(t *testing.T) {
	small := mediatest.Skipped{Width: 40, Height: 23, Refs: 4}
	h264 := func(width, height, refs int) []byte {
		return mediatest.Skipped{Width: width, Height: height, Refs: refs}.Record()
	}
	behind := func() []byte { // two SPS in a record
		b := small.Record()
		sps := mediatest.Skipped{Width: 512, Height: 512, Refs: 16}.SPS()
		at := 8 + len(small.SPS())
		second := append([]byte{byte(len(sps) >> 8), byte(len(sps))}, sps...)
		b = append(append(append([]byte{}, b[:at]...), second...), b[at:]...)
		b[5]++
		return b
	}
	for _, c := range []struct {
		name   string
		format media.Format
		record []byte
		words  string // of the refusal; empty: it is taken
	}{
		{"H.264, 360p with 16 references", media.H264, h264(40, 23, 16), ""},
		{"H.264, 1080p with 16 references", media.H264, h264(120, 68, 16), ""},
		{"H.264, 2160p with 5 references", media.H264, h264(240, 135, 5), ""},
		{"H.264, 4096x2304", media.H264, h264(256, 144, 4), ""},
		{"H.264, upright 2160p", media.H264, h264(135, 240, 4), ""},
		{"H.264, 5120x1440", media.H264, h264(320, 90, 4), ""},
		{"H.264, the attack", media.H264, h264(512, 512, 16), "A picture of 8192x8192 is larger than what is taken"},
		{"H.264, 8192x8192 without references", media.H264, h264(512, 512, 1), "lower the output resolution"},
		{"H.264, a row more", media.H264, h264(256, 145, 1), "larger"},
		{"H.264, wide and flat", media.H264, h264(513, 2, 1), "larger"},
		{"H.264, 4096x2304 with 17 references", media.H264, h264(256, 144, 17), "17 pictures"},
		{"H.264, numbers of 32 bits", media.H264, h264(1<<31, 1<<31, 1), "larger"},
		{"H.264, behind another SPS", media.H264, behind(), "larger"},
		{"HEVC, 2160p with 6 pictures", media.HEVC, hevcRecord(t, mediatest.HEVCSPS(3840, 2160, 6)), ""},
		{"HEVC, 8192x4320", media.HEVC, hevcRecord(t, mediatest.HEVCSPS(8192, 4320, 6)), "larger"},
		{"HEVC, behind another SPS", media.HEVC, hevcRecord(t, mediatest.HEVCSPS(640, 360, 6), mediatest.HEVCSPS(8192, 4320, 6)), "larger"},
		{"HEVC, 17 pictures", media.HEVC, hevcRecord(t, mediatest.HEVCSPS(640, 360, 17)), "17 pictures"},
		{"AV1, 2160p", media.AV1, av1Record(t, 3840, 2160), ""},
		{"AV1, 65536x65536", media.AV1, av1Record(t, 65536, 65536), "larger"},
		{"AV1, behind another sequence header", media.AV1, append(av1Record(t, 640, 360), av1Record(t, 8192, 4320)[4:]...), "larger"},
	} {
		_, err := media.ParseCodec(c.format, c.record)
		var bound *media.BoundError
		switch {
		case c.words == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)):
			t.Errorf("%s: %v", c.name, err)
		case c.words != "" && !errors.As(err, &bound) && !strings.Contains(c.words, "17"):
			t.Errorf("%s: %v is no refusal by a bound", c.name, err)
		}
	}
}

// What decoders have to keep is bounded by its size in memory: more of small pictures than
// of large ones, more with 8 bits than with 10.
func TestKeptPictures(t *testing.T) {
	of := func(depth int, chroma media.Chroma) int {
		return media.Picture{Depth: depth, Chroma: chroma, Decoded: media.Decoded{Width: 100, Height: 10}}.Bytes()
	}
	for _, c := range []struct{ got, want int }{
		{of(8, media.Monochrome), 1000}, {of(8, media.Chroma420), 1500}, {of(8, media.Chroma422), 2000}, {of(8, media.Chroma444), 3000},
		{of(10, media.Chroma420), 3000}, {of(12, media.Chroma444), 6000},
	} {
		if c.got != c.want {
			t.Errorf("a picture takes %d bytes, want %d", c.got, c.want)
		}
	}
}
