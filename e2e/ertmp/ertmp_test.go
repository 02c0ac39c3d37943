package ertmp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/internal/media/mediatest"
	"millrace/internal/testenv"
)

// message is what a sink got.
type message struct {
	video     bool
	timestamp uint32
	body      []byte
}

// file is a sink that keeps all.
type file []message

func (f *file) Video(timestamp uint32, body []byte) error {
	*f = append(*f, message{true, timestamp, body})
	return nil
}

func (f *file) Audio(timestamp uint32, body []byte) error {
	*f = append(*f, message{false, timestamp, body})
	return nil
}

func (f *file) Flush() error { return nil }

// flv returns an FLV file of the messages.
func (f *file) flv() []byte {
	b := []byte{'F', 'L', 'V', 1, 5, 0, 0, 0, 9, 0, 0, 0, 0}
	for _, m := range *f {
		kind := byte(8)
		if m.video {
			kind = 9
		}
		n, t := len(m.body), m.timestamp
		b = append(b, kind, byte(n>>16), byte(n>>8), byte(n), byte(t>>16), byte(t>>8), byte(t), byte(t>>24), 0, 0, 0)
		b = binary.BigEndian.AppendUint32(append(b, m.body...), uint32(11+n))
	}
	return b
}

// messages reads the tags of an FLV file.
func messages(t *testing.T, path string) (list file) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for b = b[13:]; len(b) >= 15; {
		n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		m := message{b[0] == 9, uint32(b[7])<<24 | uint32(b[4])<<16 | uint32(b[5])<<8 | uint32(b[6]), b[11 : 11+n]}
		list = append(list, m)
		b = b[11+n+4:]
	}
	return list
}

func (f file) of(video bool) (list file) {
	for _, m := range f {
		if m.video == video {
			list = append(list, m)
		}
	}
	return list
}

func publish(t *testing.T, clip string, o Options) (f file) {
	t.Helper()
	o.Fast = true
	if err := New(mediatest.Clip(t, clip)).Publish(t.Context(), &f, o); err != nil {
		t.Fatal(err)
	}
	return f
}

// The tags are those that FFmpeg 9.0.2 made of the same clips (testdata/*.flv, by
// ffmpeg -i X.mp4 -c copy -flvflags no_metadata+no_duration_filesize X.flv). It
// puts H.264 and AAC into legacy tags, begins sound's priming at 0, and writes
// hvcC's array_completeness as 0: so it is in hevc-opus.mp4.
func TestTagsAsFFmpeg9(t *testing.T) {
	for clip, form := range map[string]Form{
		"hevc-opus": {Metadata: true},
		"av1-aac":   {Metadata: true, LegacyAudio: true},
		"h264-opus": {Metadata: true, LegacyVideo: true},
	} {
		t.Run(clip, func(t *testing.T) {
			got, want := publish(t, clip, Options{Form: form, Length: time.Second / 2}), messages(t, filepath.Join("testdata", clip+".flv"))
			for _, video := range []bool{true, false} {
				got, want := got.of(video), want.of(video)
				if len(want) < 12 {
					t.Fatalf("video %t: %d messages", video, len(want))
				}
				if form.LegacyVideo && video {
					want = want[:len(want)-1] // the end of the sequence
				}
				for i, m := range want {
					if !bytes.Equal(got[i].body, m.body) {
						t.Fatalf("video %t, message %d:\n got %.120x\nwant %.120x", video, i, got[i].body, m.body)
					}
					// All three have a picture in message 2.
					if got, want := got[i].timestamp-got[2].timestamp, m.timestamp-want[2].timestamp; video && i > 2 && got != want {
						t.Errorf("message %d comes %d ms after the one that is compared to, want %d", i, got, want)
					}
				}
			}
		})
	}
}

