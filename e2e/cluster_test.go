package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// TestWorkerDies runs the services as processes of their own, kills the worker
// in mid-broadcast, and checks that viewers get every frame all the same.
func TestWorkerDies(t *testing.T) {
	t.Parallel()
	redis := testenv.StartRedis(t).URL()
	cfg := testenv.BucketConfig(t)
	bucket, err := objects.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	env := []string{"MILLRACE_S3_ACCESS_KEY=" + cfg.AccessKey, "MILLRACE_S3_SECRET_KEY=" + cfg.SecretKey}
	start := func(role string) *harness.Server {
		s := harness.StartRole(t, role, t.TempDir(), env, "--redis", redis, "--s3-endpoint", cfg.Endpoint, "--s3-bucket", cfg.Bucket, "--grace", "2s")
		harness.AwaitReady(t, s)
		return s
	}
	api := start("api")
	ingest, edge := start("ingest"), start("edge")
	workers := []*harness.Server{start("transcode"), start("transcode")}
	key := harness.CreateChannel(t, "demo", "--data", api.Data, "--redis", redis)

	c := harness.Clip{Name: "cluster", Seconds: "30", Size: "640x360", Rate: "30", Video: []string{"-bf", "3", "-g", "60"}, Audio: harness.Stereo}
	p := ingest.PublishClip(t, key, c)
	r := hls.Follow(t, edge.Playlist("demo"), false)
	harness.WaitSegments(t, edge.Playlist("demo"), 3)
	var channel struct{ Broadcast string }
	if err := json.Unmarshal(hls.Get(t, api.HTTP+"/api/v1/channels/demo").Body, &channel); err != nil {
		t.Fatal(err)
	}
	busy := -1
	for i, w := range workers {
		if w.Metric("millrace_transcode_broadcasts", "") == 1 {
			busy = i
		}
	}
	if busy < 0 {
		t.Fatal("no worker works")
	}
	workers[busy].Kill()
	other := workers[1-busy]
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

	// What S3 keeps is what viewers got, whoever made it.
	stored := make(map[string][]byte)
	harness.Eventually(t, 30*time.Second, func() error {
		clear(stored)
		err := bucket.List(t.Context(), objects.Prefix(channel.Broadcast), func(keys []string) error {
			for _, key := range keys {
				if strings.HasSuffix(key, ".m4s") {
					stored[key] = nil
				}
			}
			return nil
		})
		want := 0
		for _, x := range r.Renditions {
			want += len(x.Segments)
		}
		if err == nil && len(stored) != want {
			err = fmt.Errorf("S3 has %d segments, want %d", len(stored), want)
		}
		return err
	})
	for key := range maps.Keys(stored) {
		if stored[key], err = bucket.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range r.Renditions {
		for _, s := range x.List() {
			epoch, rest, _ := strings.Cut(s.URI, ".")
			key := objects.Prefix(channel.Broadcast) + epoch + "/" + x.Name + "/" + rest
			if !bytes.Equal(stored[key], s.Data) {
				t.Errorf("%s, segment %d: S3 has %d bytes that aren't the %d that viewers got", x.Name, s.Sequence, len(stored[key]), len(s.Data))
			}
		}
	}
}
