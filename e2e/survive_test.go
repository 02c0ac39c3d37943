package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// The clips of these tests: what is published first, what after the break, and
// that with all else than the first.
var (
	firstClip  = clip{name: "survive", seconds: "40", size: "640x360", rate: "30", video: []string{"-g", "60", "-bf", "2"}, audio: stereo}
	secondClip = clip{name: "survive2", seconds: "8", size: "640x360", rate: "30", video: []string{"-g", "60", "-bf", "2"}, audio: stereo}
	otherClip  = clip{
		name: "survive3", seconds: "8", size: "480x270", rate: "25", video: []string{"-g", "50", "-profile:v", "baseline"},
		audio: []string{"-c:a", "aac", "-b:a", "96k", "-ac", "2", "-ar", "44100"},
	}
)

// fleet is every service in a process of its own.
type fleet struct {
	t                testing.TB
	redis            string
	bucket           *objects.Bucket
	api, edge        *server
	ingests, workers []*server
	key              string // that of the channel demo
	env, args        []string
}

// startFleet starts the services and makes the channel demo. args are those of
// all services, workers those of each worker.
func startFleet(t *testing.T, ingests int, args []string, workers ...[]string) *fleet {
	t.Helper()
	f := &fleet{t: t, redis: testenv.StartRedis(t).URL()}
	cfg := testenv.BucketConfig(t)
	var err error
	if f.bucket, err = objects.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := f.bucket.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.env = []string{"MILLRACE_S3_ACCESS_KEY=" + cfg.AccessKey, "MILLRACE_S3_SECRET_KEY=" + cfg.SecretKey}
	f.args = append([]string{"--redis", f.redis, "--s3-endpoint", cfg.Endpoint, "--s3-bucket", cfg.Bucket}, args...)
	f.api, f.edge = f.start("api"), f.start("edge")
	for range ingests {
		f.ingests = append(f.ingests, f.start("ingest"))
	}
	for _, own := range workers {
		f.workers = append(f.workers, f.start("transcode", own...))
	}
	for _, s := range append([]*server{f.api, f.edge}, append(f.ingests, f.workers...)...) {
		ready(t, s)
	}
	f.key = createChannel(t, "demo", "--data", f.api.data, "--redis", f.redis)
	return f
}

func (f *fleet) start(role string, own ...string) *server {
	f.t.Helper()
	return startRole(f.t, role, f.t.TempDir(), f.env, append(f.args[:len(f.args):len(f.args)], own...)...)
}

// busy returns the worker that makes the broadcast, and another one.
func (f *fleet) busy() (busy, other *server) {
	f.t.Helper()
	for i, w := range f.workers {
		if w.metric("millrace_transcode_broadcasts", "") > 0 {
			return w, f.workers[(i+1)%len(f.workers)]
		}
	}
	f.t.Fatal("no worker works")
	return nil, nil
}

// state asks api for the channel demo.
func (f *fleet) state() (state, broadcast string) {
	f.t.Helper()
	return channelState(f.t, f.api, "demo")
}

func channelState(t testing.TB, api *server, channel string) (state, broadcast string) {
	t.Helper()
	var now struct{ State, Broadcast string }
	if err := json.Unmarshal(get(t, api.http+"/api/v1/channels/"+channel).body, &now); err != nil {
		t.Fatal(err)
	}
	return now.State, now.Broadcast
}

// awaitState waits until api says that of a channel's broadcast.
func awaitState(t testing.TB, api *server, channel, state, broadcast string) {
	t.Helper()
	eventually(t, 15*time.Second, func() error {
		if s, b := channelState(t, api, channel); s != state || b != broadcast {
			return fmt.Errorf("the channel is %s with broadcast %q, want %s with %q", s, b, state, broadcast)
		}
		return nil
	})
}

// checkStored waits until S3 has what the reader got, byte by byte.
func (f *fleet) checkStored(broadcast string, r *reader) {
	f.t.Helper()
	eventually(f.t, 30*time.Second, func() error {
		for _, x := range r.renditions {
			for _, s := range x.list() {
				epoch, rest, _ := strings.Cut(s.URI, ".")
				key := objects.Prefix(broadcast) + epoch + "/" + x.name + "/" + rest
				stored, err := f.bucket.Get(f.t.Context(), key)
				if err != nil {
					return fmt.Errorf("%s, segment %d: %w", x.name, s.Sequence, err)
				}
				if !bytes.Equal(stored, s.data) {
					f.t.Fatalf("%s, segment %d: S3 has %d bytes that aren't the %d that viewers got", x.name, s.Sequence, len(stored), len(s.data))
				}
			}
		}
		return nil
	})
}

// terminate asks a service to end, and waits until it has, by itself and well.
func terminate(t testing.TB, s *server, limit time.Duration) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(limit); err != nil {
		t.Errorf("%s ended with %v", s.name, err)
	}
}

// TestPublisherComesBack kills the encoder, and starts it again within the
// grace period, with the same settings and with others.
func TestPublisherComesBack(t *testing.T) {
	s := startAll(t, "--grace", "8s")
	for name, second := range map[string]clip{"same": secondClip, "other": otherClip} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			key := s.channel(name)
			p := s.publishClip(t, key, firstClip)
			r := follow(t, s.playlist(name), true)
			broadcast := s.awaitLive(name, "")
			waitSegments(t, s.playlist(name), 2)
			p.kill()
			awaitState(t, s, name, "reconnecting", broadcast)
			p = s.publishClip(t, key, second)
			awaitState(t, s, name, "live", broadcast)
			p.finish(30 * time.Second)
			r.wait(40 * time.Second)
			if d := r.verify(); d != 1 {
				t.Errorf("%d discontinuities, want 1", d)
			}
		})
	}
}

