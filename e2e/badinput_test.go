package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestBadInput sends what encoders, networks and strangers send, and checks
// that it is refused with words or gone on with, while the broadcast of another
// channel isn't touched.
func TestBadInput(t *testing.T) {
	s := startAll(t, "--grace", "10s")
	calm := s.publishClip(t, s.channel("calm"), clip{name: "calm", seconds: "180", size: "640x360", rate: "30", video: []string{"-g", "60", "-bf", "2"}, audio: stereo})
	r := follow(t, s.playlist("calm"), false)
	t.Run("trouble", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *server){
			"refused":         refused,
			"garbage":         garbage,
			"timestamp jump":  timestampJump,
			"another picture": anotherPicture,
			"audio stops":     audioStops,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, s.in(t))
			})
		}
	})
	if !calm.running() {
		t.Error("the calm broadcast ended before the trouble did: make it longer")
	}
	calm.end()
	r.wait(30 * time.Second)
	if d := r.verify(); d != 0 {
		t.Errorf("the calm broadcast has %d discontinuities", d)
	}
	if text := s.log.String(); strings.Contains(text, "panic") {
		t.Errorf("a panic:\n%s", text)
	}
}

// refused checks that the encoder's user learns why.
func refused(t *testing.T, s *server) {
	key := s.channel("busy")
	first := s.publishClip(t, key, longClip)
	s.awaitLive("busy", "")
	for _, tt := range []struct{ name, url, says string }{
		{"wrong key", "rtmp://" + s.rtmp + "/live/live_wrong", "key"},
		{"key in use", "rtmp://" + s.rtmp + "/live/" + key, "already"},
		{"unknown app", "rtmp://" + s.rtmp + "/stream/" + key, "live"},
	} {
		p := publishTo(t, tt.url, []string{"-re", "-i", longClip.file(t), "-c", "copy"})
		if err := p.wait(15 * time.Second); err == nil {
			t.Errorf("%s: ffmpeg ended without an error", tt.name)
		}
		said := ""
		for line := range strings.Lines(p.log.String()) {
			if strings.Contains(line, "Server error") {
				said += line
			}
		}
		if !strings.Contains(said, tt.says) {
			t.Errorf("%s: ffmpeg shows %q, want something about %q", tt.name, said, tt.says)
		}
	}
	if !first.running() {
		t.Error("the first publisher was thrown out")
	}
	first.end()
}

// garbage throws bytes at the RTMP port.
func garbage(t *testing.T, s *server) {
	noise := make([]byte, 64<<10)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise) // never fails
	for name, data := range map[string][]byte{
		"noise":                   noise,
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + strings.Repeat("x", 4000)),
		"a handshake, then noise": append(append([]byte{3}, make([]byte, 1536)...), noise...),
	} {
		conn, err := net.Dial("tcp", s.rtmp)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(data) // it may be refused in the middle
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection is still open after 20 s", name)
		}
		_ = conn.Close()
	}
}

// timestampJump publishes timestamps that go an hour ahead in the middle of a GOP.
func timestampJump(t *testing.T, s *server) {
	p := s.publish(t, s.channel("jump"), []string{
		"-re", "-i", shortClip.file(t), "-c", "copy",
		"-bsf:v", `setts=ts=TS+gte(N\,200)*3600000`, "-bsf:a", `setts=ts=TS+gte(N\,313)*3600000`, "-t", "3660",
	})
	r := follow(t, s.playlist("jump"), true)
	p.finish(90 * time.Second)
	r.wait(30 * time.Second)
	if d := r.verify(); d != 1 {
		t.Errorf("%d discontinuities, want 1", d)
	}
	lasts := 0.0
	for _, segment := range r.rendition("source").list() {
		lasts += segment.Duration
	}
	if lasts < 23 || lasts > 26 {
		t.Errorf("the broadcast lasts %g s, want 25", lasts)
	}
}

// anotherPicture loses the encoder without a goodbye and sees it come back with
// another size.
func anotherPicture(t *testing.T, s *server) {
	key := s.channel("change")
	p := s.publishClip(t, key, longClip)
	r := follow(t, s.playlist("change"), true)
	broadcast := s.awaitLive("change", "")
	waitSegments(t, s.playlist("change"), 2)
	p.kill()
	eventually(t, 10*time.Second, func() error {
		if a := get(t, s.http+"/api/v1/channels/change"); !bytes.Contains(a.body, []byte(`"reconnecting"`)) {
			return fmt.Errorf("the channel should be reconnecting: %s", a.body)
		}
		return nil
	})
	p = s.publishClip(t, key, clip{name: "smaller", seconds: "8", size: "480x270", rate: "30", video: []string{"-g", "60"}, audio: stereo})
	eventually(t, 15*time.Second, func() error {
		a := get(t, s.http+"/api/v1/channels/change")
		if !bytes.Contains(a.body, []byte(`"live"`)) || !bytes.Contains(a.body, []byte(broadcast)) {
			return fmt.Errorf("the channel should be live with the same broadcast %s: %s", broadcast, a.body)
		}
		return nil
	})
	p.finish(30 * time.Second)
	r.wait(30 * time.Second)
	if d := r.verify(); d != 1 {
		t.Errorf("%d discontinuities, want 1", d)
	}
	source := r.rendition("source")
	if len(source.inits) != 2 {
		t.Errorf("the source has %d init sections, want 2", len(source.inits))
	}
	if files := source.files(); len(files) != 2 {
		t.Errorf("the source has %d pieces, want 2", len(files))
	}
}

// audioStops publishes sound that pauses for some seconds.
func audioStops(t *testing.T, s *server) {
	p := s.publish(t, s.channel("silence"), []string{
		"-re", "-i", shortClip.file(t), "-c", "copy", "-bsf:a", `noise=drop=between(n\,200\,450)`, "-t", "16",
	})
	r := follow(t, s.playlist("silence"), true) // ffmpeg holds its pictures back for seconds, which is a pause
	p.finish(60 * time.Second)
	r.wait(30 * time.Second)
	if d := r.verify(); d != 0 {
		t.Errorf("%d discontinuities, want 0", d)
	}
}
