package storage

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"millrace/internal/index"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// media64K is a segment's content, different for each.
func media64K(sequence uint64) []byte {
	b := make([]byte, 64<<10)
	r := rand.NewChaCha8([32]byte{byte(sequence), byte(sequence >> 8)})
	_, _ = r.Read(b)
	return b
}

// publish64K publishes a segment of one part, and fails when that takes a time.
func publish64K(t *testing.T, p *Writer, sequence uint64) {
	t.Helper()
	begin := time.Now()
	if err := p.Finish(partEntry("v", sequence, 0), media64K(sequence), segmentEntry("v", sequence)); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("publishing segment %d took %s", sequence, took)
	}
}

// inBucket reports whether S3 has a segment, whose bytes must be the right ones.
func inBucket(t *testing.T, b *objects.Bucket, sequence uint64) bool {
	t.Helper()
	key := objects.SegmentKey("b", 7, "v", sequence, "p")
	if ok, err := b.Exists(t.Context(), key); err != nil || !ok {
		return false
	}
	got, err := b.Get(t.Context(), key)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(media64K(sequence)) {
		t.Errorf("segment %d in S3 has %d other bytes, %v", sequence, len(got), err)
	}
	return true
}

// Publishing goes on while S3 is away in any way, and all gets there afterwards.
func TestStorageOutlivesFaultsOfS3(t *testing.T) {
	const segments = 40
	for name, fault := range map[string]func(*testenv.FaultProxy){
		"refused": (*testenv.FaultProxy).Cut,
		"hanging": (*testenv.FaultProxy).Hang,
		"slow":    func(p *testenv.FaultProxy) { p.Slow(300 * time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bucket, direct, proxy := testenv.ProxiedBucket(t)
			db := testenv.Redis(t)
			r := startStorage(t, Config{Redis: db, Bucket: bucket})
			p := r.Open("b", "c", grantOf(1, 0, 0))
			publish64K(t, p, 0)
			r.waitUploaded() // there are connections
			fault(proxy)
			for n := uint64(1); n < segments; n++ {
				publish64K(t, p, n)
			}
			if name == "hanging" {
				// A request that hangs gives up its place in time.
				r.waitUntil("requests were given up", func(u *uploader) bool {
					return value(t, u.Metrics.uploads.WithLabelValues("error")) >= 2*float64(u.Parallel)
				})
			}
			if name != "slow" {
				proxy.Restore()
			}
			r.waitUploaded()
			proxy.Restore()
			for n := range uint64(segments) {
				if !inBucket(t, direct, n) {
					t.Errorf("segment %d isn't in S3", n)
				}
			}
			if got := len(readIndex(t, db, "b", segments)); got != segments {
				t.Errorf("%d entries in the index, want %d", got, segments)
			}
			awaitSafe(t, p, segments)
			r.waitUntil("the spool is empty", func(u *uploader) bool { return len(u.items) == 0 })
		})
	}
}

// tmpfs mounts a small file system. Whoever hasn't the right to runs the test
// again in a namespace where they have: dir is then empty, and the test was made there.
func tmpfs(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		const inside = "MILLRACE_TEST_NAMESPACE"
		if os.Getenv(inside) != "" {
			t.Fatalf("mount a small file system: %v", err)
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if out, runErr := cmd.CombinedOutput(); runErr != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Fatalf("mount a small file system: %v; nor in a namespace of its own (run this test as root): %v\n%s", err, runErr, out)
		}
		return ""
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// A disk that is full drops the oldest segments that S3 hasn't got, says so, and
// keeps the newest; a process that is killed meanwhile leaves the rest to the next.
func TestStorageOnAFullDisk(t *testing.T) {
	const segments = 40 // of 64 KiB, on 1 MiB
	disk := tmpfs(t, "1m")
	if disk == "" {
		return // made in a namespace of its own
	}
	bucket, direct, proxy := testenv.ProxiedBucket(t)
	proxy.Cut()
	db := testenv.Redis(t)
	first := startStorage(t, Config{Redis: db, Bucket: bucket, SpoolDir: disk, Drain: time.Millisecond})
	p := first.Open("b", "c", grantOf(1, 0, 0))
	_, follow := p.store.follow()
	for n := range uint64(segments) {
		publish64K(t, p, n)
		first.waitSpooled()
	}
	gaps := map[uint64]bool{}
	dropped := value(t, first.metrics.spoolDropped.WithLabelValues(dropDisk))
	eventually(t, "all drops are told of", func() bool {
		for len(follow.lines) > 0 {
			entries, err := index.ParseLine(<-follow.lines)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Type == index.TypeGap {
					gaps[e.Sequence] = true
				}
			}
		}
		return len(gaps) == int(dropped)
	})
	// The oldest goes first, but for those that are just being uploaded.
	oldest := slices.ContainsFunc([]uint64{0, 1, 2, 3, 4}, func(n uint64) bool { return gaps[n] })
	if len(gaps) < segments/2 || len(gaps) > segments-8 || gaps[segments-1] || !oldest {
		t.Errorf("the gaps are %v", gaps)
	}
	first.stop() // what isn't uploaded stays on disk
	proxy.Restore()
	again := startStorage(t, Config{Redis: db, Bucket: bucket, SpoolDir: disk})
	inIndex := map[uint64]index.Type{}
	for _, e := range readIndex(t, db, "b", segments) {
		inIndex[e.Sequence] = e.Type
	}
	again.waitUntil("the spool is empty", func(u *uploader) bool { return len(u.items) == 0 })
	for n := range uint64(segments) {
		want := index.TypeSegment
		if gaps[n] {
			want = index.TypeGap
		}
		if stored := inBucket(t, direct, n); stored == gaps[n] || inIndex[n] != want {
			t.Errorf("segment %d: a gap %t, in S3 %t, in the index a %q", n, gaps[n], stored, inIndex[n])
		}
	}
}

// What is held in memory while S3 is away is bounded, and what it costs counted.
func TestStorageMemoryWithoutS3(t *testing.T) {
	bucket, direct, proxy := testenv.ProxiedBucket(t)
	proxy.Hang()
	r := startStorage(t, Config{Redis: testenv.Redis(t), Bucket: bucket, WindowBytes: 1 << 20, MemoryBytes: 1 << 20})
	p := r.Open("b", "c", grantOf(1, 0, 0))
	for n := range uint64(60) {
		publish64K(t, p, n)
		r.waitSpooled()
		p.store.mu.Lock()
		if held := p.store.catalogue.bytes; held > 1<<20+64<<10 {
			t.Errorf("the window holds %d bytes", held)
		}
		p.store.mu.Unlock()
	}
	if n := value(t, r.metrics.evicted); n < 40 {
		t.Errorf("%g segments are counted that left the window before they were safe", n)
	}
	proxy.Restore()
	r.waitUploaded()
	for n := range uint64(60) {
		if !inBucket(t, direct, n) {
			t.Errorf("segment %d isn't in S3", n)
		}
	}
	awaitSafe(t, p, 60)
}
