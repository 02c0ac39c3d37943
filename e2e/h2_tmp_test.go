package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"millrace/internal/objects"
	"millrace/internal/testenv"
)

func TestH2Takeover(t *testing.T) {
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
		s := startRole(t, role, t.TempDir(), env, "--redis", redis, "--s3-endpoint", cfg.Endpoint, "--s3-bucket", cfg.Bucket, "--grace", "20s")
		ready(t, s)
		return s
	}
	api := start("api")
	ingest, edge := start("ingest"), start("edge")
	workers := []*server{start("transcode"), start("transcode")}
	key := createChannel(t, "demo", "--data", api.data, "--redis", redis)
	c := clip{name: "cluster", seconds: "90", size: "640x360", rate: "30", video: []string{"-bf", "3", "-g", "60"}, audio: stereo}
	ingest.publishClip(t, key, c)
	waitSegments(t, edge.playlist("demo"), 3)
	var killed []time.Time
	for range 7 {
		busy := -1
		eventually(t, 20*time.Second, func() error {
			for i, w := range workers {
				if w.metric("millrace_transcode_broadcasts", "") == 1 {
					busy = i
					return nil
				}
			}
			return os.ErrNotExist
		})
		time.Sleep(3700 * time.Millisecond)
		killed = append(killed, time.Now())
		workers[busy].kill()
		workers = append(workers[:busy], workers[busy+1:]...)
		fresh := start("transcode")
		time.Sleep(2 * time.Second)
		for _, line := range strings.Split(workers[0].log.String(), "\n") {
			if strings.Contains(line, "takeover") || strings.Contains(line, "working on") || strings.Contains(line, "WARN") || strings.Contains(line, "ERR") {
				t.Log(killed[len(killed)-1].UTC().Format("05.000"), line)
			}
		}
		if workers[0].metric("millrace_transcode_broadcasts", "") != 1 {
			t.Log("NOT TAKEN", len(workers[0].log.String()), workers[0].log.String())
			t.Log("FRESH", fresh.log.String())
			l := ingest.log.String()
			t.Log("INGEST", l[max(0, len(l)-3000):])
		}
		t.Log("cold", workers[0].metric("millrace_transcode_encoder_cold_starts_total", ""))
		workers = append(workers, fresh)
	}
}
