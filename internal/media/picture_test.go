package media

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// madeRecord returns a configuration of testdata/records.txt: what x264, x265,
// SVT-AV1 and libaom wrote for a picture of that name.
func madeRecord(t testing.TB, name string) (Format, []byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/records.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == name {
			record, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			return Format(f[1]), record
		}
	}
	t.Fatalf("there is no record %s", name)
	return "", nil
}

// pictureOf is a picture without what decoders keep of it.
func pictureOf(width, height int, a Aspect, c Colour, chroma Chroma, depth int, interlaced bool) Picture {
	return Picture{Width: width, Height: height, Aspect: a, Colour: c, Chroma: chroma, Depth: depth, Interlaced: interlaced}
}

// What encoders write of their pictures is read in all formats.
func TestPictures(t *testing.T) {
	bt709 := Colour{Primaries: 1, Transfer: 1, Matrix: 1}
	full := Colour{Unspecified, Unspecified, Unspecified, true}
	for name, want := range map[string]struct {
		Picture
		width, height int
		variety       string
	}{
		"plain":    {pictureOf(352, 288, Aspect{}, unspecified, Chroma420, 8, false), 352, 288, ""},
		"sar":      {pictureOf(352, 288, Aspect{16, 11}, unspecified, Chroma420, 8, false), 512, 288, ""},
		"sarext":   {pictureOf(352, 288, Aspect{64, 45}, unspecified, Chroma420, 8, false), 501, 288, ""},
		"anamorph": {pictureOf(1440, 1080, Aspect{4, 3}, unspecified, Chroma420, 8, false), 1920, 1080, ""},
		"hd":       {pictureOf(1920, 1080, Aspect{}, unspecified, Chroma420, 8, false), 1920, 1080, ""},
		"hdi":      {pictureOf(1920, 1080, Aspect{}, unspecified, Chroma420, 8, true), 1920, 1080, ""},
		"crop":     {pictureOf(350, 286, Aspect{}, unspecified, Chroma420, 8, false), 350, 286, ""},
		"crop422":  {pictureOf(350, 286, Aspect{}, unspecified, Chroma422, 8, false), 350, 286, "High 4:2:2"},
		"crop444":  {pictureOf(350, 286, Aspect{}, unspecified, Chroma444, 8, false), 350, 286, "High 4:4:4"},
		"mono":     {pictureOf(350, 286, Aspect{}, full, Monochrome, 8, false), 350, 286, "High (monochrome)"},
		"ten":      {pictureOf(352, 288, Aspect{}, unspecified, Chroma420, 10, false), 352, 288, "High 10"},
		"ten422":   {pictureOf(352, 288, Aspect{}, unspecified, Chroma422, 10, false), 352, 288, "High 4:2:2"},
		"full":     {pictureOf(352, 288, Aspect{}, full, Chroma420, 8, false), 352, 288, ""},
		"bt709":    {pictureOf(352, 288, Aspect{}, bt709, Chroma420, 8, false), 352, 288, ""},
		"hrd":      {pictureOf(352, 288, Aspect{}, unspecified, Chroma420, 8, false), 352, 288, ""},
		"hlg":      {pictureOf(352, 288, Aspect{}, Colour{9, 18, 9, false}, Chroma420, 10, false), 352, 288, "High 10"},
		"h5sar":    {pictureOf(352, 288, Aspect{16, 11}, unspecified, Chroma420, 8, false), 512, 288, ""},
		"h5ten422": {pictureOf(350, 286, Aspect{}, Colour{9, 16, 9, false}, Chroma422, 10, false), 350, 286, "10 bits, 4:2:2"},
		"h5hdpq":   {pictureOf(1920, 1080, Aspect{}, Colour{9, 16, 9, false}, Chroma420, 10, false), 1920, 1080, "10 bits"},
		"h5field":  {pictureOf(352, 288, Aspect{}, unspecified, Chroma420, 8, true), 352, 288, ""},
		"a1":       {pictureOf(352, 286, Aspect{}, Colour{1, 1, 1, true}, Chroma420, 8, false), 352, 286, ""},
		"a1ten":    {pictureOf(352, 288, Aspect{}, unspecified, Chroma420, 10, false), 352, 288, "10 bits"},
		"a1444":    {pictureOf(352, 288, Aspect{}, unspecified, Chroma444, 8, false), 352, 288, "4:4:4"},
	} {
		format, record := madeRecord(t, name)
		c, err := ParseCodec(format, record)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := c.Picture.Decoded; d.Width < c.Picture.Width || d.Height < c.Picture.Height || d.Width > c.Picture.Width+16 || d.Pictures < 1 {
			t.Errorf("%s: decoders keep %+v", name, d)
		}
		c.Picture.Decoded = Decoded{}
		if c.Picture != want.Picture || c.Width != want.width || c.Height != want.height || c.Variety != want.variety ||
			c.Universal != (format == H264 && want.variety == "") {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// bitWriter writes the bits of a parameter set.
type bitWriter struct {
	b []byte
	n int // bits written
}

func (w *bitWriter) u(bits int, v uint) *bitWriter {
	for i := bits - 1; i >= 0; i-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (7 - w.n%8)
		w.n++
	}
	return w
}

// ue writes unsigned Exp-Golomb codes (ITU-T H.264, 9.1).
func (w *bitWriter) ue(values ...uint) *bitWriter {
	for _, v := range values {
		length := 0
		for (v+1)>>(length+1) > 0 {
			length++
		}
		w.u(length, 0).u(length+1, v+1)
	}
	return w
}

// nalu returns a NAL unit of what was written: with its stop bit, and with
// emulation prevention (7.4.1).
func (w *bitWriter) nalu() []byte {
	w.u(1, 1)
	var out []byte
	zeros := 0
	for _, b := range w.b {
		if zeros >= 2 && b <= 3 {
			out, zeros = append(out, 3), 0
		}
		if out = append(out, b); b == 0 {
			zeros++
		} else {
			zeros = 0
		}
	}
	return out
}

// beginSPS begins an SPS of a profile; the seq_parameter_set_id is written.
func beginSPS(profile uint) *bitWriter {
	return new(bitWriter).u(8, 0x67).u(8, profile).u(8, 0).u(8, 30).ue(0)
}

// What no encoder at hand writes, and what is broken.
func TestParseSPS(t *testing.T) {
	// 20x18 macroblocks, after frame_num and picture order count of type 0.
	plain := func(profile uint) *bitWriter {
		return beginSPS(profile).ue(0, 0, 2, 1).u(1, 0).ue(19, 17).u(1, 1).u(1, 1)
	}
	for name, c := range map[string]struct {
		nalu []byte
		want *SPS // nil: it is refused
	}{
		"all sides cropped": {
			plain(66).u(1, 1).ue(1, 2, 3, 4).u(1, 0).nalu(),
			&SPS{Profile: 66, Level: 30, FrameNumBits: 4, POCBits: 6, FrameMBsOnly: true, ReorderFrames: -1,
				Picture: pictureOf(320-6, 288-14, Aspect{}, unspecified, Chroma420, 8, false)},
		},
		"fields of 8 rows less": {
			beginSPS(77).ue(5, 0, 2, 1).u(1, 0).ue(19, 8).u(1, 0).u(1, 1).u(1, 1).u(1, 1).ue(0, 0, 0, 2).u(1, 0).nalu(),
			&SPS{Profile: 77, Level: 30, FrameNumBits: 9, POCBits: 6, ReorderFrames: -1,
				Picture: pictureOf(320, 288-8, Aspect{}, unspecified, Chroma420, 8, true)},
		},
		"separate planes, picture order count of type 1": {
			beginSPS(244).ue(3).u(1, 1).ue(1, 2).u(1, 0).u(1, 0).ue(0, 1).u(1, 1).ue(3, 4, 2, 5, 6).
				ue(1).u(1, 0).ue(19, 17).u(1, 1).u(1, 1).u(1, 1).ue(1, 1, 1, 1).u(1, 0).nalu(),
			&SPS{Profile: 244, Level: 30, SeparatePlanes: true, FrameNumBits: 4, POCType: 1, DeltaPOCAlwaysZero: true, FrameMBsOnly: true, ReorderFrames: -1,
				Picture: pictureOf(318, 286, Aspect{}, unspecified, Chroma444, 10, false)},
		},
		"scaling lists, monochrome, type 2": {
			// seq_scaling_list_present_flag: one list that falls back at once, 7 that aren't there.
			beginSPS(100).ue(0, 0, 0).u(1, 0).u(1, 1).u(1, 1).ue(16).u(7, 0).ue(0, 2).
				ue(1).u(1, 0).ue(19, 17).u(1, 1).u(1, 1).u(1, 1).ue(1, 0, 0, 1).u(1, 0).nalu(),
			&SPS{Profile: 100, Level: 30, FrameNumBits: 4, POCType: 2, FrameMBsOnly: true, ReorderFrames: -1,
				Picture: pictureOf(319, 287, Aspect{}, unspecified, Monochrome, 8, false)},
		},
		"an extended aspect, colours, reordering": {
			plain(77).u(1, 0).u(1, 1).u(1, 1).u(8, 255).u(16, 128).u(16, 117).u(1, 1).u(1, 1).u(1, 1).u(3, 5).u(1, 1).u(1, 1).u(24, 0x060106).
				u(1, 1).ue(2, 2).u(1, 0).u(1, 0).u(1, 0).u(1, 1).u(1, 1).u(1, 1).ue(0, 0, 9, 9, 2, 4).nalu(),
			&SPS{Profile: 77, Level: 30, FrameNumBits: 4, POCBits: 6, FrameMBsOnly: true, PicStruct: true, ReorderFrames: 2,
				Picture: pictureOf(320, 288, Aspect{128, 117}, Colour{6, 1, 6, true}, Chroma420, 8, false)},
		},
		"an aspect of 0:0": {
			plain(77).u(1, 0).u(1, 1).u(1, 1).u(8, 255).u(32, 0).u(8, 0).nalu(),
			&SPS{Profile: 77, Level: 30, FrameNumBits: 4, POCBits: 6, FrameMBsOnly: true, ReorderFrames: -1,
				Picture: pictureOf(320, 288, Aspect{}, unspecified, Chroma420, 8, false)},
		},
		"an aspect that nobody knows": {
			plain(77).u(1, 0).u(1, 1).u(1, 1).u(8, 77).u(8, 0).nalu(),
			&SPS{Profile: 77, Level: 30, FrameNumBits: 4, POCBits: 6, FrameMBsOnly: true, ReorderFrames: -1,
				Picture: pictureOf(320, 288, Aspect{}, unspecified, Chroma420, 8, false)},
		},
		"cut short after the aspect": {
			plain(77).u(1, 0).u(1, 1).u(1, 1).u(8, 14).u(1, 0).u(1, 1).b,
			&SPS{Profile: 77, Level: 30, FrameNumBits: 4, POCBits: 6, FrameMBsOnly: true, ReorderFrames: -1,
				Picture: pictureOf(320, 288, Aspect{4, 3}, unspecified, Chroma420, 8, false)},
		},
		"cropped to nothing":   {plain(66).u(1, 1).ue(80, 80, 0, 0).u(1, 0).nalu(), nil},
		"cropped to less":      {plain(66).u(1, 1).ue(1<<31, 1<<31, 1<<31, 0).u(1, 0).nalu(), nil},
		"cut short":            {plain(66).b[:7], nil},
		"another NAL unit":     {append([]byte{0x68}, plain(66).u(2, 0).nalu()[1:]...), nil},
		"a picture of 16 Mpx":  {beginSPS(66).ue(0, 0, 2, 1).u(1, 0).ue(600, 17).u(1, 1).u(1, 1).u(2, 0).nalu(), nil},
		"no such chroma":       {beginSPS(100).ue(4, 0, 0).u(2, 0).ue(0, 2, 1).u(1, 0).ue(19, 17).u(4, 12).nalu(), nil},
		"a long frame number":  {beginSPS(66).ue(13, 0, 2, 1).u(1, 0).ue(19, 17).u(1, 1).u(1, 1).u(2, 0).nalu(), nil},
		"an order of type 3":   {beginSPS(66).ue(0, 3, 1).u(1, 0).ue(19, 17).u(1, 1).u(1, 1).u(2, 0).nalu(), nil},
		"nothing":              {nil, nil},
		"nothing but a header": {[]byte{0x67}, nil},
	} {
		got, err := ParseSPS(c.nalu)
		if c.want == nil {
			if err == nil {
				t.Errorf("%s: %+v", name, got)
			}
			continue
		}
		if err == nil {
			got.Picture.Decoded = Decoded{}
		}
		if err != nil || *got != *c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// The larger side of a sample is drawn out, and an absurd one isn't believed.
func TestShown(t *testing.T) {
	for _, c := range []struct {
		p             Picture
		width, height int
	}{
		{Picture{Width: 720, Height: 576, Aspect: Aspect{16, 15}}, 768, 576},
		{Picture{Width: 720, Height: 576, Aspect: Aspect{64, 45}}, 1024, 576},
		{Picture{Width: 720, Height: 480, Aspect: Aspect{10, 11}}, 720, 528},
		{Picture{Width: 720, Height: 480, Aspect: Aspect{8, 9}}, 720, 540},
		{Picture{Width: 704, Height: 576, Aspect: Aspect{12, 11}}, 768, 576},
		{Picture{Width: 640, Height: 360}, 640, 360},
		{Picture{Width: 640, Height: 360, Aspect: Aspect{1000, 1}}, 640, 360},
		{Picture{Width: 640, Height: 360, Aspect: Aspect{1, 65535}}, 640, 360},
		{Picture{Width: 4096, Height: 2160, Aspect: Aspect{2, 1}}, 4096, 2160},
	} {
		if w, h := c.p.Shown(); w != c.width || h != c.height {
			t.Errorf("%+v is shown at %dx%d", c.p, w, h)
		}
	}
}

// An aspect that isn't believed isn't handed on either.
func TestAbsurdAspect(t *testing.T) {
	var c Codec
	if err := c.setPicture(Picture{Width: 640, Height: 360, Aspect: Aspect{1000, 1}, Decoded: Decoded{Width: 640, Height: 368}}); err != nil || c.Width != 640 || !c.Picture.Aspect.Square() {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzParseSPS(f *testing.F) {
	for _, name := range []string{"sar", "hdi", "crop444", "bt709", "hrd"} {
		_, record := madeRecord(f, name)
		f.Add(record[8 : 8+int(record[7])])
	}
	f.Fuzz(func(t *testing.T, nalu []byte) {
		s, err := ParseSPS(nalu)
		if err != nil {
			return
		}
		if w, h := s.Picture.Shown(); w < 1 || h < 1 || w > MaxPictureSide || h > MaxPictureSide || s.Picture.variety() == "" && s.Picture.Chroma != Chroma420 {
			t.Errorf("%+v", s)
		}
	})
}

// What is left out of a colour is filled in, and what means nothing is left out.
func TestColours(t *testing.T) {
	for _, c := range []struct{ primaries, transfer, matrix, full, wantPrimaries, wantTransfer, wantMatrix uint8 }{
		{2, 2, 2, 0, 2, 2, 2},
		{2, 2, 2, 1, 1, 13, 6},
		{1, 13, 0, 1, 1, 13, 0},
		{2, 2, 6, 0, 6, 6, 6},
		{2, 2, 5, 1, 5, 6, 5},
		{2, 2, 9, 0, 9, 14, 9},
		{9, 2, 2, 0, 9, 14, 9},
		{6, 2, 2, 0, 6, 6, 6},
		{12, 2, 2, 0, 12, 1, 1},
		{2, 16, 2, 0, 9, 16, 9},
		{2, 4, 2, 0, 1, 4, 1},
		{9, 18, 9, 0, 9, 18, 9},
		{3, 0, 200, 0, 2, 2, 2},
		{22, 3, 3, 0, 2, 2, 2},
		{0, 19, 6, 0, 6, 6, 6},
	} {
		got := colourOf(c.primaries, c.transfer, c.matrix, c.full == 1).Complete()
		if got != (Colour{c.wantPrimaries, c.wantTransfer, c.wantMatrix, c.full == 1}) {
			t.Errorf("%v became %+v", c, got)
		}
	}
}
