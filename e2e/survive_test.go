package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
	"millrace/internal/testenv"
)

// What is published after the break, and that with all else than before it.
var (
	secondClip = harness.Clip{Name: "survive2", Seconds: "8", Size: "640x360", Rate: "30", Video: []string{"-g", "60", "-bf", "2"}, Audio: harness.Stereo}
	otherClip  = harness.Clip{
		Name: "survive3", Seconds: "8", Size: "480x270", Rate: "25", Video: []string{"-g", "50", "-profile:v", "baseline"},
		Audio: []string{"-c:a", "aac", "-b:a", "96k", "-ac", "2", "-ar", "44100"},
	}
)

// TestPublisherComesBack kills the encoder, and starts it again within the
// grace period, with the same settings and with others.
func TestPublisherComesBack(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t, "--grace", "8s")
	for name, second := range map[string]harness.Clip{"same": secondClip, "other": otherClip} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.In(t)
			second.File(t) // the grace period isn't for making it
			key := s.Channel(name)
			p := s.PublishClip(t, key, longClip)
			r := hls.Follow(t, s.Playlist(name), true)
			broadcast := s.AwaitLive(name, "")
			harness.WaitSegments(t, s.Playlist(name), 2)
			p.Kill()
			harness.AwaitState(t, s, name, "reconnecting", broadcast)
			p = s.PublishClip(t, key, second)
			harness.AwaitState(t, s, name, "live", broadcast)
			p.Finish(30 * time.Second)
			r.Wait(40 * time.Second)
			if d := r.Verify(); d != 1 {
				t.Errorf("%d discontinuities, want 1", d)
			}
		})
	}
}

// TestIngestDies kills the ingest, and publishes to another one.
func TestIngestDies(t *testing.T) {
	t.Parallel()
	f := harness.StartFleet(t, 2, []string{"--grace", "12s"}, nil)
	secondClip.File(t)
	p := f.Ingests[0].PublishClip(t, f.Key, longClip)
	r := hls.Follow(t, f.Edge.Playlist("demo"), true)
	harness.WaitSegments(t, f.Edge.Playlist("demo"), 2)
	_, broadcast := f.State()
	f.Ingests[0].Kill()
	p.Kill()
	p = f.Ingests[1].PublishClip(t, f.Key, secondClip)
	harness.AwaitState(t, f.API, "demo", "live", broadcast)
	p.Finish(30 * time.Second)
	r.Wait(45 * time.Second)
	if d := r.Verify(); d != 1 {
		t.Errorf("%d discontinuities, want 1", d)
	}
	f.CheckStored(broadcast, r)
}

// TestIngestDrains asks the ingest to end while an encoder sends.
func TestIngestDrains(t *testing.T) {
	t.Parallel()
	f := harness.StartFleet(t, 2, []string{"--grace", "12s", "--drain", "1s"}, nil)
	secondClip.File(t)
	p := f.Ingests[0].PublishClip(t, f.Key, longClip)
	r := hls.Follow(t, f.Edge.Playlist("demo"), true)
	harness.WaitSegments(t, f.Edge.Playlist("demo"), 2)
	_, broadcast := f.State()
	harness.Terminate(t, f.Ingests[0], 20*time.Second)
	_ = p.Wait(10 * time.Second) // it was told to go
	p = f.Ingests[1].PublishClip(t, f.Key, secondClip)
	harness.AwaitState(t, f.API, "demo", "live", broadcast)
	p.Finish(30 * time.Second)
	r.Wait(45 * time.Second)
	if d := r.Verify(); d != 1 {
		t.Errorf("%d discontinuities, want 1", d)
	}
	f.CheckStored(broadcast, r)
}

// TestWorkerDies kills the worker in mid-broadcast, and checks that viewers get
// every frame all the same.
func TestWorkerDies(t *testing.T) {
	t.Parallel()
	f := harness.StartFleet(t, 1, []string{"--grace", "2s"}, nil, nil)
	c := harness.Clip{Name: "cluster", Seconds: "30", Size: "640x360", Rate: "30", Video: []string{"-bf", "3", "-g", "60"}, Audio: harness.Stereo}
	p := f.Ingests[0].PublishClip(t, f.Key, c)
	r := hls.Follow(t, f.Edge.Playlist("demo"), false)
	harness.WaitSegments(t, f.Edge.Playlist("demo"), 3)
	_, broadcast := f.State()
	busy, other := f.Busy()
	busy.Kill()
	p.Finish(time.Minute)
	r.Wait(30 * time.Second)
	if d := r.Verify(); d != 0 {
		t.Errorf("%d discontinuities, want 0", d)
	}
	hls.CheckCarried(t, r.Rendition("source"), c.File(t), "v")
	hls.CheckCarried(t, r.Rendition("audio"), c.File(t), "a")
	for _, name := range []string{"240p30", "160p30"} {
		hls.CheckRung(t, r.Rendition(name), r.Rendition("source"))
	}
	if !strings.Contains(other.Log.String(), "working on the broadcast") {
		t.Error("the other worker did nothing")
	}
	if n := other.Metric("millrace_transcode_conflicts_total", ""); n != 0 {
		t.Errorf("%g parts or segments were made twice with different bytes", n)
	}
	// What S3 keeps is what viewers got, whoever made it, and nothing else.
	f.CheckStored(broadcast, r)
	want := 0
	for _, x := range r.Renditions {
		want += len(x.Segments)
	}
	if n := f.StoredSegments(broadcast); n != want {
		t.Errorf("S3 has %d segments, want %d", n, want)
	}
}