// TestIngestDies kills the ingest, and publishes to another one.
func TestIngestDies(t *testing.T) {
	f := startFleet(t, 2, []string{"--grace", "12s"}, nil)
	p := f.ingests[0].publishClip(t, f.key, firstClip)
	r := follow(t, f.edge.playlist("demo"), true)
	waitSegments(t, f.edge.playlist("demo"), 2)
	_, broadcast := f.state()
	f.ingests[0].kill()
	p.kill()
	p = f.ingests[1].publishClip(t, f.key, secondClip)
	awaitState(t, f.api, "demo", "live", broadcast)
	p.finish(30 * time.Second)
	r.wait(45 * time.Second)
	if d := r.verify(); d != 1 {
		t.Errorf("%d discontinuities, want 1", d)
	}
	f.checkStored(broadcast, r)
}

// TestIngestDrains asks the ingest to end while an encoder sends.
func TestIngestDrains(t *testing.T) {
	f := startFleet(t, 2, []string{"--grace", "12s", "--drain", "1s"}, nil)
	p := f.ingests[0].publishClip(t, f.key, firstClip)
	r := follow(t, f.edge.playlist("demo"), true)
	waitSegments(t, f.edge.playlist("demo"), 2)
	_, broadcast := f.state()
	terminate(t, f.ingests[0], 20*time.Second)
	_ = p.wait(10 * time.Second) // it was told to go
	p = f.ingests[1].publishClip(t, f.key, secondClip)
	awaitState(t, f.api, "demo", "live", broadcast)
	p.finish(30 * time.Second)
	r.wait(45 * time.Second)
	if d := r.verify(); d != 1 {
		t.Errorf("%d discontinuities, want 1", d)
	}
	f.checkStored(broadcast, r)
}

// TestWorkerDrains asks the worker to end in mid-broadcast: another one goes on
// at a mark, also one whose FFmpeg is another.
func TestWorkerDrains(t *testing.T) {
	for name, own := range map[string][]string{"same profile": nil, "other profile": {"--ffmpeg", otherFFmpeg(t)}} {
		t.Run(name, func(t *testing.T) {
			f := startFleet(t, 1, []string{"--grace", "2s"}, []string{"--drain", "20s"}, append([]string{"--drain", "20s"}, own...))
			c := firstClip
			c.name, c.seconds = "survive22", "22"
			p := f.ingests[0].publishClip(t, f.key, c)
			r := follow(t, f.edge.playlist("demo"), true)
			waitSegments(t, f.edge.playlist("demo"), 2)
			_, broadcast := f.state()
			busy, other := f.busy()
			terminate(t, busy, 25*time.Second)
			if !p.running() {
				t.Error("the publisher ended before the worker did: nothing is shown")
			}
			p.finish(time.Minute)
			r.wait(30 * time.Second)
			if d := r.verify(); d != 0 {
				t.Errorf("%d discontinuities, want 0", d)
			}
			if n := other.metric("millrace_transcode_conflicts_total", ""); n != 0 {
				t.Errorf("%g parts or segments were made twice with different bytes", n)
			}
			checkCarried(t, r.rendition("source"), c.file(t), "v")
			checkCarried(t, r.rendition("audio"), c.file(t), "a")
			for _, name := range []string{"240p30", "160p30"} {
				checkRung(t, r.rendition(name), r.rendition("source"))
			}
			f.checkStored(broadcast, r)
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
	s := startAll(t, "--grace", "1m")
	p := s.publishClip(t, s.key, firstClip)
	broadcast := s.awaitLive("demo", "")
	waitSegments(t, s.playlist("demo"), 2)
	source := s.http + "/hls/demo/" + broadcast + "/source/index.m3u8"
	before := mediaOf(t, source)
	begin := time.Now()
	terminate(t, s, 10*time.Second)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %s to end", took)
	}
	_ = p.wait(10 * time.Second)
	key := s.key
	s = s.again(t)
	s.publishClip(t, key, secondClip)
	awaitState(t, s, "demo", "live", broadcast)
	last := before.Segments[len(before.Segments)-1] // perhaps an open one
	var after *mediaPlaylist
	eventually(t, 20*time.Second, func() error {
		after = mediaOf(t, source)
		if end := after.Segments[len(after.Segments)-1]; end.Discontinuity != 1 || end.open() {
			return fmt.Errorf("it hasn't gone on: it ends with segment %d of discontinuity %d", end.Sequence, end.Discontinuity)
		}
		return nil
	})
	found := after.find(last.Sequence)
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
		if !segment.open() {
			get(t, strings.TrimSuffix(source, "index.m3u8")+segment.URI)
		}
	}
}

// mediaOf fetches a media playlist; it must be there soon.
func mediaOf(t testing.TB, address string) *mediaPlaylist {
	t.Helper()
	var m *mediaPlaylist
	eventually(t, 10*time.Second, func() error {
		a, err := fetch(t.Context(), client, address)
		if err == nil && a.status != 200 {
			err = fmt.Errorf("GET %s: %d %s", address, a.status, a.body)
		}
		if err != nil {
			return err
		}
		m, err = parseMedia(string(a.body))
		return err
	})
	return m
}