// What is published in the legacy form FFmpeg reads as what the file says.
func TestLegacyAsFFmpegReadsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "legacy.flv")
	got := publish(t, "h264-opus", Options{Form: Form{LegacyVideo: true}})
	video := got.of(true)
	if err := os.WriteFile(path, video.flv(), 0o600); err != nil {
		t.Fatal(err)
	}
	hashes := func(path string) []string {
		out, err := exec.CommandContext(t.Context(), testenv.FFmpeg(t), "-v", "error", "-i", path, "-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-").Output()
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for line := range strings.Lines(string(out)) {
			if f := strings.Split(line, ","); len(f) == 6 && !strings.HasPrefix(line, "#") {
				list = append(list, f[5])
			}
		}
		return list
	}
	original := filepath.Join(t.TempDir(), "original.mp4")
	if err := os.WriteFile(original, mediatest.Data(t, "h264-opus"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := hashes(path), hashes(original)
	if len(a) != 12 || !slices.Equal(a, b) {
		t.Errorf("decoded pictures %q, want %q", a, b)
	}
}

// How the forms begin, byte by byte.
func TestForms(t *testing.T) {
	const avc1, opus = "61766331", "4f707573"
	long := "ff012b" + strings.Repeat("00", 300) + "d7" // unknown, 300 bytes
	noise := "01000010" + strings.Repeat("ff", 16)      // track 1
	for name, c := range map[string]struct {
		form               Form
		config, key, inter string // of video; inter is the second picture
		sound              string
	}{
		"plain":        {Form{}, "90" + avc1, "91" + avc1 + "000043", "a1" + avc1 + "0000a7", "91" + opus},
		"legacy":       {Form{LegacyVideo: true}, "1700000000", "1701000043", "27010000a7", "91" + opus},
		"one track":    {Form{Tracks: OneTrack}, "9600" + avc1 + "00", "9601" + avc1 + "00000043", "a601" + avc1 + "000000a7", "9501" + opus + "00"},
		"many tracks":  {Form{Tracks: ManyTracks}, "9610" + avc1 + noise + "000000", "9611" + avc1 + noise + "0000056c000043", "a611" + avc1 + noise + "000000f70000a7", "9511" + opus + noise + "000000"},
		"many codecs":  {Form{Tracks: ManyTracksManyCodecs}, "962076703039" + noise + avc1 + "000000", "962176703039" + noise + avc1 + "0000056c000043", "a62176703039" + noise + avc1 + "000000f70000a7", "952176703039" + noise + opus + "000000"},
		"modex":        {Form{ModEx: true}, "90" + avc1, "97" + long + "020a2c2b01" + avc1 + "000042", "a702" + "000000" + "01" + avc1 + "0000a7", "97"},
		"modex, track": {Form{ModEx: true, Tracks: OneTrack}, "9600" + avc1, "97" + long + "020a2c2b0601" + avc1 + "00" + "000042", "a702" + "000000" + "0601" + avc1 + "00" + "0000a7", "97"},
	} {
		t.Run(name, func(t *testing.T) {
			list := publish(t, "h264-opus", Options{Form: c.form})
			video, sound := list.of(true), list.of(false)
			for _, x := range []struct {
				what, want string
				body       []byte
			}{
				{"configuration", c.config, video[0].body}, {"keyframe", c.key, video[1].body},
				{"second picture", c.inter, video[2].body}, {"sound", c.sound, sound[1].body},
			} {
				if got := hex.EncodeToString(x.body); !strings.HasPrefix(got, x.want) {
					t.Errorf("%s: %.*s..., want %s", x.what, len(x.want), got, x.want)
				}
			}
		})
	}
}

// A clip that is shorter than what is published begins again without a hole, each
// track by itself.
func TestRounds(t *testing.T) {
	list := publish(t, "hevc-opus", Options{Length: 2 * time.Second, Start: time.Hour})
	for _, video := range []bool{true, false} {
		var times []string
		step, last := uint32(20), uint32(3600067) // sound waits for the first picture
		of := list.of(video)
		if video {
			step, last = 33, 3600000
		}
		for _, m := range of[2 : len(of)-1] {
			if d := m.timestamp - last; d < step || d > step+1 {
				times = append(times, fmt.Sprint(last, " ", m.timestamp))
			}
			last = m.timestamp
		}
		if len(times) > 0 || last < 3601960 {
			t.Errorf("video %t: ends at %d, steps other than %d: %q", video, last, step, times)
		}
	}
}
