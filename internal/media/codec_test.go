package media

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"

	"millrace/internal/testenv"
)

// record is an AVCDecoderConfigurationRecord of 320x180.
var record = h264Record

// encoded is a track that ffmpeg encoded.
type encoded struct {
	file []byte // fragmented MP4
	// samples are those of all fragments.
	samples []mp4.FullSample
	entry   mp4.Box
	scale   int64 // timescale
}

// encode has ffmpeg encode a second of a test picture or tone.
func encode(t *testing.T, args string) encoded {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.mp4")
	cmd := exec.CommandContext(t.Context(), testenv.FFmpeg(t), strings.Fields("-nostdin -v error "+args+
		" -movflags +frag_keyframe+empty_moov+default_base_moof -y "+out)...)
	cmd.Env = append(os.Environ(), "SVT_LOG=0")
	cmd.WaitDelay = time.Second
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg %s: %v: %s", args, err, text)
	}
	var e encoded
	var err error
	if e.file, err = os.ReadFile(out); err != nil {
		t.Fatal(err)
	}
	f := parse(t, e.file)
	trex := f.Init.Moov.Mvex.Trex
	for _, s := range f.Segments {
		for _, fragment := range s.Fragments {
			samples, err := fragment.GetFullSamples(trex)
			if err != nil {
				t.Fatal(err)
			}
			e.samples = append(e.samples, samples...)
		}
	}
	e.scale = int64(f.Init.Moov.Trak.Mdia.Mdhd.Timescale)
	e.entry = f.Init.Moov.Trak.Mdia.Minf.Stbl.Stsd.Children[0]
	return e
}

// boxBody returns the body of a box, without its header of 8 bytes.
func boxBody(t *testing.T, b mp4.Box) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := b.Encode(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()[8:]
}

const (
	picture = "-f lavfi -i testsrc2=s=320x180:r=30:d=1 -pix_fmt yuv420p -an "
	tone    = "-f lavfi -i sine=r=48000:d=1 -ac 2 -vn "
)

// opusHead is the identification header of stereo without a mapping table.
var opusHead = append([]byte("OpusHead"), 1, 2, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, 0)

func TestCodecs(t *testing.T) {
	for _, c := range []struct {
		format Format
		args   string
		name   string
		record func(mp4.Box) []byte
	}{
		{H264, picture + "-c:v libx264 -g 15 -bf 2", "avc1.64000d", func(b mp4.Box) []byte {
			return boxBody(t, b.(*mp4.VisualSampleEntryBox).AvcC)
		}},
		{HEVC, picture + "-c:v libx265 -tag:v hvc1 -x265-params log-level=none:keyint=15:min-keyint=15", "hvc1.1.6.L60.90", func(b mp4.Box) []byte {
			return boxBody(t, b.(*mp4.VisualSampleEntryBox).HvcC)
		}},
		{AV1, picture + "-c:v libsvtav1 -g 15 -preset 12", "av01.0.00M.08", func(b mp4.Box) []byte {
			return boxBody(t, b.(*mp4.VisualSampleEntryBox).Av1C)
		}},
		{AAC, tone + "-c:a aac", "mp4a.40.2", func(b mp4.Box) []byte {
			return b.(*mp4.AudioSampleEntryBox).Esds.DecConfigDescriptor.DecSpecificInfo.DecConfig
		}},
		{Opus, tone + "-c:a libopus", "opus", func(mp4.Box) []byte { return opusHead }},
	} {
		t.Run(c.format.String(), func(t *testing.T) {
			t.Parallel()
			e := encode(t, c.args)
			codec, err := ParseCodec(c.format, c.record(e.entry))
			if err != nil {
				t.Fatal(err)
			}
			if codec.Name != c.name {
				t.Errorf("it is named %s, want %s", codec.Name, c.name)
			}
			if codec.Kind() == Video && (codec.Width != 320 || codec.Height != 180) || codec.Kind() == Audio && (codec.Rate != 48000 || codec.Channels != 2) {
				t.Errorf("%+v", codec)
			}
			init, err := codec.Init()
			if err != nil {
				t.Fatal(err)
			}
			again, err := codec.Init()
			if err != nil || again.Hash != init.Hash || len(init.Hash) != 16 {
				t.Errorf("the hashes are %s and %s, %v", init.Hash, again.Hash, err)
			}
			// What is packaged by us is what ffmpeg decodes.
			f := Fragment{Number: 1}
			for i, s := range e.samples {
				random, err := codec.RandomAccess(s.Data)
				if err != nil || random != s.IsSync() {
					t.Errorf("sample %d: random access is %v, want %v, %v", i, random, s.IsSync(), err)
				}
				if codec.Format == Opus && OpusSamples(s.Data) != codec.FrameSamples {
					t.Errorf("packet %d has %d samples", i, OpusSamples(s.Data))
				}
				d := codec.FrameSamples
				if codec.Kind() == Video {
					d = VideoTimescale / 30
				}
				offset := int32(int64(s.CompositionTimeOffset) * VideoTimescale / e.scale)
				f.Samples = append(f.Samples, Sample{Duration: uint32(d), CompositionOffset: offset, Sync: random, Payload: s.Data})
			}
			want, got := decode(t, e.file, "mp4", codec.Kind()), decode(t, f.Append(bytes.Clone(init.Data)), "mp4", codec.Kind())
			if codec.Kind() == Video && !bytes.Equal(got, want) || codec.Kind() == Audio && len(got) < 48000*4 {
				t.Errorf("%d bytes were decoded of what we wrote, %d of ffmpeg's own", len(got), len(want))
			}
		})
	}
}

