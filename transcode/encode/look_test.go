package encode

import (
	"bytes"
	"fmt"
	imagejpeg "image/jpeg"
	"math"
	"os/exec"
	"strings"
	"testing"

	"millrace/internal/flv"
	"millrace/internal/media"
	"millrace/internal/testenv"
)

// drawn is what libx264 makes of half a second of a test picture, through a filter.
func drawn(t *testing.T, picture, filter, options string) (c *media.Codec, units []*media.Unit) {
	t.Helper()
	args := strings.Fields("-nostdin -v error -f lavfi -i " + picture + " -vf " + filter + " -c:v libx264 -preset veryfast -qp 8 -bf 0 -threads 1 " + options + " -f flv pipe:1")
	out, err := exec.CommandContext(t.Context(), testenv.FFmpeg(t), args...).Output()
	if err != nil {
		t.Fatalf("ffmpeg %q: %v", args, err)
	}
	r := bytes.NewReader(out)
	if err := flv.ReadHeader(r); err != nil {
		t.Fatal(err)
	}
	for {
		tag, err := flv.ReadTag(r)
		if err != nil {
			return c, units
		}
		if tag.Type != flv.TagVideo {
			continue
		}
		v, err := flv.ParseVideo(tag.Payload)
		if err != nil {
			t.Fatal(err)
		}
		switch v.Kind {
		case flv.Config:
			if c, err = media.ParseCodec(v.Format, v.Data); err != nil {
				t.Fatal(err)
			}
		case flv.Frame:
			at := media.Ticks(tag.Timestamp) * media.TicksPerMillisecond
			units = append(units, &media.Unit{Track: media.Video, DTS: at, PTS: at, RandomAccess: len(units) == 0, Payload: v.Data})
		}
	}
}

// rungOf is what a process makes of pictures in one rung, and its picture for listings.
func rungOf(t *testing.T, c *media.Codec, units []*media.Unit, r Rung) (made *media.Codec, frames []*media.Unit, jpeg []byte) {
	t.Helper()
	f, _ := ownFFmpeg(t)
	out := make(chan output, 256)
	e, err := f.startEncoder(t.Context(), Job{Rungs: []Rung{r}, Preset: "ultrafast", Thumbnail: true, Look: LookOf(c.Picture), Picture: c.Picture}, out)
	if err != nil {
		t.Fatal(err)
	}
	e.config(c)
	for _, u := range units {
		e.picture(u)
	}
	e.finish()
	for o := range out {
		switch {
		case o.config != nil:
			made = o.config
		case o.frame != nil:
			frames = append(frames, o.frame)
		case o.thumbnail != nil:
			jpeg = o.thumbnail
		case o.exit != nil:
			if e.running.Wait(); o.exit.err != nil {
				t.Fatal(o.exit.err)
			}
			return made, frames, jpeg
		}
	}
	return made, frames, jpeg
}

// file packages pictures as players get them.
func file(t *testing.T, c *media.Codec, units []*media.Unit) []byte {
	t.Helper()
	init, err := c.Init()
	if err != nil {
		t.Fatal(err)
	}
	f := media.Fragment{Number: 1}
	for _, u := range units {
		f.Samples = append(f.Samples, media.Sample{Duration: 3600, Sync: u.RandomAccess, Payload: u.Payload})
	}
	return f.Append(bytes.Clone(init.Data))
}

// seen returns the colours of six places of a picture, as a player shows it that
// knows what it was told: matrix and range of the colour.
func seen(t *testing.T, file []byte, format string, c media.Colour) (colours []int) {
	t.Helper()
	matrix, full := "bt601", "tv"
	if c.Matrix == media.BT709 {
		matrix = "bt709"
	}
	if c.FullRange {
		full = "pc"
	}
	cmd := exec.CommandContext(t.Context(), testenv.FFmpeg(t), strings.Fields(fmt.Sprintf("-v error -f %s -i pipe:0 -frames:v 1"+
		" -vf scale=9:9:flags=area+accurate_rnd+full_chroma_int:in_color_matrix=%s:in_range=%s,format=rgb24 -f rawvideo pipe:1", format, matrix, full))...)
	cmd.Stdin = bytes.NewReader(file)
	out, err := cmd.Output()
	if err != nil || len(out) != 9*9*3 {
		t.Fatalf("%d bytes were decoded: %v", len(out), err)
	}
	for _, at := range [][2]int{{1, 1}, {4, 1}, {7, 1}, {1, 7}, {4, 4}, {7, 7}} {
		i := (at[1]*9 + at[0]) * 3
		colours = append(colours, int(out[i]), int(out[i+1]), int(out[i+2]))
	}
	return colours
}

func far(a, b []int) (most int) {
	for i := range a {
		most = max(most, int(math.Abs(float64(a[i]-b[i]))))
	}
	return most
}

