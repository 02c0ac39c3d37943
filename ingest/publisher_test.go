package ingest

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/ingest/front"
	"millrace/ingest/timeline"
	"millrace/internal/credentials"
	"millrace/internal/lease"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/internal/testenv"
)

// testRecord is an AVCDecoderConfigurationRecord of 320x180.
var testRecord = []byte{
	0x01, 0x64, 0x00, 0x0d, 0xff, 0xe1, 0x00, 0x18, 0x67, 0x64, 0x00, 0x0d, 0xac, 0xb4, 0x0a,
	0x0c, 0xfc, 0xf8, 0x08, 0x80, 0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x1e, 0x07, 0x8a,
	0x15, 0x50, 0x01, 0x00, 0x04, 0x68, 0xef, 0x0f, 0xcb, 0xfd, 0xf8, 0xf8, 0x00,
}

// h264 is the codec of testRecord.
func h264(t *testing.T) *media.Codec {
	t.Helper()
	return codec(t, media.H264, testRecord)
}

// testBroadcast is a broadcast that nobody runs: its lease and its jobs go nowhere.
func testBroadcast(t *testing.T) (*broadcast, *logBuffer) {
	t.Helper()
	logged := &logBuffer{}
	s := &Service{
		cfg:     Config{Log: slog.New(slog.NewTextHandler(logged, nil)), Grace: time.Minute, Redundancy: 1, MaxAhead: 15 * time.Second, Peers: testenv.Peers(t, "http://ingest")},
		metrics: newMetrics(prometheus.NewRegistry()),
	}
	return newBroadcast(s, credentials.Channel{Name: "demo"}, lease.Record{Broadcast: "b", Epoch: 7, Started: time.Now()}, nil), logged
}

// camera is a publisher of a broadcast.
type camera struct {
	*publisher
	t      *testing.T
	frames int
	closed []front.Refusal
}

func newCamera(t *testing.T, b *broadcast) *camera {
	t.Helper()
	c := &camera{t: t}
	p, err := b.attach(front.Request{End: func(r front.Refusal) { c.closed = append(c.closed, r) }}, credentials.Channel{}, time.Now(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.publisher = p
	c.config(h264(t))
	c.config(media.StereoAAC())
	return c
}

func (c *camera) config(codec *media.Codec) {
	c.t.Helper()
	if err := c.Config(codec); err != nil {
		c.t.Fatal(err)
	}
}

func (c *camera) send(u media.Unit) {
	c.t.Helper()
	if err := c.Write(u); err != nil {
		c.t.Fatal(err)
	}
}

func (c *camera) at() media.Ticks { return media.Ticks(c.frames) * 40 * media.TicksPerMillisecond }

// picture is the next one.
func (c *camera) picture(keyframe bool) media.Unit {
	nalu := byte(1)
	if keyframe {
		nalu = 5
	}
	return media.Unit{Track: media.Video, DTS: c.at(), PTS: c.at(), RandomAccess: keyframe, Payload: []byte{0, 0, 0, 1, nalu}}
}

// sound is that of the next picture.
func (c *camera) sound() media.Unit {
	return media.Unit{Track: media.Audio, DTS: c.at(), PTS: c.at(), RandomAccess: true, Payload: []byte{0x21}}
}

// film sends n frames of 25 a second, each with sound, in the time that takes.
func (c *camera) film(n int, keyframe func(i int) bool) {
	c.t.Helper()
	for i := range n {
		c.send(c.picture(keyframe(i)))
		c.send(c.sound())
		c.frames++
		time.Sleep(40 * time.Millisecond) // in a bubble
		c.broadcast.step(time.Now())
	}
}

func everySecond(i int) bool { return i%25 == 0 }

func never(int) bool { return false }

// Who sends faster than real time is told, and waits.
func TestPublisherAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, logged := testBroadcast(t)
		c := newCamera(t, b)
		c.film(100, everySecond)
		if d := c.Pace(); d != 0 {
			t.Errorf("in real time it waits %s", d)
		}
		began := time.Now()
		for i := range 25 * 60 { // a minute at once, but for the waits
			c.send(c.picture(everySecond(i)))
			c.frames++
			time.Sleep(c.Pace())
		}
		if took := time.Since(began); took < 44*time.Second || took > 46*time.Second {
			t.Errorf("a minute of media was taken in %s", took)
		}
		if n := strings.Count(logged.String(), "problem=too_fast"); n != 1 {
			t.Errorf("it was told %d times", n)
		}
	})
}

