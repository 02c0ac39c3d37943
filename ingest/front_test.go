package ingest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/ingest/front"
	"millrace/internal/media"
	"millrace/internal/media/mediatest"
	"millrace/internal/testenv"
)

const patience = 20 * time.Second // for what must happen

// message is what an encoder sends: a codec, or else a unit.
type message struct {
	codec *media.Codec
	unit  media.Unit
}

// encoder publishes by a front of the test: no protocol is between it and ingest.
type encoder struct {
	t       *testing.T
	told    chan front.Refusal // why it was ended
	mu      sync.Mutex
	pub     front.Publication // nil: its connection is over
	hangsUp sync.WaitGroup
}

// dial asks to publish with a key.
func (s *station) dial(key string) (*encoder, error) {
	s.t.Helper()
	e := &encoder{t: s.t, told: make(chan front.Refusal, 10)}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pub, err := s.service.Publish(ctx, front.Request{
		Key: key, Remote: "192.0.2.1:5", Encoder: "a test's",
		End: func(r front.Refusal) {
			e.told <- r
			e.hangsUp.Go(func() { e.end(false) }) // it doesn't wait, as a front must not
		},
	})
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pub = pub
	s.t.Cleanup(func() {
		e.end(false)
		e.hangsUp.Wait()
	})
	return e, nil
}

// encoder begins to publish, and sends what is sent.
func (s *station) encoder(sent []message) *encoder {
	s.t.Helper()
	e, err := s.dial("s3cret")
	if err != nil {
		s.t.Fatalf("the publisher was refused: %v", err)
	}
	e.media(sent, 0)
	return e
}

// write writes a message, and returns what the front would end its connection with.
func (e *encoder) write(m message) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.pub == nil:
		return nil
	case m.codec != nil:
		return e.pub.Config(m.codec)
	}
	return e.pub.Write(m.unit)
}

// media sends messages with their times moved, by milliseconds.
func (e *encoder) media(messages []message, offset media.Ticks) {
	e.t.Helper()
	for _, m := range messages {
		m.unit.DTS += offset * media.TicksPerMillisecond
		m.unit.PTS += offset * media.TicksPerMillisecond
		if err := e.write(m); err != nil {
			e.t.Fatal(err)
		}
	}
}

// expect waits until the encoder is told that it is ended, with text.
func (e *encoder) expect(text string) {
	e.t.Helper()
	if r := receive(e.t, e.told, "the refusal "+text); !strings.Contains(r.Text, text) {
		e.t.Errorf("the encoder was told %q, want %q", r.Text, text)
	}
}

// unpublish says that the encoder is done.
func (e *encoder) unpublish() { e.end(true) }

// close breaks its connection.
func (e *encoder) close() { e.end(false) }

func (e *encoder) end(clean bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pub != nil {
		e.pub.End(clean)
		e.pub = nil
	}
}

// sample makes an FLV file of 3 s of H.264, with B-frames, and AAC, and gives what
// is in it.
func sample(t *testing.T) (path string, messages []message) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sample.flv")
	whole := path + ".mp4"
	for _, args := range [][]string{
		{"-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30", "-f", "lavfi", "-i", "sine=sample_rate=48000", "-t", "3",
			"-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "30", "-b:v", "1M", "-c:a", "aac",
			"-movflags", "+frag_keyframe+delay_moov+default_base_moof", whole},
		{"-i", whole, "-c", "copy", path},
	} {
		if stderr, err := run(t, testenv.FFmpeg(t), append([]string{"-hide_banner", "-nostdin", "-nostats", "-y"}, args...)...); err != nil {
			t.Fatalf("ffmpeg: %v\n%s", err, stderr)
		}
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	video, audio, err := mediatest.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range slices.Concat(video.Units, audio.Units) {
		messages = append(messages, message{unit: u})
	}
	slices.SortStableFunc(messages, func(a, b message) int { return cmp.Compare(a.unit.DTS, b.unit.DTS) })
	return path, append([]message{{codec: video.Codec}, {codec: audio.Codec}}, messages...)
}

func codec(t *testing.T, f media.Format, record []byte) *media.Codec {
	t.Helper()
	c, err := media.ParseCodec(f, record)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

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

// logBuffer keeps what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// receive gives what comes on c.
func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s didn't come", what)
		panic("unreachable")
	}
}