const bars = "rgbtestsrc=s=320x180:r=25:d=0.2"

// A rung and the picture for listings have the source's colours, whatever range and
// matrix it has, and say so.
func TestRungsHaveTheSourcesColours(t *testing.T) {
	rung := Rung{Name: "90p25", Width: 160, Height: 90, FrameRate: 25, Step: 1, Bitrate: 3_000_000}
	for _, c := range []struct {
		name, filter, options string
		want                  media.Colour // of the rung
	}{
		{"BT.601", "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p,setparams=color_primaries=6:color_trc=6:colorspace=6:range=tv", "", media.Colour{Primaries: 6, Transfer: 6, Matrix: 6}},
		{"BT.709", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,setparams=color_primaries=1:color_trc=1:colorspace=1:range=tv", "", media.Colour{Primaries: 1, Transfer: 1, Matrix: 1}},
		{"BT.709, full range", "scale=out_color_matrix=bt709:out_range=pc,format=yuv420p,setparams=color_primaries=1:color_trc=13:colorspace=1:range=pc", "", media.Colour{Primaries: 1, Transfer: 13, Matrix: 1}},
		{"full range, as a webcam's", "scale=out_color_matrix=bt601:out_range=pc,format=yuvj420p", "", media.Colour{Primaries: 1, Transfer: 13, Matrix: 6}},
		{"a matrix alone", "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p,setparams=colorspace=5", "", media.Colour{Primaries: 5, Transfer: 6, Matrix: 5}},
		{"nothing, small", "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p", "", media.Colour{Primaries: 2, Transfer: 2, Matrix: 2}},
		{"nothing, large", "scale=1280:720:out_color_matrix=bt709:out_range=tv,format=yuv420p", "", media.Colour{Primaries: 1, Transfer: 1, Matrix: 1}},
		{"4:4:4, full range", "scale=out_color_matrix=bt709:out_range=pc,format=yuv444p,setparams=color_primaries=1:color_trc=1:colorspace=1:range=pc", "", media.Colour{Primaries: 1, Transfer: 1, Matrix: 1}},
		{"10 bits, 4:2:2", "scale=out_color_matrix=bt709:out_range=tv,format=yuv422p10le,setparams=color_primaries=1:color_trc=1:colorspace=1:range=tv", "", media.Colour{Primaries: 1, Transfer: 1, Matrix: 1}},
		{"samples that aren't square", "scale=198:180:out_color_matrix=bt601:out_range=tv,format=yuv420p,setsar=16/11,setparams=color_primaries=6:color_trc=6:colorspace=6", "", media.Colour{Primaries: 6, Transfer: 6, Matrix: 6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			codec, units := drawn(t, bars, c.filter, c.options)
			made, frames, jpeg := rungOf(t, codec, units, rung)
			if made == nil || made.Picture.Colour != c.want || made.Picture.Depth != 8 || made.Picture.Chroma != media.Chroma420 ||
				!made.Picture.Aspect.Square() || !made.Universal || len(frames) != len(units) {
				t.Fatalf("%d pictures of %d: %+v", len(frames), len(units), made)
			}
			look := LookOf(codec.Picture).Colour
			source := seen(t, file(t, codec, units), "mp4", look)
			if off := far(source, seen(t, file(t, made, frames), "mp4", made.Picture.Colour)); off > 8 {
				t.Errorf("a rung's colours are off by %d", off)
			}
			if off := far(source, seen(t, jpeg, "mjpeg", media.Colour{Matrix: 6, FullRange: true})); off > 8 {
				t.Errorf("the colours of the picture for listings are off by %d", off)
			}
		})
	}
}

// The picture for listings has the shape that the source is shown in, however wide.
func TestListedShape(t *testing.T) {
	for filter, want := range map[string]string{
		"scale=176:144,setsar=16/11": "480x270",
		"scale=96:176,setsar=1":      "480x880",
		"scale=4096:16,setsar=2/1":   "480x2",
	} {
		codec, units := drawn(t, bars, filter+",format=yuv420p", "")
		_, _, jpeg := rungOf(t, codec, units, Rung{Name: "r", Width: 64, Height: 36, FrameRate: 25, Step: 1, Bitrate: 100_000})
		c, err := imagejpeg.DecodeConfig(bytes.NewReader(jpeg))
		if got := fmt.Sprintf("%dx%d", c.Width, c.Height); err != nil || got != want {
			t.Errorf("%s: %s, want %s, %v", filter, got, want, err)
		}
	}
}

// HDR comes out in the ordinary range: grey stays grey, as bright as it is meant.
func TestHDRIsToneMapped(t *testing.T) {
	rung := Rung{Name: "90p25", Width: 160, Height: 90, FrameRate: 25, Step: 1, Bitrate: 1_000_000}
	for _, c := range []struct {
		name            string
		transfer, value int // the value is of 10 bits
		low, high       int // of what comes out
	}{
		{"PQ, paper white (203 cd/m²)", 16, 64 + 508, 150, 220},
		{"PQ, dark", 16, 64 + 150, 0, 40},
		{"PQ, a light (1000 cd/m²)", 16, 64 + 659, 240, 255},
		{"HLG, paper white", 18, 64 + 657, 150, 220},
		{"HLG, black", 18, 64, 0, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			codec, units := drawn(t, "color=gray:s=320x180:r=25:d=0.12",
				fmt.Sprintf("format=yuv420p10le,lutyuv=y=%d:u=512:v=512,setparams=color_primaries=9:color_trc=%d:colorspace=9:range=tv", c.value, c.transfer), "")
			made, frames, _ := rungOf(t, codec, units, rung)
			if made == nil || made.Picture.Colour != (media.Colour{Primaries: 1, Transfer: 1, Matrix: 1}) || !made.Universal || len(frames) != len(units) {
				t.Fatalf("%d pictures of %d: %+v", len(frames), len(units), made)
			}
			got := seen(t, file(t, made, frames), "mp4", made.Picture.Colour)
			for i, v := range got {
				if v < c.low || v > c.high || int(math.Abs(float64(v-got[0]))) > 3 {
					t.Fatalf("colour %d is %d: %v, want grey of %d to %d", i%3, v, got[:3], c.low, c.high)
				}
			}
		})
	}
}