// A CRA picture with pictures that follow it and refer past it, as libx265
// makes them by default, is a random access point.
func TestOpenGOP(t *testing.T) {
	e := encode(t, picture+"-c:v libx265 -tag:v hvc1 -x265-params log-level=none:keyint=15:min-keyint=15:open-gop=1")
	codec, err := ParseCodec(HEVC, boxBody(t, e.entry.(*mp4.VisualSampleEntryBox).HvcC))
	if err != nil {
		t.Fatal(err)
	}
	points := 0
	for _, s := range e.samples {
		if random, err := codec.RandomAccess(s.Data); err != nil {
			t.Error(err)
		} else if random {
			points++
		}
	}
	if points < 2 {
		t.Errorf("%d random access points", points)
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	shortLengths := bytes.Clone(record)
	shortLengths[4] = 0xfd // NAL units with lengths of 2 bytes
	for _, c := range []struct {
		name   string
		format Format
		record []byte
	}{
		{"empty H.264", H264, nil}, {"H.264 without an SPS", H264, []byte{1, 0x64, 0, 0x0d, 0xff, 0xe0, 0}},
		{"H.264 cut short", H264, record[:20]}, {"H.264 with short lengths", H264, shortLengths},
		{"empty HEVC", HEVC, nil}, {"HEVC without parameter sets", HEVC, append([]byte{1}, make([]byte, 22)...)},
		{"empty AV1", AV1, nil}, {"AV1 without a sequence header", AV1, []byte{0x81, 0, 0, 0}},
		{"SSR", AAC, []byte{0x19, 0x90}}, {"xHE-AAC", AAC, []byte{0xf9, 0x46, 0x40, 0x00}}, {"a program without channels", AAC, []byte{0x11, 0x80, 0x04, 0xc0, 0x00, 0x00, 0x00, 0x00}},
		{"empty AAC", AAC, nil}, {"AAC cut short", AAC, []byte{0x11}},
		{"empty Opus", Opus, nil}, {"Opus with three channels and no mapping", Opus, append([]byte("OpusHead"), 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0)},
		{"VP8", "vp08", []byte{1, 2, 3}},
		{"AAC with more than a record has", AAC, append(bytes.Clone(SilentStereo48k), make([]byte, MaxRecord)...)},
	} {
		if codec, err := ParseCodec(c.format, c.record); err == nil {
			t.Errorf("%s gave %+v", c.name, codec)
		}
	}
}

func TestH264RandomAccess(t *testing.T) {
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
		if idr, err := h264RandomAccess(c.b); idr != c.idr && err == nil || (err != nil) != c.bad {
			t.Errorf("%s: %v, %v", c.name, idr, err)
		}
	}
}

