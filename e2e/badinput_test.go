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

	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// TestBadInput sends what encoders, networks and strangers send, and checks
// that it is refused with words or gone on with, while the broadcast of another
// channel isn't touched.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t, "--grace", "10s")
	calm := s.PublishClip(t, s.Channel("calm"), longClip)
	r := hls.Follow(t, s.Playlist("calm"), false)
	s.SideBySide(t, map[string]func(*testing.T, *harness.Server){
		"refused":         refused,
		"garbage":         garbage,
		"timestamp jump":  timestampJump,
		"another picture": anotherPicture,
		"audio stops":     audioStops,
	})
	if !calm.Running() {
		t.Error("the calm broadcast ended before the trouble did: make it longer")
	}
	calm.End()
	r.Wait(30 * time.Second)
	if d := r.Verify(); d != 0 {
		t.Errorf("the calm broadcast has %d discontinuities", d)
	}
	if text := s.Log.String(); strings.Contains(text, "panic") {
		t.Errorf("a panic:\n%s", text)
	}
}

// refused checks that the encoder's user learns why.
func refused(t *testing.T, s *harness.Server) {
	key := s.Channel("busy")
	first := s.PublishClip(t, key, longClip)
	s.AwaitLive("busy", "")
	for _, tt := range []struct{ name, url, says string }{
		{"wrong key", "rtmp://" + s.RTMP + "/live/live_wrong", "key"},
		{"key in use", "rtmp://" + s.RTMP + "/live/" + key, "already"},
		{"unknown app", "rtmp://" + s.RTMP + "/stream/" + key, "live"},
	} {
		p := harness.PublishTo(t, tt.url, []string{"-re", "-i", longClip.File(t), "-c", "copy"})
		if err := p.Wait(15 * time.Second); err == nil {
			t.Errorf("%s: ffmpeg ended without an error", tt.name)
		}
		said := ""
		for line := range strings.Lines(p.Log.String()) {
			if strings.Contains(line, "Server error") {
				said += line
			}
		}
		if !strings.Contains(said, tt.says) {
			t.Errorf("%s: ffmpeg shows %q, want something about %q", tt.name, said, tt.says)
		}
	}
	if !first.Running() {
		t.Error("the first publisher was thrown out")
	}
	first.End()
}

// garbage throws bytes at the RTMP port.
func garbage(t *testing.T, s *harness.Server) {
	noise := make([]byte, 64<<10)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise) // never fails
	for name, data := range map[string][]byte{
		"noise":                   noise,
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + strings.Repeat("x", 4000)),
		"a handshake, then noise": append(append([]byte{3}, make([]byte, 1536)...), noise...),
	} {
		conn, err := net.Dial("tcp", s.RTMP)
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
func timestampJump(t *testing.T, s *harness.Server) {
	p := s.Publish(t, s.Channel("jump"), []string{
		"-re", "-i", shortClip.File(t), "-c", "copy",
		"-bsf:v", `setts=ts=TS+gte(N\,200)*3600000`, "-bsf:a", `setts=ts=TS+gte(N\,313)*3600000`, "-t", "3660",
	})
	r := hls.Follow(t, s.Playlist("jump"), true)
	p.Finish(90 * time.Second)
	r.Wait(30 * time.Second)
	if d := r.Verify(); d != 1 {
		t.Errorf("%d discontinuities, want 1", d)
	}
	lasts := 0.0
	for _, segment := range r.Rendition("source").List() {
		lasts += segment.Duration
	}
	if lasts < 23 || lasts > 26 {
		t.Errorf("the broadcast lasts %g s, want 25", lasts)
	}
}

// anotherPicture loses the encoder without a goodbye and sees it come back with
// another size.
func anotherPicture(t *testing.T, s *harness.Server) {
	key := s.Channel("change")
	smaller := harness.Clip{Name: "smaller", Seconds: "8", Size: "480x270", Rate: "30", Video: []string{"-g", "60"}, Audio: harness.Stereo}
	smaller.File(t) // the grace period isn't for making it
	p := s.PublishClip(t, key, longClip)
	r := hls.Follow(t, s.Playlist("change"), true)
	broadcast := s.AwaitLive("change", "")
	harness.WaitSegments(t, s.Playlist("change"), 2)
	p.Kill()
	harness.Eventually(t, 10*time.Second, func() error {
		if a := hls.Get(t, s.HTTP+"/api/v1/channels/change"); !bytes.Contains(a.Body, []byte(`"reconnecting"`)) {
			return fmt.Errorf("the channel should be reconnecting: %s", a.Body)
		}
		return nil
	})
	p = s.PublishClip(t, key, smaller)
	harness.Eventually(t, 15*time.Second, func() error {
		a := hls.Get(t, s.HTTP+"/api/v1/channels/change")
		if !bytes.Contains(a.Body, []byte(`"live"`)) || !bytes.Contains(a.Body, []byte(broadcast)) {
			return fmt.Errorf("the channel should be live with the same broadcast %s: %s", broadcast, a.Body)
		}
		return nil
	})
	p.Finish(30 * time.Second)
	r.Wait(30 * time.Second)
	if d := r.Verify(); d != 1 {
		t.Errorf("%d discontinuities, want 1", d)
	}
	source := r.Rendition("source")
	if len(source.Inits) != 2 {
		t.Errorf("the source has %d init sections, want 2", len(source.Inits))
	}
	if files := source.Files(); len(files) != 2 {
		t.Errorf("the source has %d pieces, want 2", len(files))
	}
}

// audioStops publishes sound that pauses for some seconds.
func audioStops(t *testing.T, s *harness.Server) {
	p := s.Publish(t, s.Channel("silence"), []string{
		"-re", "-i", shortClip.File(t), "-c", "copy", "-bsf:a", `noise=drop=between(n\,200\,450)`, "-t", "16",
	})
	r := hls.Follow(t, s.Playlist("silence"), true) // ffmpeg holds its pictures back for seconds, which is a pause
	p.Finish(60 * time.Second)
	r.Wait(30 * time.Second)
	if d := r.Verify(); d != 0 {
		t.Errorf("%d discontinuities, want 0", d)
	}
}
