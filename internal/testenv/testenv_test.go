package testenv

import (
	"errors"
	"os"
	"testing"

	"millrace/internal/objects"
)

func TestMain(m *testing.M) { Main(m) }

func TestRedisStopsAndStarts(t *testing.T) {
	s := StartRedis(t)
	db := s.Client()
	if err := db.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if err := db.Ping(t.Context()).Err(); err == nil {
		t.Error("a stopped server answered")
	}
	s.Start()
	if n, err := db.Exists(t.Context(), "k").Result(); err != nil || n != 0 {
		t.Errorf("after a restart: %d keys, %v; want 0", n, err)
	}
}

func TestBucketsAreSeparate(t *testing.T) {
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	a, b := Bucket(t), Bucket(t)
	if err := a.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Put(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), "k"); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("the other bucket: %v, want ErrNotFound", err)
	}
	after, err := os.Getwd()
	if err != nil || after != before {
		t.Errorf("the working directory went from %s to %s, %v", before, after, err)
	}
}

func TestPostgres(t *testing.T) {
	if u := Postgres(t); u == "" {
		t.Error("no URL")
	}
}

func TestFFmpeg(t *testing.T) {
	if FFmpeg(t) == "" || FFprobe(t) == "" {
		t.Error("no path")
	}
}
