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
	"millrace/internal/relay"
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
	for _, u := range merge(video.Units, audio.Units) {
		messages = append(messages, message{unit: u})
	}
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

// A front that knows no more than package front publishes a broadcast in any
// codec, with times of its own making.
func TestFrontPublishes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"h264-opus", "hevc-opus", "av1-aac"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			video, audio := mediatest.Clip(t, name)
			s := newStation(t, Config{})
			e := s.encoder([]message{{codec: video.Codec}, {codec: audio.Codec}})
			const rounds = 12 // 4.8 s
			from := media.Ticks(1<<40 + 7)
			for range rounds {
				for _, u := range merge(video.Units, audio.Units) {
					u.DTS, u.PTS = u.DTS+from, u.PTS+from
					if err := e.write(message{unit: u}); err != nil {
						t.Fatal(err)
					}
				}
				from += video.Length
			}
			if d := e.pub.Pace(); d != 0 {
				t.Errorf("it has to wait for %v", d)
			}
			reader := s.read(s.broadcast())
			e.unpublish()
			var last relay.Mark
			for sequence := range uint64(3) {
				last = reader.expect(relay.Open, sequence)
			}
			pause := reader.mark()
			if pause.Kind != relay.Pause || pause.Discontinuity != last.Discontinuity || !last.Independent() {
				t.Errorf("%+v follows %+v", pause, last)
			}
			if length := (pause.Start - reader.marks()[0].Start).Seconds(); length < 4.7 || length > 4.9 {
				t.Errorf("the media lasts %v s", length)
			}
			reader.compare(video, rounds*video.Length)
			reader.compare(audio, rounds*video.Length)
		})
	}
}

// merge gives units of two tracks in the order of their decode times.
func merge(a, b []media.Unit) []media.Unit {
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, func(a, b media.Unit) int { return cmp.Compare(a.DTS, b.DTS) })
	return all
}

// marks are those that were read.
func (r *relayReader) marks() (all []relay.Mark) {
	for _, e := range r.read {
		if e.Mark != nil {
			all = append(all, *e.Mark)
		}
	}
	return all
}

// compare checks that what was read of a track is what was published again and
// again for a while: the same codec and payloads, pictures at the same distances, sound on its grid.
func (r *relayReader) compare(track *mediatest.Track, length media.Ticks) {
	r.t.Helper()
	kind := track.Codec.Kind()
	n := 0
	var first, last media.Unit
	for _, e := range r.read {
		if c := e.Codec; c != nil && c.Kind() == kind && !c.Equal(track.Codec) {
			r.t.Errorf("the %s is of %+v, want %+v", kind, c, track.Codec)
		}
		if e.Unit == nil || e.Unit.Track != kind {
			continue
		}
		u, want := *e.Unit, track.Units[n%len(track.Units)]
		if n == 0 {
			first = u
		}
		if kind == media.Video && (!bytes.Equal(u.Payload, want.Payload) || u.RandomAccess != want.RandomAccess || u.PTS-u.DTS != want.PTS-want.DTS) {
			r.t.Fatalf("unit %d of the %s isn't what was published", n, kind)
		}
		if kind == media.Audio && n > 0 {
			place := media.Grid{Rate: track.Codec.Rate, Frame: 1}
			if d := place.AtOrAfter(u.DTS) - place.AtOrAfter(last.DTS); d != track.Codec.FrameSamples {
				r.t.Fatalf("frame %d of the sound comes %d samples after the one before it", n, d)
			}
		}
		last = u
		n++
	}
	if got := last.DTS - first.DTS; got < length-media.VideoTimescale/5 || got > length+media.VideoTimescale/5 {
		r.t.Errorf("the %s lasts %v s, want %v", kind, got.Seconds(), length.Seconds())
	}
}
