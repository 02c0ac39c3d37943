package media

import (
	"bytes"
	"os/exec"
	"testing"

	"millrace/internal/testenv"
)

func TestParseAVCConfig(t *testing.T) {
	c, err := ParseAVCConfig(record)
	if err != nil || c.Width != 320 || c.Height != 180 || c.Codec != "avc1.64000d" {
		t.Errorf("%+v, %v", c, err)
	}
	shortLengths := bytes.Clone(record)
	shortLengths[4] = 0xfd // NAL units with lengths of 2 bytes
	for name, b := range map[string][]byte{
		"empty": nil, "no SPS": {1, 0x64, 0, 0x0d, 0xff, 0xe0, 0}, "cut short": record[:20], "short lengths": shortLengths,
	} {
		if c, err := ParseAVCConfig(b); err == nil {
			t.Errorf("%s gave %+v", name, c)
		}
	}
}

func TestScanAVC(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		idr  bool
		bad  bool
	}{
		{"IDR", []byte{0, 0, 0, 1, 0x65}, true, false},
		{"SEI, then IDR", []byte{0, 0, 0, 2, 6, 0, 0, 0, 0, 1, 0x25}, true, false},
		{"not IDR", []byte{0, 0, 0, 1, 0x41}, false, false},
		{"an empty NAL unit", []byte{0, 0, 0, 0, 0, 0, 0, 1, 5}, true, false},
		{"empty", nil, false, true},
		{"half a length", []byte{0, 0, 0}, false, true},
		{"too long", []byte{0, 0, 0, 2, 5}, false, true},
		{"far too long", []byte{0xff, 0xff, 0xff, 0xff, 5}, false, true},
	} {
		if idr, err := ScanAVC(c.b); idr != c.idr && err == nil || (err != nil) != c.bad {
			t.Errorf("%s: %v, %v", c.name, idr, err)
		}
	}
}

func TestParseAACConfig(t *testing.T) {
	for _, c := range []struct {
		name     string
		asc      []byte
		rate     int
		channels int
		plain    bool
	}{
		{"48 kHz stereo", SilentStereo48k, 48000, 2, true},
		{"44.1 kHz mono", []byte{0x12, 0x08}, 44100, 1, true},
		{"5.1", []byte{0x11, 0xb0}, 48000, 6, false},
		{"HE-AAC", []byte{0x2b, 0x11, 0x88, 0x00}, 24000, 2, false},
	} {
		a, err := ParseAACConfig(c.asc)
		if err != nil || a.Rate != c.rate || a.Channels != c.channels || a.Plain != c.plain {
			t.Errorf("%s: %+v, %v", c.name, a, err)
		}
	}
	for name, asc := range map[string][]byte{"empty": nil, "cut short": {0x11}, "960 samples a frame": {0x11, 0x94}} {
		if a, err := ParseAACConfig(asc); err == nil {
			t.Errorf("%s gave %+v", name, a)
		}
	}
}

// Prepared silence is decoded without a complaint, to silence.
func TestSilentAAC(t *testing.T) {
	for _, c := range []struct {
		name     string
		asc      []byte
		channels int
	}{
		{"stereo", SilentStereo48k, 2},
		{"mono", []byte{0x11, 0x88}, 1},
		{"44.1 kHz", []byte{0x12, 0x10}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			const frames = 20
			config, err := ParseAACConfig(c.asc)
			if err != nil {
				t.Fatal(err)
			}
			file := AppendAudioTag(FLVHeader(true, false), 0, true, c.asc)
			for i := range frames {
				at := Samples(i * AACFrameSamples).Ticks(config.Rate)
				file = AppendAudioTag(file, uint32(at.Milliseconds()), false, SilentAAC(c.channels))
			}
			pcm := decode(t, file, "flv")
			if len(pcm) != frames*AACFrameSamples*c.channels*2 || bytes.ContainsFunc(pcm, func(r rune) bool { return r != 0 }) {
				t.Errorf("%d bytes were decoded, or it isn't silence", len(pcm))
			}
		})
	}
}

// decode has ffmpeg decode a file's sound to 16 bits a sample.
func decode(t *testing.T, file []byte, format string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testenv.FFmpeg(t), "-v", "warning", "-f", format, "-i", "pipe:0", "-f", "s16le", "pipe:1")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(file), &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("ffmpeg: %v: %s", err, &stderr)
	}
	return stdout.Bytes()
}

func TestTimes(t *testing.T) {
	for _, rate := range []int{8000, 44100, 48000} {
		for _, at := range []Ticks{-90_001, -1, 0, 1, 89_999, 90_000, 30 * 3600 * VideoTimescale} {
			if s := SamplesOf(at, rate); s.Ticks(rate) > at || (s+1).Ticks(rate) < at {
				t.Errorf("%d ticks are %d samples at %d Hz", at, s, rate)
			}
			if back := TicksOf(at.Duration()); back != at && back != at-1 && back != at+1 {
				t.Errorf("%d ticks became %d", at, back)
			}
		}
	}
}

func FuzzParseAVCConfig(f *testing.F) {
	f.Add(record)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseAVCConfig(b)
		if err != nil {
			return
		}
		if c.Width < 1 || c.Height < 1 || c.Width > MaxPictureSide || c.Height > MaxPictureSide || len(c.Codec) != 11 {
			t.Errorf("%+v", c)
		}
		if _, err := VideoInit(c); err != nil {
			t.Error(err)
		}
	})
}

func FuzzScanAVC(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0x65})
	f.Add([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ScanAVC(b) })
}

func FuzzParseAACConfig(f *testing.F) {
	f.Add(SilentStereo48k)
	f.Add([]byte{0x2b, 0x11, 0x88, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseAACConfig(b)
		if err != nil {
			return
		}
		if c.Rate < 7350 || c.Rate > 96000 || c.Channels < 1 || c.Channels > 8 || c.Plain && c.Channels > 2 {
			t.Errorf("%+v", c)
		}
		if _, err := AudioInit(c); err != nil {
			t.Error(err)
		}
	})
}
