package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// TestWorkerDies runs the services as processes of their own, kills the worker
// in mid-broadcast, and checks that viewers get every frame all the same.
func TestWorkerDies(t *testing.T) {
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
	start := func(role string) *server {
		s := startRole(t, role, t.TempDir(), env, "--redis", redis, "--s3-endpoint", cfg.Endpoint, "--s3-bucket", cfg.Bucket, "--grace", "2s")
		ready(t, s)
		return s
	}
	api := start("api")
	ingest, edge := start("ingest"), start("edge")
	workers := []*server{start("transcode"), start("transcode")}
	key := createChannel(t, "demo", "--data", api.data, "--redis", redis)

	c := clip{name: "cluster", seconds: "30", size: "640x360", rate: "30", video: []string{"-bf", "3", "-g", "60"}, audio: stereo}
	p := ingest.publishClip(t, key, c)
	r := follow(t, edge.playlist("demo"), false)
	waitSegments(t, edge.playlist("demo"), 3)
	var channel struct{ Broadcast string }
	if err := json.Unmarshal(get(t, api.http+"/api/v1/channels/demo").body, &channel); err != nil {
		t.Fatal(err)
	}
	busy := -1
	for i, w := range workers {
		if w.metric("millrace_transcode_broadcasts", "") == 1 {
			busy = i
		}
	}
	if busy < 0 {
		t.Fatal("no worker works")
	}
	workers[busy].kill()
	other := workers[1-busy]
	p.finish(time.Minute)
	r.wait(30 * time.Second)
	if d := r.verify(); d != 0 {
		t.Errorf("%d discontinuities, want 0", d)
	}
	checkCarried(t, r.rendition("source"), c.file(t), "v")
	checkCarried(t, r.rendition("audio"), c.file(t), "a")
	for _, name := range []string{"240p30", "160p30"} {
		checkRung(t, r.rendition(name), r.rendition("source"))
	}
	if !strings.Contains(other.log.String(), "working on the broadcast") {
		t.Error("the other worker did nothing")
	}
	if n := other.metric("millrace_transcode_conflicts_total", ""); n != 0 {
		t.Errorf("%g parts or segments were made twice with different bytes", n)
	}

	// What S3 keeps is what viewers got, whoever made it.
	stored := make(map[string][]byte)
	eventually(t, 30*time.Second, func() error {
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
		for _, x := range r.renditions {
			want += len(x.segments)
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
	for _, x := range r.renditions {
		for _, s := range x.list() {
			epoch, rest, _ := strings.Cut(s.URI, ".")
			key := objects.Prefix(channel.Broadcast) + epoch + "/" + x.name + "/" + rest
			if !bytes.Equal(stored[key], s.data) {
				t.Errorf("%s, segment %d: S3 has %d bytes that aren't the %d that viewers got", x.name, s.Sequence, len(stored[key]), len(s.data))
			}
		}
	}
}

// ready waits until a service says that it is ready.
func ready(t *testing.T, s *server) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		if !s.running() {
			t.Fatalf("%s ended: %v\n%s", s.name, s.err, s.log.String())
		}
		a, err := fetch(t.Context(), client, "http://"+s.ops+"/readyz")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
}