func TestAV1RandomAccess(t *testing.T) {
	sequence := []byte{0x0a, 1, 0}
	for _, c := range []struct {
		name   string
		b      []byte
		random bool
		bad    bool
	}{
		{"sequence header and key frame", append(bytes.Clone(sequence), 0x32, 1, 0x10), true, false},
		{"key frame alone", []byte{0x32, 1, 0x10}, false, false},
		{"key frame that isn't shown", append(bytes.Clone(sequence), 0x32, 1, 0x00), false, false},
		{"sequence header and inter frame", append(bytes.Clone(sequence), 0x32, 1, 0x30), false, false},
		{"empty", nil, false, true},
		{"no size", []byte{0x30, 1}, false, true},
		{"too long", []byte{0x32, 9, 0x10}, false, true},
		{"an extension byte alone", []byte{0x36, 0}, false, true},
	} {
		if random, err := av1RandomAccess(c.b); random != c.random || (err != nil) != c.bad {
			t.Errorf("%s: %v, %v", c.name, random, err)
		}
	}
}

func TestAAC(t *testing.T) {
	for _, c := range []struct {
		name      string
		asc       []byte
		rate      int
		channels  int
		frame     Samples
		universal bool
	}{
		{"48 kHz stereo", SilentStereo48k, 48000, 2, 1024, true},
		{"44.1 kHz mono", []byte{0x12, 0x08}, 44100, 1, 1024, true},
		{"5.1", []byte{0x11, 0xb0}, 48000, 6, 1024, false},
		{"HE-AAC", []byte{0x2b, 0x11, 0x88, 0x00}, 24000, 2, 1024, false},
		{"960 samples a frame", []byte{0x11, 0x94}, 48000, 2, 960, false},
		{"HE-AAC v2", []byte{0xeb, 0x09, 0x88, 0x00}, 24000, 1, 1024, false},
		{"HE-AAC for decoders that know it", []byte{0x13, 0x10, 0x56, 0xe5, 0x98}, 24000, 2, 1024, false},
		{"AAC-LC that says so", []byte{0x11, 0x90, 0x56, 0xe5, 0x00}, 48000, 2, 1024, true},
		{"a rate of its own", []byte{0x17, 0x80, 0x56, 0x22, 0x10}, 44100, 2, 1024, true},
		{"7.1", []byte{0x11, 0xb8}, 48000, 8, 1024, false},
		{"8 kHz", []byte{0x15, 0x88}, 8000, 1, 1024, true},
		{"Main", []byte{0x09, 0x90}, 48000, 2, 1024, false},
		{"LTP", []byte{0x21, 0x90}, 48000, 2, 1024, false},
		{"low delay", []byte{0xb9, 0x90, 0x00}, 48000, 2, 512, false},
		{"a program config element", []byte{0x11, 0x80, 0x04, 0xc4, 0x00, 0x00, 0x20, 0x00, 0x00}, 48000, 2, 1024, false},
	} {
		a, err := ParseCodec(AAC, c.asc)
		if err != nil || a.Rate != c.rate || a.Channels != c.channels || a.FrameSamples != c.frame || a.Universal != c.universal {
			t.Errorf("%s: %+v, %v", c.name, a, err)
		}
		if err == nil && a.Universal != (a.Variety == "" && a.Channels <= 2) {
			t.Errorf("%s is called %q", c.name, a.Variety)
		}
	}
	plain, said := codecOf(t, AAC, SilentStereo48k), codecOf(t, AAC, []byte{0x11, 0x90, 0x56, 0xe5, 0x00})
	if !plain.Equal(said) || plain.Equal(codecOf(t, AAC, []byte{0x11, 0x88})) || plain.Equal(codecOf(t, AAC, []byte{0x11, 0x94})) {
		t.Error("what is plain AAC-LC alike is told wrongly")
	}
}

