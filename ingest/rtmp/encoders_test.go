package rtmp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace/ingest/front"
	"millrace/internal/flv"
	"millrace/internal/media"
)

// run runs a program, and gives what it wrote to stderr.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) || ctx.Err() != nil {
		t.Fatalf("%s: %v, %v\n%s", name, err, ctx.Err(), &stderr)
	}
	return stderr.String(), err
}

// ffmpeg runs ffmpeg, which must succeed unless failing is true.
func ffmpeg(t *testing.T, failing bool, args ...string) string {
	t.Helper()
	stderr, err := run(t, "ffmpeg", append([]string{"-hide_banner", "-nostdin", "-nostats", "-y"}, args...)...)
	if (err != nil) != failing {
		t.Fatalf("ffmpeg: %v\n%s", err, stderr)
	}
	return stderr
}

// sample makes an FLV file of 3 s of H.264, with B-frames, and AAC.
func sample(t *testing.T) (path string, tags []rtmpMessage) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sample.flv")
	ffmpeg(t, false, "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30", "-f", "lavfi", "-i", "sine=sample_rate=48000", "-t", "3",
		"-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "30", "-b:v", "1M", "-c:a", "aac", "-f", "flv", path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for b = b[13:]; len(b) > 11; {
		m := rtmpMessage{kind: b[0], timestamp: uint24(b[4:]) | uint32(b[7])<<24, payload: b[11 : 11+uint24(b[1:])]}
		b = b[11+len(m.payload)+4:]
		if m.kind != typeDataAMF0 {
			tags = append(tags, m)
		}
	}
	return path, tags
}

// What ffmpeg publishes arrives byte by byte, whatever the timestamps and however it is sent.
func TestRTMPFromFFmpeg(t *testing.T) {
	file, tags := sample(t)
	for _, c := range []struct {
		name   string
		url    string // after the host
		args   []string
		offset uint32
	}{
		{name: "plain", url: "/live/s3cret"},
		{name: "query, slash, name", url: "/live/s3cret?clientConfigId=5", args: []string{"-rtmp_flashver", "FMLE/3.0 (compatible; test)"}},
		{name: "key in the app", url: "/", args: []string{"-rtmp_app", "live/s3cret", "-rtmp_playpath", ""}},
		{name: "app with a query", url: "/", args: []string{"-rtmp_app", "live/?token=1", "-rtmp_playpath", "s3cret"}},
		{name: "past 4.66 hours", url: "/live/s3cret", args: []string{"-output_ts_offset", "20000"}, offset: 20_000_000},
		{name: "across 4.66 hours", url: "/live/s3cret", args: []string{"-output_ts_offset", "16776"}, offset: 16_776_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := serveRTMP(t, &stage{}, Config{}, nil)
			args := append([]string{"-i", file, "-c", "copy"}, c.args...)
			ffmpeg(t, false, append(args, "-f", "flv", "rtmp://"+f.address+c.url)...)
			p := receive(t, f.taken, "a publication")
			if clean := receive(t, p.ended, "the end"); !clean {
				t.Error("the end wasn't clean")
			}
			if p.request.Key != "s3cret" || p.request.Encoder == "" || p.request.Remote == "" {
				t.Errorf("published with %+v", p.request)
			}
			if !slices.Equal(p.rates, []float64{30}) {
				t.Errorf("it claims %v frames a second", p.rates)
			}
			compareTags(t, p, tags, c.offset)
			f.awaitLog(t, "RTMP connection ended") // else stopping is what ends it
			if err := f.stop(); err != nil {
				t.Error(err)
			}
			if log := f.log.String(); strings.Contains(log, "s3cret") || !strings.Contains(log, "reason=unpublished") {
				t.Errorf("the log is %s", log)
			}
			if n := f.metric(t, "millrace_ingest_received_bytes_total", ""); n < 100_000 {
				t.Errorf("%v bytes received", n)
			}
		})
	}
}

