package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"millrace/internal/index"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

func spoolObject(sequence uint64, data ...string) object {
	o := object{key: objects.SegmentKey("b", 7, "v", sequence, "p"), entry: segmentEntry("v", sequence)}
	for _, d := range data {
		o.data = append(o.data, []byte(d))
	}
	return o
}

func TestSpool(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "spool")
	s, left, err := openSpool(dir)
	if err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
	if _, _, err := openSpool(dir); !errors.Is(err, errSpoolInUse) {
		t.Errorf("opened twice: %v, want %v", err, errSpoolInUse)
	}
	o := spoolObject(1, "one\n", "two")
	size, err := s.write(o)
	if err != nil {
		t.Fatal(err)
	}
	e, data, err := s.read(o.key)
	if err != nil || string(data) != "one\ntwo" || e.Sequence != 1 || e.Rendition != "v" {
		t.Errorf("read %+v %q, %v", e, data, err)
	}
	if _, err := s.write(spoolObject(2, "three")); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(s.path(spoolObject(2).key), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, tmpPrefix+"1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.close()

	s, left, err = openSpool(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if len(left) != 2 || left[0].key != spoolObject(2).key || left[1].key != o.key || left[1].size != size {
		t.Errorf("left over are %+v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, tmpPrefix+"1")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file that isn't complete stays")
	}
	for range 2 {
		if err := s.remove(o.key); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := s.read(o.key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read a removed file: %v", err)
	}
}

func TestSpoolSeesDamage(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":       func([]byte) []byte { return nil },
		"cut short":   func(b []byte) []byte { return b[:len(b)-1] },
		"zeros":       func(b []byte) []byte { return append(b[:len(b)-5], 0, 0, 0, 0, 0) },
		"no header":   func(b []byte) []byte { return b[len(b)-5:] },
		"bad header":  func(b []byte) []byte { b[0] = '['; return b },
		"longer":      func(b []byte) []byte { return append(b, 'x') },
		"zeros first": func(b []byte) []byte { clear(b[:40]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := openSpool(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			o := spoolObject(1, "hello world")
			if _, err := s.write(o); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(s.path(o.key))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.path(o.key), damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.read(o.key); !errors.Is(err, errCorrupt) {
				t.Errorf("read: %v, want %v", err, errCorrupt)
			}
		})
	}
}

func TestBroadcastOf(t *testing.T) {
	for key, want := range map[string]string{
		"broadcasts/b/7/v/1.p.m4s": "b", "broadcasts/b/x": "b",
		"broadcasts/b": "", "broadcasts//x": "", "else/b/x": "", "": "", "lock": "", "checks/x/y": "",
	} {
		if got := broadcastOf(key); got != want {
			t.Errorf("%q is of %q, want %q", key, got, want)
		}
	}
}

// TestSpoolFullDisk: files make room for newer ones, oldest first; when none is
// left, segments are uploaded from memory.
func TestSpoolFullDisk(t *testing.T) {
	var lost []string
	u := newUploader(uploaderConfig{
		Dir: t.TempDir(), Bytes: 1 << 20, Memory: 1 << 20, Log: slog.New(slog.DiscardHandler), Metrics: newMetrics(nil),
		Lost: func(_ string, e index.Entry, reason string) { lost = append(lost, fmt.Sprint(e.Sequence, " ", reason)) },
	})
	if _, err := u.open(); err != nil {
		t.Fatal(err)
	}
	defer u.spool.close()
	var free atomic.Int32 // files
	free.Store(3)
	u.write = func(o object) (int64, error) {
		files, err := filepath.Glob(filepath.Join(u.Dir, "broadcasts*"))
		if err != nil {
			t.Error(err)
		}
		if len(files) >= int(free.Load()) {
			return 0, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
		}
		return u.spool.write(o)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { u.spoolAll(ctx) })
	r := &rig{Storage: &Storage{uploader: u}, t: t}
	through := func(n int) {
		t.Helper()
		r.waitUntil("all went through the spool", func(u *uploader) bool { return len(u.toUpload) == n && len(u.items) == n && len(u.toSpool) == 0 })
	}
	for n := range uint64(5) {
		u.add(spoolObject(n, strings.Repeat("x", 100)))
	}
	through(3)
	free.Store(0)
	u.add(spoolObject(5, strings.Repeat("x", 100)))
	through(1)
	u.mu.Lock()
	if it := u.items[0]; len(u.items) != 1 || it.onDisk() || it.entry.Sequence != 5 || u.memory != 100 || u.disk != 0 {
		t.Errorf("on a full disk are %d items, %d bytes in memory and %d on disk", len(u.items), u.memory, u.disk)
	}
	u.mu.Unlock()
	if n := value(t, u.Metrics.spoolDropped.WithLabelValues(dropDisk)); n != 5 {
		t.Errorf("%g drops are counted, want 5", n)
	}
	wg.Go(func() { u.reportDrops(ctx) })
	r.waitUntil("the drops are reported", func(u *uploader) bool { return len(u.dropped) == 0 })
	cancel()
	wg.Wait()
	if want := []string{"0 disk full", "1 disk full", "2 disk full", "3 disk full", "4 disk full"}; !slices.Equal(lost, want) {
		t.Errorf("lost are %v, want %v", lost, want)
	}
}

// TestSpoolOutOfOrder: without a directory uploads go from memory, and what
// waits there is bounded.
func TestSpoolOutOfOrder(t *testing.T) {
	db := testenv.Redis(t)
	bucket, s3, start := newFaultyS3(t)
	s3.set("503")
	start()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := startStorage(t, Config{Redis: db, Bucket: bucket, SpoolDir: filepath.Join(file, "spool"), MemoryBytes: 100, Uploads: 1})
	p := r.Open("b", "c", grantOf(1, 0, 0))
	for n := range uint64(40) {
		publish(t, p, "v", n)
		r.uploader.mu.Lock()
		if m := r.uploader.memory; m > 100+40 {
			t.Errorf("%d bytes wait in memory", m)
		}
		r.uploader.mu.Unlock()
	}
	<-s3.refused
	s3.set("")
	r.waitUploaded()
	count := map[index.Type]int{}
	for _, e := range readIndex(t, db, "b", 40) {
		count[e.Type]++
	}
	if count[index.TypeGap] < 20 || count[index.TypeSegment] < 5 || count[index.TypeGap]+count[index.TypeSegment] != 40 {
		t.Errorf("the index has %v", count)
	}
	awaitSafe(t, p, 40)
}

// A worker that takes its broadcast up again may make a segment before the
// spool is open that has it from an earlier run.
func TestSpoolHasWhatWasAddedBeforeTheStart(t *testing.T) {
	dir := t.TempDir()
	s, _, err := openSpool(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.write(spoolObject(0, "data")); err != nil {
		t.Fatal(err)
	}
	s.close()
	uploaded := make(chan string, 2)
	var u *uploader
	u = newUploader(uploaderConfig{
		Bucket: testenv.Bucket(t), Dir: dir, Bytes: 1 << 20, Memory: 1 << 20, Expire: time.Hour, Parallel: 2,
		Log: slog.New(slog.DiscardHandler), Metrics: newMetrics(nil),
		Uploaded: func(key string, _ index.Entry) { uploaded <- key; u.recorded(key) },
		Conflict: func(key string, _ index.Entry) { t.Errorf("%s conflicts", key) },
		Lost:     func(key string, _ index.Entry, reason string) { t.Errorf("%s is lost: %s", key, reason) },
	})
	u.add(spoolObject(0, "data"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.run(ctx, 30*time.Second); err != nil { // drains
		t.Fatal(err)
	}
	u.close()
	if n := len(uploaded); n != 1 {
		t.Errorf("%d uploads, want 1", n)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "broadcasts*")); err != nil || len(files) != 0 {
		t.Errorf("left in the spool are %v, %v", files, err)
	}
}

func TestSpoolDropsDamagedAndExpiredFiles(t *testing.T) {
	db, bucket, dir := testenv.Redis(t), testenv.Bucket(t), t.TempDir()
	s, _, err := openSpool(dir)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(3) {
		if _, err := s.write(spoolObject(n, "data")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(s.path(spoolObject(0).key), 10); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-4 * time.Hour)
	if err := os.Chtimes(s.path(spoolObject(1).key), old, old); err != nil {
		t.Fatal(err)
	}
	s.close()
	r := startStorage(t, Config{Redis: db, Bucket: bucket, SpoolDir: dir})
	if got := say([][]index.Entry{readIndex(t, db, "b", 1)}); got != "v2" {
		t.Errorf("the index has %s, want v2", got)
	}
	r.waitUploaded()
	r.stop()
	for _, reason := range []string{dropDamaged, dropExpired} {
		if n := value(t, r.metrics.spoolDropped.WithLabelValues(reason)); n != 1 {
			t.Errorf("%g drops as %q, want 1", n, reason)
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) != 1 {
		t.Errorf("left in the spool are %v, %v", files, err)
	}
}