func codecOf(t *testing.T, f Format, record []byte) *Codec {
	t.Helper()
	c, err := ParseCodec(f, record)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFirstAACElement(t *testing.T) {
	filled := &bitAppender{}
	for _, f := range [][2]int{{elementFill, 3}, {15, 4}, {3, 8}, {0, 8 * 17}, {elementData, 3}, {0, 4}, {1, 1}, {1, 8}} {
		filled.write(f[0], f[1])
	}
	filled.align()
	filled.write(0xff, 8)
	for _, f := range [][2]int{{elementPair, 3}, {0, 4}, {1, 1}, {0, 4}, {49, 6}, {0, 1}} {
		filled.write(f[0], f[1])
	}
	for _, c := range []struct {
		name     string
		payload  []byte
		channels int
		bad      bool
	}{
		{"stereo", silentStereo, 2, false},
		{"mono", silentMono, 1, false},
		{"stereo after a filling and data", filled.b, 2, false},
		{"nothing", nil, 0, true},
		{"the sync word of ADTS", []byte{0xff, 0xf1, 0x4c, 0x80}, 0, true},
		{"a filling past the end", []byte{0xdf, 0xff, 0xff}, 0, true},
		{"data past the end", []byte{0x81, 0xff, 0xff}, 0, true},
		{"low frequencies first", []byte{0x60, 0, 0}, 0, true},
		{"a reserved bit", []byte{0x21, 0x90, 0x04, 0x60}, 0, true},
		{"more bands than there are", []byte{0x21, 0x0f, 0xf4, 0x60}, 0, true},
		{"prediction", []byte{0x21, 0x10, 0x24, 0x60}, 0, true},
		{"the first element alone", []byte{0x21}, 0, true},
	} {
		if e, err := FirstAACElement(c.payload); e.Channels != c.channels && !c.bad || (err != nil) != c.bad {
			t.Errorf("%s: %+v, %v", c.name, e, err)
		}
	}
}

// Prepared silence is decoded without a complaint, to silence.
func TestSilence(t *testing.T) {
	for _, c := range []struct {
		name   string
		format Format
		record []byte
		frame  Samples // 0: the codec's
	}{
		{"stereo", AAC, SilentStereo48k, 0},
		{"mono", AAC, []byte{0x11, 0x88}, 0},
		{"44.1 kHz", AAC, []byte{0x12, 0x10}, 0},
		{"96 kHz", AAC, []byte{0x10, 0x10}, 0},
		{"Opus, 2.5 ms", Opus, opusHead, 120},
		{"Opus, 10 ms", Opus, opusHead, 480},
		{"Opus, 20 ms", Opus, opusHead, 0},
		{"Opus, 40 ms", Opus, opusHead, 1920},
		{"Opus, 60 ms", Opus, opusHead, 2880},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const frames = 20
			codec, err := ParseCodec(c.format, c.record)
			if err != nil {
				t.Fatal(err)
			}
			if c.frame != 0 {
				codec = codec.WithFrame(c.frame)
			}
			init, err := codec.Init()
			if err != nil {
				t.Fatal(err)
			}
			f := Fragment{Number: 1}
			for range frames {
				f.Samples = append(f.Samples, Sample{Duration: uint32(codec.FrameSamples), Sync: true, Payload: codec.Silence()})
			}
			if codec.Format == Opus && OpusSamples(codec.Silence()) != codec.FrameSamples {
				t.Errorf("silence has %d samples, want %d", OpusSamples(codec.Silence()), codec.FrameSamples)
			}
			pcm := decode(t, f.Append(init.Data), "mp4", Audio)
			want := frames * int(codec.FrameSamples) * codec.Channels * 2
			if codec.Format == Opus {
				want -= 312 * codec.Channels * 2 // the pre-skip of the header
			}
			if len(pcm) != want || bytes.ContainsFunc(pcm, func(r rune) bool { return r != 0 }) {
				t.Errorf("%d bytes were decoded, want %d, or it isn't silence", len(pcm), want)
			}
		})
	}
}