// compareTags compares the units of a publisher with the tags of the file that it sent.
func compareTags(t *testing.T, p *performance, tags []rtmpMessage, offset uint32) {
	t.Helper()
	want := &performance{}
	var records [][]byte
	for _, m := range tags {
		at := media.Ticks(m.timestamp+offset) * media.TicksPerMillisecond
		switch m.kind {
		case typeVideo:
			v, err := flv.ParseVideo(m.payload)
			if err != nil {
				t.Fatal(err)
			}
			if v.Kind == flv.Config {
				records = append(records, v.Data)
			}
			if v.Kind == flv.Frame {
				want.units = append(want.units, media.Unit{Track: media.Video, DTS: at, PTS: at + v.Composition, RandomAccess: v.Keyframe, Payload: v.Data})
			}
		case typeAudio:
			a, err := flv.ParseAudio(m.payload)
			if err != nil {
				t.Fatal(err)
			}
			if a.Kind == flv.Config {
				records = append(records, a.Data)
			}
			if a.Kind == flv.Frame {
				want.units = append(want.units, media.Unit{Track: media.Audio, DTS: at, PTS: at, RandomAccess: true, Payload: a.Data})
			}
		}
	}
	if len(p.configs) != 2 || len(records) != 2 || !bytes.Equal(p.configs[0].Record, records[0]) || !bytes.Equal(p.configs[1].Record, records[1]) {
		t.Errorf("the configurations are %v", p.codecs())
	}
	for _, track := range []media.Kind{media.Audio, media.Video} {
		got, want := p.of(track), want.of(track)
		if len(got) != len(want) || len(got) < 90 {
			t.Errorf("%d units of %v, want %d", len(got), track, len(want))
			continue
		}
		for i := range got {
			g, w := &got[i], &want[i]
			if !bytes.Equal(g.Payload, w.Payload) {
				t.Errorf("unit %d of %v has other bytes", i, track)
				break
			}
			// ffmpeg moves both tracks by a few frames.
			if d := (g.DTS - w.DTS).Milliseconds(); d < -100 || d > 100 || g.PTS-g.DTS != w.PTS-w.DTS || g.RandomAccess != w.RandomAccess {
				t.Errorf("unit %d of %v is at %d, %d (random access: %v), want %d, %d (%v)", i, track, g.DTS, g.PTS, g.RandomAccess, w.DTS, w.PTS, w.RandomAccess)
				break
			}
		}
	}
}

// GStreamer's rtmp2sink repeats its metadata, and deletes its stream by name; its rtmpsink is
// librtmp, which OBS has, too.
func TestRTMPFromGStreamer(t *testing.T) {
	for _, sink := range []string{"rtmp2sink", "rtmpsink"} {
		t.Run(sink, func(t *testing.T) {
			f := serveRTMP(t, &stage{}, Config{}, nil)
			stderr, err := run(t, "gst-launch-1.0", "-q",
				"videotestsrc", "num-buffers=90", "!", "video/x-raw,width=320,height=180,framerate=30/1", "!",
				"x264enc", "tune=zerolatency", "key-int-max=30", "!", "h264parse", "!", "mux.",
				"audiotestsrc", "num-buffers=140", "!", "audio/x-raw,rate=48000", "!", "voaacenc", "!", "aacparse", "!", "mux.",
				"flvmux", "name=mux", "streamable=true", "!", sink, "location=rtmp://"+f.address+"/live/s3cret")
			if err != nil {
				t.Fatalf("gst-launch-1.0: %v\n%s", err, stderr)
			}
			p := receive(t, f.taken, "a publication")
			if clean := receive(t, p.ended, "the end"); !clean {
				t.Error("the end wasn't clean")
			}
			if v, a := len(p.of(media.Video)), len(p.of(media.Audio)); v < 90 || a < 100 || len(p.rates) == 0 || len(p.configs) != 2 {
				t.Errorf("%d pictures and %d frames of sound of %v, %v frames a second claimed", v, a, p.codecs(), p.rates)
			}
		})
	}
}