// Frames of two fields are made one picture each, however they are coded, and those
// that only might have been stay as they are.
func TestFieldsAreJoined(t *testing.T) {
	rung := Rung{Name: "180p25", Width: 320, Height: 180, FrameRate: 25, Step: 1, Bitrate: 6_000_000}
	for _, c := range []struct {
		name, filter, options string
		combed                bool
	}{
		{"interlaced", "tinterlace=interleave_top,fieldorder=tff,format=yuv420p", "-flags +ildct+ilme -x264-params tff=1", true},
		{"bottom field first", "tinterlace=interleave_bottom,fieldorder=bff,format=yuv420p", "-flags +ildct+ilme -x264-params bff=1", true},
		{"progressive, said to be interlaced", "fps=25,format=yuv420p", "-x264-params fake-interlaced=1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			codec, units := drawn(t, "testsrc2=s=320x180:r=50:d=0.6,scroll=horizontal=0.03", c.filter, c.options)
			if !codec.Picture.Interlaced {
				t.Fatalf("the source isn't interlaced: %+v", codec)
			}
			made, frames, _ := rungOf(t, codec, units, rung)
			if made == nil || made.Picture.Interlaced || len(frames) != len(units) {
				t.Fatalf("%d pictures of %d: %+v", len(frames), len(units), made)
			}
			before, after := combs(t, file(t, codec, units)), combs(t, file(t, made, frames))
			if c.combed != (before > 4) || after > 2 {
				t.Errorf("lines differ from their neighbours by %.2f before, by %.2f after", before, after)
			}
		})
	}
}

// combs is how much, on average, a line differs from both of its neighbours where
// those are alike.
func combs(t *testing.T, file []byte) float64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testenv.FFmpeg(t), strings.Fields("-v error -f mp4 -i pipe:0 -pix_fmt gray -f rawvideo pipe:1")...)
	cmd.Stdin = bytes.NewReader(file)
	out, err := cmd.Output()
	const width, height = 320, 180
	if err != nil || len(out) < width*height {
		t.Fatalf("%d bytes were decoded: %v", len(out), err)
	}
	sum, n := 0.0, 0
	for at := width; at+width < len(out); at++ {
		above, here, below := int(out[at-width]), int(out[at]), int(out[at+width])
		if at/width%height == 0 || at/width%height == height-1 || above-below > 8 || below-above > 8 {
			continue
		}
		sum += math.Abs(float64(here - (above+below)/2))
		n++
	}
	return sum / float64(n)
}

// Only where tones are mapped do the bytes depend on the processor.
func TestProfileNamesTheProcessor(t *testing.T) {
	f, other := &FFmpeg{build: "b", cpu: "avx2"}, &FFmpeg{build: "b", cpu: "avx512"}
	sdr, hdr := LookOf(media.Picture{Width: 640, Height: 360}), Look{Colour: media.Colour{Primaries: 9, Transfer: 16, Matrix: 9}}
	if f.buildFor(sdr) != other.buildFor(sdr) || f.buildFor(hdr) == other.buildFor(hdr) {
		t.Errorf("SDR %q and %q, HDR %q and %q", f.buildFor(sdr), other.buildFor(sdr), f.buildFor(hdr), other.buildFor(hdr))
	}
	if cpuFlags() == "" {
		t.Error("this processor has no features")
	}
}
