package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// TestLeakedKey is the story of a stream key that somebody else has: its owner resets it,
// and goes on with the broadcast; the operator ends that, and deletes the channel.
func TestLeakedKey(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t, "--grace", "20s")
	command := func(name string) string {
		t.Helper()
		out, err := exec.Command(harness.Binary(), "channel", name, "leak", "--data", s.Data).Output()
		if err != nil {
			t.Fatalf("channel %s: %v", name, err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return lines[len(lines)-1]
	}
	// ended waits until a publisher was ended, and checks what its ffmpeg shows.
	ended := func(p *harness.Publisher, says string) {
		t.Helper()
		if p.Wait(10*time.Second) == nil || !strings.Contains(p.Log.String(), says) {
			t.Errorf("ffmpeg shows\n%s\nwant something with %q", harness.LastLines(p.Log.String(), 4), says)
		}
	}
	thief := s.PublishClip(t, s.Channel("leak"), shortClip)
	broadcast := s.AwaitLive("leak", "")

	key := command("reset-key")
	reset := time.Now()
	owner := s.PublishClip(t, key, shortClip)
	ended(thief, "this one was reset")
	t.Logf("the old key's publisher was gone after %s", time.Since(reset).Round(time.Millisecond))
	harness.Eventually(t, 10*time.Second, func() error {
		if n := s.Metric("millrace_ingest_publishers", ""); n != 1 {
			return fmt.Errorf("%g publishers", n)
		}
		return nil
	})
	harness.AwaitState(t, s, "leak", "live", broadcast)
	if !owner.Running() {
		t.Errorf("the new key was refused:\n%s", harness.LastLines(owner.Log.String(), 4))
	}

	if said := command("kick"); !strings.Contains(said, "and its broadcast are ended") {
		t.Errorf("it says %q", said)
	}
	ended(owner, "has ended the broadcast")
	harness.AwaitState(t, s, "leak", "offline", "")
	ended(s.PublishClip(t, key, shortClip), "can begin in")

	command("delete")
	harness.Eventually(t, 5*time.Second, func() error {
		a, err := hls.Fetch(t.Context(), hls.Client, s.HTTP+"/api/v1/channels/leak")
		if err == nil && a.Status != 404 {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
	ended(s.PublishClip(t, key, shortClip), "stream key is wrong")
}