// Whatever ends a publisher from our side, the encoder shows why.
func TestRTMPRefusals(t *testing.T) {
	file, _ := sample(t)
	denied := &front.Refusal{Kind: front.Denied, Reason: front.WrongKey, Text: "This stream key is not known."}
	for _, c := range []struct {
		name   string
		stage  stage
		url    string
		args   []string
		shown  string
		reason string
	}{
		{name: "key", stage: stage{refusal: func(front.Request) error { return denied }}, shown: denied.Text, reason: "wrong_key"},
		{name: "wrapped", stage: stage{refusal: func(front.Request) error { return fmt.Errorf("admit: %w", denied) }}, shown: denied.Text, reason: "wrong_key"},
		{name: "fault of ours", stage: stage{refusal: func(front.Request) error { return errors.New("redis is away") }}, shown: "The server can't take the broadcast just now", reason: "internal_error"},
		{name: "app", url: "/s3cret", shown: "The server's address must end in /live", reason: "unknown_app"},
		{name: "no key", url: "/", args: []string{"-rtmp_app", "live", "-rtmp_playpath", ""}, shown: "The stream key is missing", reason: "no_key"},
		{
			name: "in the middle", reason: "video_codec", shown: "This codec isn't supported.",
			stage: stage{onPicture: func(n int) error {
				if n > 20 {
					return &front.Refusal{Kind: front.Failed, Reason: front.VideoCodec, Text: "This codec isn't supported."}
				}
				return nil
			}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := serveRTMP(t, &c.stage, Config{}, nil)
			if c.url == "" {
				c.url = "/live/s3cret"
			}
			args := append([]string{"-re", "-stream_loop", "-1", "-i", file, "-c", "copy"}, c.args...)
			stderr := ffmpeg(t, true, append(args, "-f", "flv", "rtmp://"+f.address+c.url)...)
			if !strings.Contains(stderr, "Server error: "+c.shown) {
				t.Errorf("ffmpeg doesn't show %q:\n%s", c.shown, stderr)
			}
			if err := f.stop(); err != nil {
				t.Error(err)
			}
			if n := f.metric(t, "millrace_ingest_connections_refused_total", c.reason); n != 1 {
				t.Errorf("%v refused as %s", n, c.reason)
			}
			if log := f.log.String(); strings.Contains(log, "s3cret") || strings.Count(log, "\n") != 1 || !strings.Contains(log, "reason="+c.reason) {
				t.Errorf("the log is %s", log)
			}
			select {
			case p := <-f.taken:
				if clean := receive(t, p.ended, "the end"); clean {
					t.Error("the end was called clean")
				}
			default:
			}
		})
	}
}

// A publisher can be ended from elsewhere, any number of times.
func TestRTMPEndFromOutside(t *testing.T) {
	file, _ := sample(t)
	f := serveRTMP(t, &stage{}, Config{}, nil)
	stderr := make(chan string, 1)
	go func() {
		out, _ := run(t, "ffmpeg", "-nostdin", "-re", "-stream_loop", "-1", "-i", file, "-c", "copy", "-f", "flv", "rtmp://"+f.address+"/live/s3cret")
		stderr <- out
	}()
	p := receive(t, f.taken, "a publication")
	for range 3 {
		go p.request.End(front.Refusal{Kind: front.Denied, Reason: "banned", Text: "Your channel was closed."})
	}
	p.request.End(front.Refusal{Kind: front.Denied, Reason: "banned", Text: "Your channel was closed."})
	if clean := receive(t, p.ended, "the end"); clean {
		t.Error("the end was called clean")
	}
	if out := receive(t, stderr, "ffmpeg's end"); !strings.Contains(out, "Server error: Your channel was closed.") {
		t.Errorf("ffmpeg doesn't show why:\n%s", out)
	}
	if n := f.metric(t, "millrace_ingest_connections_refused_total", "banned"); n > 1 {
		t.Errorf("%v refused", n)
	}
}

// Playing is refused.
func TestRTMPPlay(t *testing.T) {
	f := serveRTMP(t, &stage{}, Config{}, nil)
	stderr := ffmpeg(t, true, "-i", "rtmp://"+f.address+"/live/s3cret", "-f", "null", "-")
	if !strings.Contains(stderr, "Server error: Broadcasts are not served by RTMP") {
		t.Errorf("ffmpeg doesn't show why:\n%s", stderr)
	}
}

// RTMPS is RTMP behind a TLS listener.
func TestRTMPS(t *testing.T) {
	file, tags := sample(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var refuse atomic.Bool
	f := serveRTMP(t, &stage{refusal: func(front.Request) error {
		if refuse.Load() {
			return &front.Refusal{Kind: front.Denied, Reason: front.WrongKey, Text: "This stream key is not known."}
		}
		return nil
	}}, Config{}, tls.NewListener(l, selfSigned(t)))
	ffmpeg(t, false, "-i", file, "-c", "copy", "-f", "flv", "rtmps://"+f.address+"/live/s3cret")
	p := receive(t, f.taken, "a publication")
	receive(t, p.ended, "the end")
	compareTags(t, p, tags, 0)

	refuse.Store(true)
	stderr := ffmpeg(t, true, "-i", file, "-c", "copy", "-f", "flv", "rtmps://"+f.address+"/live/s3cret")
	if !strings.Contains(stderr, "Server error: This stream key is not known.") {
		t.Errorf("ffmpeg doesn't show why:\n%s", stderr)
	}
}

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