// Whoever makes discontinuities without end is ended, at each connection.
func TestPublisherBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := testBroadcast(t)
		c := newCamera(t, b)
		c.film(25, everySecond)
		another := func(i int) error {
			other := *h264(t)
			other.Record = append(slices.Clone(other.Record), byte(i))
			return c.Config(&other)
		}
		n := 0
		for ; another(n) == nil; n++ {
			c.film(1, everySecond)
		}
		if n < maxBreaks-1 || n > maxBreaks { // it has connected, too
			t.Errorf("it was ended after %d", n)
		}
		c.End(false)
		if _, err := b.attach(front.Request{}, credentials.Channel{}, time.Now(), time.Now()); !errors.Is(err, refusalReconnects) {
			t.Errorf("by another connection it goes on: %v", err)
		}
		time.Sleep(2 * breakEvery)
		c = newCamera(t, b)
		c.film(25, everySecond)
		if err := another(1001); err != nil {
			t.Errorf("a change now and then: %v", err)
		}
	})
}

// The bitrate is bounded across connections.
func TestPublisherBitrateAcrossConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := testBroadcast(t)
		const megabyte = 1 << 20
		sent := 0
		for range 3 {
			p, err := b.attach(front.Request{}, credentials.Channel{}, time.Now(), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for p.Write(media.Unit{Track: media.Video, Payload: make([]byte, megabyte)}) == nil {
				sent += megabyte
			}
			p.End(false)
			time.Sleep(time.Second)
		}
		if most := front.MaxBitrate / 8 * 14; sent > most {
			t.Errorf("%d bytes were taken within 3 s, at most %d", sent, most)
		}
	})
}

// Who has sent nothing for 2 s gives way to another publisher with the key.
func TestPublisherTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := testBroadcast(t)
		first := newCamera(t, b)
		first.film(100, everySecond)
		time.Sleep(takeoverSilence - 41*time.Millisecond)
		if _, err := b.attach(front.Request{}, credentials.Channel{}, time.Now(), time.Now()); err != errBusy {
			t.Errorf("a second publisher was told %v", err)
		}
		if _, err := b.attach(front.Request{}, credentials.Channel{}, time.Now().Add(-takeoverSilence), time.Now()); err != refusalBusy {
			t.Errorf("one that came before the newest frame was told %v", err)
		}
		time.Sleep(time.Millisecond)
		second := newCamera(t, b)
		if len(first.closed) != 1 || first.closed[0].Reason != "taken_over" {
			t.Errorf("the first one was told %v", first.closed)
		}
		size := b.log.Size()
		first.send(first.picture(true))
		first.End(true)
		if b.log.Size() != size || b.source.life.phase.over() {
			t.Error("the first one still counts")
		}
		second.film(100, everySecond)
		if m, _ := b.source.seq.Mark(); m.Discontinuity != 1 || m.Sequence != 3 || len(second.closed) != 0 {
			t.Errorf("the newest mark is %+v; the second one was told %v", m, second.closed)
		}
	})
}

// A publisher is ended when nothing comes, or nothing that can be shown or heard.
func TestPublisherOverdue(t *testing.T) {
	for _, c := range []struct {
		name   string
		film   func(*camera)
		reason front.Reason
		after  time.Duration
	}{
		{"silent", func(c *camera) {
			time.Sleep(30 * time.Second) // in a bubble
			c.broadcast.step(time.Now())
		}, "silent", 30 * time.Second},
		{"no keyframe ever", func(c *camera) { c.film(25*31, never) }, "no_keyframe", 30 * time.Second},
		{"no keyframe any more", func(c *camera) {
			c.film(25*45, func(i int) bool { return i == 25*10 })
		}, "no_keyframe", 40 * time.Second},
		{"no picture any more, but sound", func(c *camera) {
			c.film(25, everySecond)
			for range 25 * 31 {
				c.send(c.sound())
				c.frames++
				time.Sleep(40 * time.Millisecond) // in a bubble
				c.broadcast.step(time.Now())
			}
		}, "", 0},
		{"no picture that can be read", func(c *camera) {
			for range 25 * 31 {
				c.Fault(front.FaultLengths)
				time.Sleep(40 * time.Millisecond) // in a bubble
				c.broadcast.step(time.Now())
			}
		}, "unreadable", 30 * time.Second},
		{"a keyframe each 8 s", func(c *camera) {
			c.film(25*45, func(i int) bool { return i%200 == 0 })
		}, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _ := testBroadcast(t)
				began := time.Now()
				film := newCamera(t, b)
				var after time.Duration
				film.publisher.end = func(r front.Refusal) {
					film.closed = append(film.closed, r)
					if after == 0 {
						after = time.Since(began)
					}
				}
				c.film(film)
				if c.reason == "" && len(film.closed) == 0 {
					return
				}
				if len(film.closed) == 0 || film.closed[0].Reason != c.reason || after < c.after || after > c.after+100*time.Millisecond {
					t.Errorf("it was told %v after %v, want %s after %v", film.closed, after, c.reason, c.after)
				}
			})
		})
	}
}