// TestWorkerDrains asks the worker to end in mid-broadcast: another one goes on
// at a mark, also one whose FFmpeg is another.
func TestWorkerDrains(t *testing.T) {
	t.Parallel()
	for name, own := range map[string][]string{"same profile": nil, "other profile": {"--ffmpeg", otherFFmpeg(t)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := harness.StartFleet(t, 1, []string{"--grace", "2s"}, []string{"--drain", "20s"}, append([]string{"--drain", "20s"}, own...))
			c := longClip
			c.Name, c.Seconds = "survive22", "22"
			p := f.Ingests[0].PublishClip(t, f.Key, c)
			r := hls.Follow(t, f.Edge.Playlist("demo"), true)
			harness.WaitSegments(t, f.Edge.Playlist("demo"), 2)
			_, broadcast := f.State()
			busy, other := f.Busy()
			harness.Terminate(t, busy, 25*time.Second)
			if !p.Running() {
				t.Error("the publisher ended before the worker did: nothing is shown")
			}
			p.Finish(time.Minute)
			r.Wait(30 * time.Second)
			if d := r.Verify(); d != 0 {
				t.Errorf("%d discontinuities, want 0", d)
			}
			if n := other.Metric("millrace_transcode_conflicts_total", ""); n != 0 {
				t.Errorf("%g parts or segments were made twice with different bytes", n)
			}
			hls.CheckCarried(t, r.Rendition("source"), c.File(t), "v")
			hls.CheckCarried(t, r.Rendition("audio"), c.File(t), "a")
			for _, name := range []string{"240p30", "160p30"} {
				hls.CheckRung(t, r.Rendition(name), r.Rendition("source"))
			}
			f.CheckStored(broadcast, r)
		})
	}
}

// otherFFmpeg is an ffmpeg that says to be another version.
func otherFFmpeg(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ffmpeg")
	script := "#!/bin/sh\nfor a; do if [ \"$a\" = -version ]; then \"$REAL\" \"$@\" | sed '1s/version [^ ]*/&-other/'; exit; fi; done\nexec \"$REAL\" \"$@\"\n"
	script = strings.ReplaceAll(script, "$REAL", testenv.FFmpeg(t))
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "-version").Output()
	if err != nil || !strings.Contains(string(out), "-other") {
		t.Fatalf("the other ffmpeg: %v, %.80s", err, out)
	}
	return path
}

// TestAllStopsAndGoesOn ends millrace in mid-broadcast: what viewers have seen
// is stored, and the next start goes on with the broadcast.
func TestAllStopsAndGoesOn(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t, "--grace", "1m")
	p := s.PublishClip(t, s.Key, longClip)
	broadcast := s.AwaitLive("demo", "")
	harness.WaitSegments(t, s.Playlist("demo"), 2)
	source := s.HTTP + "/hls/demo/" + broadcast + "/source/index.m3u8"
	before := hls.MediaOf(t, source)
	ended := stopwatch(t, "to end", 5*time.Second)
	harness.Terminate(t, s, 10*time.Second)
	ended()
	_ = p.Wait(10 * time.Second)
	key := s.Key
	s = s.Again(t)
	s.PublishClip(t, key, secondClip)
	harness.AwaitState(t, s, "demo", "live", broadcast)
	last := before.Segments[len(before.Segments)-1] // perhaps an open one
	var after *hls.MediaPlaylist
	harness.Eventually(t, 20*time.Second, func() error {
		after = hls.MediaOf(t, source)
		if end := after.Segments[len(after.Segments)-1]; end.Discontinuity != 1 || end.Open() {
			return fmt.Errorf("it hasn't gone on: it ends with segment %d of discontinuity %d", end.Sequence, end.Discontinuity)
		}
		return nil
	})
	found := after.Find(last.Sequence)
	if found == nil || found.Gap {
		t.Fatalf("segment %d, whose parts were shown before the end, is lost: %v", last.Sequence, found)
	}
	shown := 0.0
	for _, part := range last.Parts {
		shown += part.Duration
	}
	if found.Duration < shown-0.01 {
		t.Errorf("of segment %d %g s are left, %g s had been shown", last.Sequence, found.Duration, shown)
	}
	for i, segment := range after.Segments {
		if want := after.Segments[0].Sequence + uint64(i); segment.Sequence != want || segment.Gap {
			t.Errorf("segment %d (gap %t) stands where %d should", segment.Sequence, segment.Gap, want)
		}
		if !segment.Open() {
			hls.Get(t, strings.TrimSuffix(source, "index.m3u8")+segment.URI)
		}
	}
}
