package matroska

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"millrace/internal/media"
	"millrace/internal/media/mediatest"
	"millrace/internal/testenv"
)

// FFmpeg decodes the same from a Matroska stream on its standard input as from
// the MP4 file that the access units come from, at times that are exact.
func TestFFmpegReadsEveryCodec(t *testing.T) {
	for _, c := range []struct {
		file  string
		video bool
		probe string
	}{
		{"h264-opus", true, "h264,128,72"}, {"hevc-opus", true, "hevc,128,72"}, {"av1-aac", true, "av1,128,72"},
		{"hevc-opus", false, "opus,48000,1"}, {"av1-aac", false, "aac,48000,2"},
	} {
		track, sound := mediatest.Clip(t, c.file)
		selector, entries := "v", "codec_name,width,height"
		if !c.video {
			track, selector, entries = sound, "a", "codec_name,sample_rate,channels"
		}
		t.Run(string(track.Codec.Format), func(t *testing.T) {
			stream := Header(track.Codec)
			const base = 1 << 33 // 26 hours
			var want []string
			for _, u := range track.Units {
				stream = AppendUnit(stream, base+u.PTS, u.RandomAccess, u.Payload)
				want = append(want, fmt.Sprintf("%d,%d", base+u.PTS, len(u.Payload)))
			}
			var got []string
			for line := range strings.Lines(probe(t, stream, "packet=pts,size:stream="+entries)) {
				line = strings.TrimSpace(line)
				if about, ok := strings.CutPrefix(line, "stream,"); ok {
					if about != c.probe {
						t.Errorf("ffprobe says %s, want %s", about, c.probe)
					}
					continue
				}
				var ns int64
				var size int
				if _, err := fmt.Sscanf(line, "packet,%d,%d", &ns, &size); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				got = append(got, fmt.Sprintf("%d,%d", (ns*9+50000)/100000, size))
			}
			if !slices.Equal(got, want) {
				t.Errorf("packets\n%q, want\n%q", got, want)
			}
			if a, b := decoded(t, selector, "matroska", stream), decoded(t, selector, "mp4", mediatest.Data(t, c.file)); a != b || a == "" {
				t.Errorf("decoded\n%s\nwant\n%s", a, b)
			}
		})
	}
}

// The same for sound that needs no configuration, which MP4 has no sample entry for here, and for
// silence made for it.
func TestFFmpegReadsBareSound(t *testing.T) {
	for name, c := range map[string]struct {
		format  media.Format
		encoder []string // the last is FFmpeg's format of a raw stream
	}{
		"mp3":              {media.MP3, []string{"-c:a", "libmp3lame", "-ar", "44100", "-write_xing", "0", "-id3v2_version", "0", "-f", "mp3"}},
		"mp3 mono 22050":   {media.MP3, []string{"-c:a", "libmp3lame", "-ar", "22050", "-ac", "1", "-write_xing", "0", "-id3v2_version", "0", "-f", "mp3"}},
		"mp3 8000":         {media.MP3, []string{"-c:a", "libmp3lame", "-ar", "8000", "-write_xing", "0", "-id3v2_version", "0", "-f", "mp3"}},
		"A-law":            {media.ALaw, []string{"-ar", "8000", "-ac", "1", "-f", "alaw"}},
		"mu-law in stereo": {media.MuLaw, []string{"-ar", "8000", "-ac", "2", "-f", "mulaw"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"-v", "error", "-f", "lavfi", "-i", "aevalsrc=0.2*sin(2*PI*(300+40*t)*t)|0.1*sin(2*PI*200*t):s=48000:d=1.2"}, c.encoder...)
			raw := []byte(run(t, nil, testenv.FFmpeg(t), append(args, "-")...))
			var units [][]byte
			var record []byte
			channels, format := 1, c.encoder[len(c.encoder)-1:]
			if c.format == media.MP3 {
				frames, err := media.SplitMP3(raw[:min(len(raw), 1<<20)])
				if err != nil {
					t.Fatal(err)
				}
				if record, err = media.MP3Config(frames[0]); err != nil {
					t.Fatal(err)
				}
				units = frames
			} else {
				if c.format == media.MuLaw {
					channels = 2
				}
				record = media.G711Config(c.format, channels)
				units = slices.Collect(slices.Chunk(raw, 160*channels))
				format = slices.Concat(format, []string{"-ar", "8000", "-ac", strconv.Itoa(channels)})
			}
			codec, err := media.ParseCodec(c.format, record)
			if err != nil {
				t.Fatal(err)
			}
			stream, silent := Header(codec), Header(codec)
			for i, u := range units {
				at := (media.Samples(i) * codec.FrameSamples).Ticks(codec.Rate)
				stream = AppendUnit(stream, at, true, u)
				silent = AppendUnit(silent, at, true, codec.Silence())
			}
			pcm := func(in []byte, format ...string) []byte {
				args := slices.Concat([]string{"-v", "error", "-xerror", "-f"}, format, []string{"-i", "pipe:0", "-f", "s16le", "-"})
				return []byte(run(t, in, testenv.FFmpeg(t), args...))
			}
			got, want := pcm(stream, "matroska"), pcm(raw, format...)
			if !bytes.Equal(got, want) || len(got) < 1000 {
				t.Errorf("%d bytes were decoded, want the %d of the raw stream", len(got), len(want))
			}
			quiet := pcm(silent, "matroska")
			for i := 0; i+1 < len(quiet); i += 2 {
				if v := int16(binary.LittleEndian.Uint16(quiet[i:])); v < -8 || v > 8 {
					t.Fatalf("sample %d of silence is %d", i/2, v)
				}
			}
			if len(quiet) < len(got)*9/10 {
				t.Errorf("silence has %d bytes, the sound %d", len(quiet), len(got))
			}
		})
	}
}

func probe(t *testing.T, stream []byte, entries string) string {
	t.Helper()
	ffprobe := filepath.Join(filepath.Dir(testenv.FFmpeg(t)), "ffprobe")
	return run(t, stream, ffprobe, "-v", "error", "-f", "matroska", "-i", "pipe:0", "-show_entries", entries, "-of", "csv")
}

// decoded returns a hash of all that is decoded from a stream.
func decoded(t *testing.T, selector, format string, stream []byte) string {
	t.Helper()
	return run(t, stream, testenv.FFmpeg(t), "-v", "error", "-xerror", "-f", format, "-i", "pipe:0",
		"-map", "0:"+selector, "-fps_mode", "passthrough", "-f", "streamhash", "-hash", "md5", "-")
}

func run(t *testing.T, stdin []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%s: %v\n%s", filepath.Base(name), err, &stderr)
	}
	return string(out)
}

func TestOverhead(t *testing.T) {
	if n := len(AppendUnit(nil, 1, true, make([]byte, 100))); n != 100+Overhead {
		t.Errorf("%d bytes, want %d", n, 100+Overhead)
	}
}

// Nanoseconds give every tick back, at any time.
func TestNanoseconds(t *testing.T) {
	for _, base := range []media.Ticks{0, 1 << 33, 1 << 45} {
		for at := base; at < base+media.VideoTimescale; at += 7 {
			if back := media.Ticks((nanoseconds(at)*9 + 50000) / 100000); back != at {
				t.Fatalf("%d came back as %d", at, back)
			}
		}
	}
}
