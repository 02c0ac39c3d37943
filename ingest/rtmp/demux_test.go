package rtmp

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/ingest/front"
	"millrace/internal/flv"
	"millrace/internal/media"
)

// recording reads one of the files that FFmpeg 9 muxed with FourCC tags.
func recording(t testing.TB, name string) (tags []flv.Tag) {
	t.Helper()
	file, err := os.Open("../../e2e/ertmp/testdata/" + name + ".flv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := flv.ReadHeader(file); err != nil {
		t.Fatal(err)
	}
	for {
		tag, err := flv.ReadTag(file)
		switch {
		case err == io.EOF:
			return tags
		case err != nil:
			t.Fatal(err)
		case tag.Type != flv.TagScript:
			tags = append(tags, tag)
		}
	}
}

// pictures and sounds parse the tags of a recording, but for those that no decoder needs.
func pictures(t testing.TB, tags []flv.Tag) (videos []flv.Video) {
	t.Helper()
	for _, tag := range tags {
		if tag.Type != flv.TagVideo {
			continue
		}
		v, err := flv.ParseVideo(tag.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if v.Kind != flv.Nothing {
			videos = append(videos, v)
		}
	}
	return videos
}

func sounds(t testing.TB, tags []flv.Tag) (audios []flv.Audio) {
	t.Helper()
	for _, tag := range tags {
		if tag.Type != flv.TagAudio {
			continue
		}
		a, err := flv.ParseAudio(tag.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if a.Kind != flv.Nothing {
			audios = append(audios, a)
		}
	}
	return audios
}

// demuxTest is a demuxer with a recording publication and what it leaves out.
type demuxTest struct {
	*demuxer
	*performance
	left []string
}

// finish ends the publication.
func (d *demuxTest) finish(t *testing.T) {
	t.Helper()
	if err := d.end(); err != nil {
		t.Fatal(err)
	}
}

func newDemuxTest() *demuxTest {
	d := &demuxTest{performance: &performance{}}
	d.demuxer = &demuxer{pub: d.performance, dropped: func(reason string) { d.left = append(d.left, reason) }}
	return d
}

// What encoders publish with FourCC tags goes through the whole front.
func TestEnhancedRTMP(t *testing.T) {
	for _, c := range []struct {
		name   string
		codecs []string // as they come in the file
	}{
		{"hevc-opus", []string{"hvc1.1.6.L30.90", "opus"}},
		// SVT-AV1 tells another sequence header in its configuration than in its pictures.
		{"av1-aac", []string{"av01.0.00M.08", "av01.0.00M.08", "mp4a.40.2"}},
		{"h264-opus", []string{"avc1.64000a", "opus"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := serveRTMP(t, &stage{}, Config{}, nil)
			e := dialRaw(t, f.address)
			e.publish()
			p := receive(t, f.taken, "a publication")
			tags := recording(t, c.name)
			for _, tag := range tags {
				m := rtmpMessage{kind: tag.Type, stream: 1, timestamp: tag.Timestamp, payload: tag.Payload}
				e.send(appendChunks(nil, tag.Type-4, m, 128)) // on chunk streams 4 and 5
			}
			e.send(command("FCUnpublish", 4.0, nil, "s3cret"), command("deleteStream", 5.0, nil, 1.0))
			receive(t, p.ended, "the end")
			if got := slices.Sorted(slices.Values(p.codecs())); !slices.Equal(got, slices.Sorted(slices.Values(c.codecs))) {
				t.Errorf("the codecs are %q, want %q", got, c.codecs)
			}
			n := 0
			for _, v := range pictures(t, tags) {
				if v.Kind != flv.Frame {
					continue
				}
				u := p.of(media.Video)[n]
				if !bytes.Equal(u.Payload, v.Data) || u.RandomAccess != v.Keyframe || u.PTS-u.DTS != v.Composition {
					t.Errorf("picture %d is %+v, want %+v", n, u, v)
				}
				n++
			}
			if n < 5 || len(p.of(media.Video)) != n || len(p.of(media.Audio)) < 5 {
				t.Errorf("%d pictures, %d frames of sound", len(p.of(media.Video)), len(p.of(media.Audio)))
			}
			if n := f.metric(t, "millrace_ingest_filter_dropped_total", ""); n != 0 {
				t.Errorf("%v messages were left out", n)
			}
		})
	}
}

// A codec that can't be taken is named to the encoder.
func TestRTMPCodecRefusals(t *testing.T) {
	for _, c := range []struct {
		kind         byte
		body         string
		shown, label string
	}{
		{typeVideo, "\x90vp09\x01", "Video in VP9 can't be taken: set the video encoder to H.264", "video_codec"},
		{typeVideo, "\x12\x00", "Video in Sorenson H.263 can't be taken: set the video encoder to H.264", "video_codec"},
		{typeVideo, "\x95av01\x80\x00\x00\x00", "Video in AV1 as in MPEG-2 TS can't be taken", "video_codec"},
		{typeVideo, "\x90hvc1\x01", "The video can't be used: ", "video_config"},
		{typeVideo, "\x17\x00\x00\x00\x00\x01", "The video can't be used: parse H.264 configuration", "video_config"},
	} {
		f := serveRTMP(t, &stage{}, Config{}, nil)
		e := dialRaw(t, f.address)
		e.publish()
		e.send(chunk(0, 6, 0, len(c.body), c.kind, c.body))
		e.expect(typeCommandAMF0, c.shown)
		e.gone()
		if err := f.stop(); err != nil {
			t.Error(err)
		}
		if n := f.metric(t, "millrace_ingest_connections_refused_total", c.label); n != 1 {
			t.Errorf("%q: %v refused as %s", c.body, n, c.label)
		}
	}
}

// HEVC under the number that some encoders give it is the same as by FourCC.
func TestDemuxLegacyHEVC(t *testing.T) {
	d := newDemuxTest()
	videos := pictures(t, recording(t, "hevc-opus"))
	for i, v := range videos {
		if err := d.video(uint32(40*i), flv.AppendVideo(nil, v)); err != nil {
			t.Fatal(err)
		}
	}
	d.finish(t)
	if got := d.codecs(); !slices.Equal(got, []string{"hvc1.1.6.L30.90"}) || len(d.units) < 5 || !d.units[0].RandomAccess {
		t.Errorf("%q, %d units", got, len(d.units))
	}
}

// Of several tracks the first one is taken, whatever the others hold; one with a lower number takes
// its place.
func TestDemuxTracks(t *testing.T) {
	hevc, h264 := pictures(t, recording(t, "hevc-opus")), pictures(t, recording(t, "h264-opus"))
	aac := sounds(t, recording(t, "av1-aac"))
	video := func(d *demuxTest, v flv.Video, track byte) {
		t.Helper()
		v.Track = track
		if err := d.video(0, flv.AppendExVideo(nil, v)); err != nil {
			t.Fatal(err)
		}
	}
	body := func(f func(uint32, []byte) error, b string) {
		t.Helper()
		if err := f(0, []byte(b)); err != nil {
			t.Fatal(err)
		}
	}

	// As OBS sends them: the first in the legacy form, further ones as OneTrack.
	d := newDemuxTest()
	if err := d.video(0, flv.AppendVideo(nil, h264[0])); err != nil {
		t.Fatal(err)
	}
	video(d, hevc[0], 1)
	video(d, h264[1], 0)
	video(d, hevc[1], 1)
	body(d.video, "\x96\x00vp09\x02record")
	if err := d.audio(0, flv.AppendAudio(nil, aac[0])); err != nil {
		t.Fatal(err)
	}
	body(d.audio, "\x95\x00fLaC\x01record")
	body(d.audio, "\x95\x01mp4a\x01frame")
	d.finish(t)
	if got := d.codecs(); !slices.Equal(got, []string{"avc1.64000a", "mp4a.40.2"}) || len(d.units) != 1 || len(d.left) != 5 || d.performance.further != 5 {
		t.Errorf("%q, %d units, left out: %q", got, len(d.units), d.left)
	}

	// All of them numbered, the lowest one last.
	d = newDemuxTest()
	video(d, hevc[1], 2) // before any configuration
	video(d, hevc[0], 2)
	video(d, hevc[1], 2)
	video(d, h264[0], 1)
	video(d, hevc[2], 2)
	video(d, h264[1], 1)
	d.finish(t)
	if got := d.codecs(); !slices.Equal(got, []string{"hvc1.1.6.L30.90", "avc1.64000a"}) || len(d.units) != 2 || !bytes.Equal(d.units[1].Payload, h264[1].Data) {
		t.Errorf("%q, %d units", got, len(d.units))
	}
	if !slices.Equal(d.left, []string{string(front.FaultParameterSets), droppedFurtherTrack}) {
		t.Errorf("left out: %q", d.left)
	}

	// In one message.
	d = newDemuxTest()
	body(d.audio, "\x95\x10mp4a\x01\x00\x00\x02\x12\x10\x00\x00\x00\x02\x11\x90")
	body(d.audio, "\x95\x11mp4a\x01\x00\x00\x03one\x00\x00\x00\x04\x21\x10\x04\x60")
	if len(d.configs) != 1 || d.configs[0].Rate != 48000 || len(d.units) != 1 || string(d.units[0].Payload) != "\x21\x10\x04\x60" || len(d.left) != 2 {
		t.Errorf("%q, %+v, left out: %q", d.codecs(), d.units, d.left)
	}
}

// Opus is configured before its first packet, and then with the number of
// samples that its packets have.
func TestDemuxOpus(t *testing.T) {
	d := newDemuxTest()
	const (
		ms20 = "\xfc\xff\xfe"         // a table of contents for 20 ms, and a frame
		ms10 = "\xf4\xff\xfe"         // 10 ms
		ms40 = "\xfd\xff\xfe\xff\xfe" // twice 20 ms
	)
	for i, body := range []string{
		"\x90Opus", // "default to mono/stereo mode"
		"\x91Opus" + ms10, "\x91Opus" + ms10,
		"\x90Opus", // again
		"\x91Opus" + ms40,
		"\x91Opus\xff\x00", // no frames in it
		"\x91Opus",
		"\x91Opus" + ms20,
	} {
		if err := d.audio(uint32(20*i), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	var samples []media.Samples
	for _, c := range d.configs {
		samples = append(samples, c.FrameSamples)
		if c.Format != media.Opus || c.Rate != 48000 || c.Channels != 2 {
			t.Errorf("%+v", c)
		}
	}
	if want := []media.Samples{960, 480, 1920, 960}; !slices.Equal(samples, want) || len(d.units) != 4 || !d.units[0].RandomAccess {
		t.Errorf("frames of %d samples, want %d; %d units", samples, want, len(d.units))
	}
	if !slices.Equal(d.left, []string{droppedMalformed}) {
		t.Errorf("left out: %q", d.left)
	}
}

// What makes no sense is left out, and all else goes on.
func TestDemuxMalformed(t *testing.T) {
	h264, av1 := pictures(t, recording(t, "h264-opus")), pictures(t, recording(t, "av1-aac"))
	config, frame := h264[0], h264[1]
	far := frame
	far.Composition = maxComposition + media.TicksPerMillisecond
	for _, c := range []struct {
		name string
		body []byte
		left string // why
	}{
		{"frame", flv.AppendExVideo(nil, frame), ""},
		{"command", []byte("\x57\x00"), ""},
		{"end", flv.AppendVideo(nil, flv.Video{Kind: flv.End, Format: media.H264}), ""},
		{"colour", []byte("\x94avc1\x02\x00\x09colorInfo\x05"), ""},
		{"nothing", nil, droppedMalformed},
		{"reserved", []byte("\x9favc1"), droppedMalformed},
		{"half a frame", flv.AppendExVideo(nil, frame)[:40], string(front.FaultLengths)},
		{"composition", flv.AppendExVideo(nil, far), droppedMalformed},
		{"frame of another codec", flv.AppendExVideo(nil, av1[1]), droppedMalformed},
	} {
		d := newDemuxTest()
		for _, body := range [][]byte{flv.AppendExVideo(nil, config), c.body, flv.AppendExVideo(nil, frame)} {
			if err := d.video(0, body); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		d.finish(t)
		if left := strings.Join(d.left, ", "); left != c.left || len(d.units) == 0 || len(d.configs) != 1 {
			t.Errorf("%s: left out %q, want %q; %d units", c.name, d.left, c.left, len(d.units))
		}
	}
}

// A configuration that comes again is passed on once; another one is passed on.
func TestDemuxConfigurations(t *testing.T) {
	d := newDemuxTest()
	hevc, h264 := pictures(t, recording(t, "hevc-opus"))[0], pictures(t, recording(t, "h264-opus"))[0]
	for _, v := range []flv.Video{h264, h264, hevc, hevc, h264} {
		if err := d.video(0, flv.AppendExVideo(nil, v)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"avc1.64000a", "hvc1.1.6.L30.90", "avc1.64000a"}; !slices.Equal(d.codecs(), want) {
		t.Errorf("got %q, want %q", d.codecs(), want)
	}
}

// The delimiter that begins temporal units of AV1 has no place in samples.
func TestDemuxTemporalDelimiter(t *testing.T) {
	d := newDemuxTest()
	for i, v := range pictures(t, recording(t, "av1-aac"))[:3] {
		if v.Kind == flv.Frame {
			v.Data = append([]byte{0x12, 0}, v.Data...)
		}
		if err := d.video(uint32(i), flv.AppendExVideo(nil, v)); err != nil {
			t.Fatal(err)
		}
	}
	d.finish(t)
	if len(d.units) != 2 || bytes.HasPrefix(d.units[0].Payload, []byte{0x12, 0}) || !d.units[0].RandomAccess || d.units[1].RandomAccess {
		t.Errorf("%+v", d.units)
	}
}

// What the publication says of a configuration or a unit goes to the encoder.
func TestDemuxErrors(t *testing.T) {
	d := newDemuxTest()
	refusal := &front.Refusal{Reason: front.Breaks}
	d.onPicture = func(int) error { return refusal }
	h264 := pictures(t, recording(t, "h264-opus"))
	if err := d.video(0, flv.AppendVideo(nil, h264[0])); err != nil {
		t.Fatal(err)
	}
	err := d.video(0, flv.AppendVideo(nil, h264[1]))
	for i := 1; err == nil && i < 20; i++ { // the first ones are held back
		err = d.video(uint32(33*i), flv.AppendVideo(nil, h264[2]))
	}
	if !errors.Is(err, refusal) {
		t.Errorf("gave %v", err)
	}
}

func TestClock(t *testing.T) {
	const (
		ms = media.TicksPerMillisecond
		v  = media.Video
		a  = media.Audio
	)
	var c clock
	for i, s := range []struct {
		kind media.Kind
		raw  uint32
		ns   int
		want media.Ticks
	}{
		{v, math.MaxUint32 - 39, 0, (math.MaxUint32 - 39) * ms},
		{a, 5, 0, (math.MaxUint32 + 6) * ms}, // the first one of its track, past the wrap
		{v, 1, 0, (math.MaxUint32 + 2) * ms},
		{a, math.MaxUint32, 0, math.MaxUint32 * ms}, // and back
		{v, 41, 999_999, (math.MaxUint32+42)*ms + 89},
		{v, 41, 11_112, (math.MaxUint32+42)*ms + 1},
		{v, 1 << 31, 0, (math.MaxUint32 + 1 + 1<<31) * ms},
		{v, 0, 0, (math.MaxUint32 + 1) * ms}, // half way round: back is as short
	} {
		if got := c.at(s.kind, s.raw, time.Duration(s.ns)); got != s.want {
			t.Errorf("step %d: %d at %v, want %v", i, s.raw, got, s.want)
		}
	}
}

// FuzzDemux gives a publication any bodies at any times. Whatever they are, the units are what the
// codecs take, in formats that were configured.
func FuzzDemux(f *testing.F) {
	for _, name := range []string{"hevc-opus", "av1-aac", "h264-opus"} {
		var b []byte
		for _, tag := range recording(f, name) {
			b = flv.AppendTag(b, tag)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDemuxTest()
		for r := bytes.NewReader(b); ; {
			tag, err := flv.ReadTag(r)
			if err != nil {
				break
			}
			take := d.audio
			if tag.Type == flv.TagVideo {
				take = d.video
			}
			if err := take(tag.Timestamp, tag.Payload); err != nil {
				if refusal := (*front.Refusal)(nil); !errors.As(err, &refusal) || refusal.Text == "" {
					t.Fatal(err)
				}
			}
		}
		_ = d.end()
		for _, u := range d.units {
			if !slices.ContainsFunc(d.configs, func(c *media.Codec) bool {
				ok, err := c.RandomAccess(u.Payload)
				return c.Kind() == u.Track && err == nil && ok == u.RandomAccess
			}) || u.PTS-u.DTS > maxComposition || u.PTS-u.DTS < -maxComposition {
				t.Fatalf("%+v was written, configured are %q", u, d.codecs())
			}
		}
	})
}

// Sound that can't be taken is left out, the pictures go on, and the streamer is told why.
func TestDemuxLeavesSoundOut(t *testing.T) {
	video := pictures(t, recording(t, "h264-opus"))
	for _, c := range []struct{ body, told string }{
		{"\x5f\x00", "Audio in Nellymoser can't be taken: set the audio encoder to AAC"},
		{"\x90fLaC", "Audio in FLAC can't be taken: set the audio encoder to AAC"},
		{"\x90Opusnothing", "The audio can't be used: "},
		{"\xaf\x00\x19\x90", "The audio can't be used: parse AAC configuration: AAC SSR can't be decoded"},
	} {
		d := newDemuxTest()
		for i, v := range video {
			sound := []byte(c.body)
			if i > 0 && c.body[0] == 0xaf {
				sound = []byte("\xaf\x01\x21\x10")
			}
			if err := d.audio(0, sound); err != nil {
				t.Fatalf("%q: %v", c.body, err)
			}
			if err := d.video(0, flv.AppendExVideo(nil, v)); err != nil {
				t.Fatal(err)
			}
		}
		if len(d.units) == 0 || len(d.without) == 0 || !strings.HasPrefix(d.without[0], c.told) {
			t.Errorf("%q: %d units, told %q", c.body, len(d.units), d.without)
		}
	}
}

// AAC with headers of ADTS comes out without, in access units with times of their own.
func TestDemuxADTS(t *testing.T) {
	const frame = "\xff\xf1\x4c\x80\x01\x7f\xfc\x21\x10\x04\x60" // 48 kHz, stereo, 4 bytes
	d := newDemuxTest()
	for i, body := range []string{"\xaf\x01" + frame + frame + frame, "\xaf\x01" + frame} {
		if err := d.audio(uint32(1000+64*i), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []front.Fault{front.FaultADTS, front.FaultADTS}; !slices.Equal(d.faults, want) {
		t.Errorf("the faults are %q, want %q", d.faults, want)
	}
	if len(d.configs) != 1 || !d.configs[0].Equal(media.StereoAAC()) {
		t.Errorf("the configurations are %+v", d.configs)
	}
	var at []int64
	for _, u := range d.units {
		if at = append(at, (u.DTS - d.units[0].DTS).Milliseconds()); string(u.Payload) != "\x21\x10\x04\x60" {
			t.Errorf("a unit is % x", u.Payload)
		}
	}
	if want := []int64{0, 21, 42, 64}; !slices.Equal(at, want) {
		t.Errorf("the times are %v, want %v", at, want)
	}
}
