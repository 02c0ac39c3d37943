package matroska

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

	"github.com/Eyevinn/mp4ff/mp4"

	"millrace/internal/media"
	"millrace/internal/testenv"
)

// read reads a track of a fragmented MP4 file that ffmpeg made.
func read(t *testing.T, path string, video bool) (*media.Codec, []mp4.FullSample, media.Ticks) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := mp4.DecodeFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, trak := range f.Init.Moov.Traks {
		if (trak.Mdia.Hdlr.HandlerType == "vide") != video {
			continue
		}
		trex, _ := f.Init.Moov.Mvex.GetTrex(trak.Tkhd.TrackID)
		var list []mp4.FullSample
		for _, s := range f.Segments {
			for _, fragment := range s.Fragments {
				samples, err := fragment.GetFullSamples(trex)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, samples...)
			}
		}
		return describe(t, trak.Mdia.Minf.Stbl.Stsd.Children[0]), list, media.VideoTimescale / media.Ticks(trak.Mdia.Mdhd.Timescale)
	}
	t.Fatalf("%s has no such track", path)
	return nil, nil, 0
}

// describe reads the codec of a sample entry.
func describe(t *testing.T, entry mp4.Box) *media.Codec {
	t.Helper()
	var record []byte
	box := func(b mp4.Box) {
		var w bytes.Buffer
		if err := b.Encode(&w); err != nil {
			t.Fatal(err)
		}
		record = w.Bytes()[8:]
	}
	switch e := entry.(type) {
	case *mp4.AudioSampleEntryBox:
		if d := e.Dops; d != nil {
			record = binary.LittleEndian.AppendUint16(append([]byte("OpusHead\x01"), d.OutputChannelCount), d.PreSkip)
			record = append(binary.LittleEndian.AppendUint32(record, d.InputSampleRate), 0, 0, 0)
		} else {
			record = e.Esds.DecConfigDescriptor.DecSpecificInfo.DecConfig
		}
	case *mp4.VisualSampleEntryBox:
		switch {
		case e.AvcC != nil:
			box(e.AvcC)
		case e.HvcC != nil:
			box(e.HvcC)
		default:
			box(e.Av1C)
		}
	}
	c, err := media.ParseCodec(media.Format(entry.Type()), record)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

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
		path := filepath.Join("testdata", c.file+".mp4")
		codec, samples, scale := read(t, path, c.video)
		t.Run(string(codec.Format), func(t *testing.T) {
			stream := Header(codec)
			const base = 1 << 33 // 26 hours
			var want []string
			for _, s := range samples {
				at := base + media.Ticks(int64(s.DecodeTime)+int64(s.CompositionTimeOffset))
				if !c.video {
					at = base + media.Ticks(s.DecodeTime)*media.VideoTimescale/48000
				} else if scale != 1 {
					t.Fatal("the file's timescale isn't 90000")
				}
				stream = AppendUnit(stream, at, !mp4.DecodeSampleFlags(s.Flags).SampleIsNonSync, s.Data)
				want = append(want, fmt.Sprintf("%d,%d", at, len(s.Data)))
			}
			selector, entries := "v", "codec_name,width,height"
			if !c.video {
				selector, entries = "a", "codec_name,sample_rate,channels"
			}
			if got := strings.TrimSpace(probe(t, stream, "stream="+entries)); got != c.probe {
				t.Errorf("ffprobe says %s, want %s", got, c.probe)
			}
			var got []string
			for line := range strings.Lines(probe(t, stream, "packet=pts,size")) {
				var ns int64
				var size int
				if _, err := fmt.Sscanf(line, "%d,%d", &ns, &size); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				got = append(got, fmt.Sprintf("%d,%d", (ns*9+50000)/100000, size))
			}
			if !slices.Equal(got, want) {
				t.Errorf("packets\n%q, want\n%q", got, want)
			}
			if a, b := decoded(t, selector, "pipe:0", stream), decoded(t, selector, path, nil); a != b || a == "" {
				t.Errorf("decoded\n%s\nwant\n%s", a, b)
			}
		})
	}
}

func probe(t *testing.T, stream []byte, entries string) string {
	t.Helper()
	ffprobe := filepath.Join(filepath.Dir(testenv.FFmpeg(t)), "ffprobe")
	return run(t, stream, ffprobe, "-v", "error", "-f", "matroska", "-i", "pipe:0", "-show_entries", entries, "-of", "csv=p=0")
}

// decoded returns the hashes of what is decoded from an input.
func decoded(t *testing.T, selector, input string, stream []byte) string {
	t.Helper()
	args := []string{"-v", "error", "-xerror"}
	if stream != nil {
		args = append(args, "-f", "matroska")
	}
	text := run(t, stream, testenv.FFmpeg(t), append(args, "-i", input, "-map", "0:"+selector, "-fps_mode", "passthrough", "-f", "streamhash", "-hash", "md5", "-")...)
	return strings.TrimSpace(text)
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