// An encoder that sends keyframes when it is asked for them is asked where the
// next segment should begin.
func TestPublisherAsksForKeyframes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := testBroadcast(t)
		c := newCamera(t, b)
		asked := 0
		key := true
		c.request = func() {
			asked++
			key = true
		}
		c.film(25*19, func(int) bool {
			defer func() { key = false }()
			return key
		})
		if m, _ := b.source.seq.Mark(); m.Sequence != 9 || asked != 9 || !m.Independent() {
			t.Errorf("it was asked %d times in 19 s, the newest mark is %+v", asked, m)
		}
		c.film(25*3, never) // it doesn't listen
		if asked < 11 || asked > 13 {
			t.Errorf("it was asked %d times", asked)
		}
	})
}

// What begins too late, or makes no sense, changes nothing.
func TestPublisherIgnores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, logged := testBroadcast(t)
		c := &camera{t: t}
		p, err := b.attach(front.Request{}, credentials.Channel{}, time.Now(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		c.publisher = p
		c.config(media.StereoAAC())
		sound := func() {
			for range 50 {
				c.send(c.sound())
				c.frames++
			}
		}
		sound()
		c.config(h264(t))
		c.send(c.picture(true))
		late := c.picture(false)
		late.PTS += timeline.MaxComposition + 1
		c.send(late)
		empty := c.sound()
		empty.Payload = nil
		c.send(empty)
		sound()
		st, _ := b.source.seq.Settings()
		if m, _ := b.source.seq.Mark(); st.Video || !st.Audio || m.Discontinuity != 0 || b.source.width != 0 {
			t.Errorf("settings are %+v, the newest mark %+v", st, m)
		}
		if n := strings.Count(logged.String(), "pictures began in a broadcast without pictures"); n != 1 {
			t.Errorf("it was said %d times", n)
		}
	})
}

// A unit that no reader of the log takes is left out, and the broadcast goes on.
func TestPublisherUnitTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := testBroadcast(t)
		c := newCamera(t, b)
		c.config(h264(t))
		c.film(30, everySecond)
		large := c.picture(false)
		large.Payload = make([]byte, relay.MaxPayload+1)
		c.send(large)
		c.film(30, everySecond)
		pictures, buf := 0, make([][]byte, 0, timeline.MaxBatch)
		for n := uint64(0); ; {
			items, _, _, _ := b.log.Read(n, buf)
			for _, item := range items {
				r, err := relay.NewReader(io.MultiReader(bytes.NewReader(relay.Header()), bytes.NewReader(item)))
				if err != nil {
					t.Fatal(err)
				}
				e, err := r.Next()
				if err != nil {
					t.Fatalf("item %d can't be read: %v", n, err)
				}
				if n++; e.Unit != nil && e.Unit.Track == media.Video {
					pictures++
				}
			}
			if len(items) == 0 {
				break
			}
		}
		if pictures != 60 {
			t.Errorf("the log has %d pictures, want 60", pictures)
		}
	})
}

// Sound of an odd kind is taken as it is.
func TestPublisherOddSound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, asc := range map[string][]byte{
			"HE-AAC": {0x2b, 0x11, 0x88, 0x00}, // 24 kHz, doubled to 48 kHz
			"5.1":    {0x11, 0xb0},
		} {
			b, _ := testBroadcast(t)
			c := newCamera(t, b)
			c.config(codec(t, media.AAC, asc))
			if a := b.source.seq.Codec(media.Audio); a == nil || a.Universal || string(a.Record) != string(asc) {
				t.Errorf("%s gave %+v", name, a)
			}
		}
	})
}

// Tracks that a front leaves out are a problem that the streamer is told of.
func TestPublisherFurtherTracks(t *testing.T) {
	b, logged := testBroadcast(t)
	c := newCamera(t, b)
	c.FurtherTracks()
	c.FurtherTracks()
	if !strings.Contains(c.advice(), `"code":"further_tracks"`) || strings.Count(logged.String(), "problem=further_tracks") != 1 {
		t.Errorf("the streamer is told %s, the log %s", c.advice(), logged)
	}
}

// The streamer is told how pictures are packed wrongly, by a name of its own, and
// doesn't hear instead that keyframes are missing. Before the first parameter sets they
// may be on their way.
func TestPublisherFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := testBroadcast(t)
		early, err := b.attach(front.Request{}, credentials.Channel{}, time.Now(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		early.Fault(front.FaultParameterSets)
		if early.advice() != "" {
			t.Errorf("at once it is told %s", early.advice())
		}
		early.End(true)
		c := newCamera(t, b)
		c.film(25*15, func(i int) bool {
			c.Fault(front.FaultParameterSets)
			return i == 0
		})
		if told := c.advice(); !strings.Contains(told, `"code":"picture_parameter_sets"`) || strings.Contains(told, "no_keyframe") || len(c.closed) > 0 {
			t.Errorf("it is told %s, %v", told, c.closed)
		}
	})
}