// decode has ffmpeg decode a file: sound to 16 bits a sample, pictures to a
// hash of each.
func decode(t *testing.T, file []byte, format string, kind Kind) []byte {
	t.Helper()
	out := "-f s16le pipe:1"
	if kind == Video {
		out = "-f framemd5 pipe:1"
	}
	cmd := exec.CommandContext(t.Context(), testenv.FFmpeg(t), strings.Fields("-v warning -f "+format+" -i pipe:0 "+out)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(file), &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("ffmpeg: %v: %s", err, &stderr)
	}
	if kind == Video { // only the hashes: the two have other timescales
		var hashes []byte
		for _, line := range strings.Split(stdout.String(), "\n") {
			if i := strings.LastIndexByte(line, ','); i >= 0 {
				hashes = append(hashes, line[i:]...)
			}
		}
		return hashes
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

// A grid finds its own places again by their times, at any rate and length.
func TestGrid(t *testing.T) {
	for _, g := range []Grid{{48000, 1024, 0}, {44100, 1024, 777}, {48000, 960, 5}, {24000, 1024, -3}, {48000, 120, 1 << 40}, {96000, 2880, 11}} {
		for k := range Samples(1000) {
			at := g.Origin + k*g.Frame
			tick := at.Ticks(g.Rate)
			if n := g.Nearest(tick); n != at {
				t.Fatalf("%+v: the place nearest to %d is %d, want %d", g, tick, n, at)
			}
			if n := g.Nearest(tick + g.Frame.Ticks(g.Rate)/3); n != at {
				t.Fatalf("%+v: a third of a frame after %d lies nearest to %d", g, at, n)
			}
			if n := g.AtOrAfter(tick); n != at {
				t.Fatalf("%+v: the place at or after %d is %d, want %d", g, tick, n, at)
			}
			if n := g.AtOrAfter(tick + 1); n != at+g.Frame {
				t.Fatalf("%+v: the place after %d is %d", g, at, n)
			}
			if n := g.Count(tick); n != int(k) {
				t.Fatalf("%+v: %d places before number %d", g, n, k)
			}
			if n := g.Count(tick + 1); n != int(k)+1 {
				t.Fatalf("%+v: %d places up to number %d", g, n, k)
			}
		}
		if n := g.Count(g.Origin.Ticks(g.Rate) - 5000); n != 0 {
			t.Errorf("%+v: %d places before its origin", g, n)
		}
	}
}

// FuzzParseH264, and those after it, hold what each format's parser promises.
func FuzzParseH264(f *testing.F) { fuzzRecord(f, H264, record) }
func FuzzParseHEVC(f *testing.F) { fuzzRecord(f, HEVC, hevcRecord) }
func FuzzParseAV1(f *testing.F)  { fuzzRecord(f, AV1, av1Record) }
func FuzzParseAAC(f *testing.F)  { fuzzRecord(f, AAC, SilentStereo48k) }
func FuzzParseOpus(f *testing.F) { fuzzRecord(f, Opus, opusHead) }

func fuzzRecord(f *testing.F, format Format, seed []byte) {
	if _, err := ParseCodec(format, seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCodec(format, b)
		if err != nil {
			return
		}
		picture := c.Width >= 1 && c.Height >= 1 && c.Width <= MaxPictureSide && c.Height <= MaxPictureSide
		sound := c.Rate >= 7350 && c.Rate <= 96000 && c.Channels >= 1 && c.Channels <= 8 && c.FrameSamples > 0 && len(c.Silence()) > 0
		if c.Kind() == Video && !picture || c.Kind() == Audio && !sound || c.Name == "" {
			t.Errorf("%+v", c)
		}
		if _, err := c.Init(); err != nil {
			t.Error(err)
		}
	})
}

func FuzzH264RandomAccess(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0x65})
	f.Add([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = h264RandomAccess(b)
		_, _ = hevcRandomAccess(b)
	})
}

func FuzzAV1RandomAccess(f *testing.F) {
	f.Add([]byte{0x0a, 1, 0, 0x32, 1, 0x10})
	f.Add([]byte{0x12, 0, 0x36, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = av1RandomAccess(b) })
}
