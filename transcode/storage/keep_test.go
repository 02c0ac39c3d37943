package storage

import (
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/credentials"
	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// shelf is a storage that nothing runs, with a keeper to call, over a real bucket on a
// disk of a given size.
type shelf struct {
	*Storage
	t   *testing.T
	db  redis.UniversalClient
	now time.Time
	// disk is the disk's size, taken what else lies on it.
	disk, taken int64
}

// pieceSize is the size of each object on a shelf, in bytes.
const pieceSize = 1000

func newShelf(t *testing.T, c Config) *shelf {
	s := &shelf{t: t, db: testenv.Redis(t), now: time.Now(), disk: 1e9}
	c.Redis, c.Bucket, c.SpoolDir, c.Log = s.db, testenv.Bucket(t), t.TempDir(), slog.New(slog.DiscardHandler)
	c.DVRWindow = time.Minute
	c.Space = func(string) (free, total int64, err error) {
		used := s.taken
		err = c.Bucket.Survey(t.Context(), "", func(found []objects.Object) error {
			for _, o := range found {
				used += o.Size
			}
			return nil
		})
		return s.disk - used, s.disk, err
	}
	c.MinFree = func(int64) int64 { return 100 * pieceSize }
	s.Storage = New(c)
	return s
}

func (s *shelf) put(key string) {
	s.t.Helper()
	if err := s.Bucket.Put(s.t.Context(), key, []byte(strings.Repeat("x", pieceSize))); err != nil {
		s.t.Fatal(err)
	}
}

// run has a broadcast with so many segments of 2 s in each of two renditions.
func (s *shelf) run(broadcast, channel string, segments int) *Writer {
	s.t.Helper()
	w := s.Open(broadcast, channel, grantOf(1, 0, 0))
	w.Broadcast(index.Broadcast{TargetDuration: 4, PartTarget: 1, Renditions: []index.Rendition{{Name: "v"}, {Name: "a"}}})
	for n := range uint64(segments) {
		for _, r := range []string{"v", "a"} {
			publish(s.t, w, r, n)
			s.put(objects.SegmentKey(broadcast, 7, r, n, "p"))
		}
	}
	return w
}

// end has a broadcast that ended so long ago.
func (s *shelf) end(broadcast, channel string, objectsOf int, ago time.Duration) {
	s.t.Helper()
	for n := range uint64(objectsOf) {
		s.put(objects.SegmentKey(broadcast, 7, "v", n, "p"))
	}
	at := s.now.Add(-ago)
	s.db.ZAdd(s.t.Context(), endedKey, redis.Z{Score: float64(at.UnixMilli()), Member: broadcast})
	if err := writeHolding(s.t.Context(), s.db, broadcast, holding{channel, int64(objectsOf) * pieceSize, at.UnixMilli()}); err != nil {
		s.t.Fatal(err)
	}
}

// after lets time pass, and has the keeper look after all.
func (s *shelf) after(d time.Duration) {
	s.t.Helper()
	s.now = s.now.Add(d)
	if err := s.keeper.tendAll(s.t.Context(), s.now); err != nil {
		s.t.Fatal(err)
	}
}

// relieve lets the keeper make room as often as it takes until nothing changes.
func (s *shelf) relieve() {
	s.t.Helper()
	for before, same := "", 0; same < 3; {
		if err := s.keeper.relieve(s.t.Context(), s.now); err != nil {
			s.t.Fatal(err)
		}
		now := strings.Join(s.keys(""), " ")
		if same++; now != before {
			before, same = now, 0
		}
	}
}

// keys lists what is stored.
func (s *shelf) keys(prefix string) (keys []string) {
	s.t.Helper()
	err := s.Bucket.List(s.t.Context(), prefix, func(found []string) error {
		keys = append(keys, found...)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return keys
}

// has checks that a broadcast has segments from one on, in both renditions, and none before.
func (s *shelf) has(broadcast string, from, to uint64) {
	s.t.Helper()
	got := map[uint64]int{}
	for _, k := range s.keys(objects.Prefix(broadcast)) {
		if n, ok := objects.Sequence(k); ok {
			got[n]++
		}
	}
	for n := range to {
		if want := 2 * oneIf(n >= from); got[n] != want {
			s.t.Errorf("broadcast %s has segment %d in %d renditions, want %d", broadcast, n, got[n], want)
		}
	}
}

// windowStart is the first of so many segments of 2 s that a DVR window of a minute, and
// three target durations of 4 s, reach back to.
func windowStart(segments int) uint64 { return uint64(segments - (60+12)/2) }

// What has left the DVR window of a running broadcast is deleted once no playlist that
// listed it can be in use.
func TestKeepTheWindow(t *testing.T) {
	s := newShelf(t, Config{})
	s.run("b", "c", 100)
	s.put(objects.InitKey("b", 7, "v", "old"))
	s.after(0)
	s.has("b", 0, 100)
	s.after(59 * time.Second)
	s.has("b", 0, 100)
	s.after(time.Second)
	s.has("b", windowStart(100), 100)
	if h, err := readHoldings(t.Context(), s.db); err != nil || h["b"].Channel != "c" || h["b"].Bytes != (72+1)*pieceSize {
		t.Errorf("noted is %+v, %v; want 73 objects of channel c", h, err)
	}
	s.now = s.now.Add(time.Hour) // nobody needs that init section any more
	s.after(0)
	if k := s.keys(objects.Prefix("b")); len(k) != 72 {
		t.Errorf("%d objects are left, want 72 segments", len(k))
	}
	if n := value(t, s.metrics.deletedObjects.WithLabelValues(deleteWindow)); n != 128+1 {
		t.Errorf("%g objects count as deleted, want 129", n)
	}
}

func TestKeepAll(t *testing.T) {
	s := newShelf(t, Config{Keep: true})
	s.run("b", "c", 100)
	for range 3 {
		s.after(10 * time.Minute)
	}
	s.has("b", 0, 100)
}

// A channel that has more than its quota loses what nobody can see first, then its ended
// broadcasts, and then its window is shorter; no other channel loses anything.
func TestKeepQuota(t *testing.T) {
	s := newShelf(t, Config{Keep: true, Quota: 1e9})
	own := func(quota int64) {
		err := credentials.Replace(t.Context(), s.db, credentials.Catalogue{Version: 1, Channels: []credentials.Channel{{Name: "greedy", KeyHash: "1", Quota: quota}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	w := s.run("b", "greedy", 100)
	s.run("quiet", "quiet", 100)
	s.end("first", "greedy", 10, 30*time.Minute)
	s.end("second", "greedy", 10, 10*time.Minute)
	s.end("others", "other", 10, time.Hour)
	s.after(0)
	s.has("b", 0, 100)

	own(210 * pieceSize) // it has 220
	s.after(time.Minute)
	s.has("b", 5, 100)
	own(85 * pieceSize)
	s.after(time.Minute)
	s.has("b", windowStart(100), 100)
	if a, b := s.keys("broadcasts/first/"), s.keys("broadcasts/second/"); len(a) != 0 || len(b) != 10 {
		t.Errorf("%d objects of the older ended broadcast are left and %d of the newer, want 0 and 10", len(a), len(b))
	}
	if w.Window() != 0 {
		t.Errorf("the window is %s long while it fits", w.Window())
	}

	own(50 * pieceSize) // the window alone has 72
	s.after(time.Minute)
	if got := w.Window(); got < 35*time.Second || got > 45*time.Second {
		t.Errorf("the window is %s long, want five sevenths of a minute", got)
	}
	s.after(time.Minute)
	if n := len(s.keys("broadcasts/b/")); n > 55 || n < 40 {
		t.Errorf("%d objects are left, want about 50", n)
	}
	s.has("quiet", 0, 100)
	if k := s.keys("broadcasts/others/"); len(k) != 10 {
		t.Errorf("%d objects of another channel's ended broadcast are left, want 10", len(k))
	}

	own(-1)
	for range 5 {
		s.after(time.Minute)
	}
	if w.Window() != 0 {
		t.Errorf("the window is %s long when nothing bounds the channel any more", w.Window())
	}
}

// The shorter window is told to readers of the follow stream and to Redis, and a later worker
// goes on with it.
func TestShortWindowIsTold(t *testing.T) {
	b := newBench(t, grantOf(1, 0, 0))
	b.call().announceBroadcast(index.Broadcast{TargetDuration: 4, PartTarget: 1})
	b.out = outcome{}
	b.call().limitWindow(60 * second)
	for _, told := range [][]index.Entry{b.out.lines[0], b.out.records} {
		if len(told) != 1 || told[0].Broadcast.Window != 60*second {
			t.Errorf("told is %+v, want a window of a minute", told)
		}
	}
	b.call().announceBroadcast(index.Broadcast{TargetDuration: 4, PartTarget: 1})
	if w := b.s.settings.Broadcast.Window; w != 60*second {
		t.Errorf("announced anew the window is %s", w.Duration())
	}
	next := newBench(t, grantOf(2, 0, 0))
	next.call().restore(b.out.records)
	if next.s.window() != 60*second {
		t.Errorf("a later worker's window is %s", next.s.window().Duration())
	}
}

// Below the floor goes first what nobody can see, then what has ended, then windows are
// shortened; when that isn't enough, nothing new is written.
func TestKeepFloor(t *testing.T) {
	s := newShelf(t, Config{Keep: true, StoreDir: "/"})
	w := s.run("b", "endless", 100)
	s.run("small", "quiet", 20)
	s.end("one", "twice", 10, time.Minute)
	s.end("two", "twice", 10, 2*time.Minute)
	s.end("three", "once", 10, time.Hour)
	s.after(0)
	stored := int64(len(s.keys(""))) * pieceSize
	s.disk = stored + 100*pieceSize
	s.relieve()
	s.has("b", 0, 100) // the floor is just free
	if s.keeper.room.short() || s.CheckRoom() != nil {
		t.Errorf("the disk counts as full: %v", s.CheckRoom())
	}

	s.taken = 10 * pieceSize
	s.relieve()
	s.has("b", 10, 100) // with a tenth of the floor more than what lacked
	s.has("small", 0, 20)

	s.taken = (110 + 25) * pieceSize
	s.relieve()
	s.has("b", windowStart(100), 100)
	for id, want := range map[string]int{"one": 10, "two": 0, "three": 10} {
		if n := len(s.keys(objects.Prefix(id))); n != want {
			t.Errorf("%s has %d objects, want %d: the channel that has most gives its oldest", id, n, want)
		}
	}
	if w.Window() != 0 {
		t.Errorf("the window was shortened to %s while ended broadcasts are left", w.Window())
	}

	s.taken += 40 * pieceSize
	s.relieve()
	if got := w.Window(); got < 30*time.Second || got >= time.Minute {
		t.Errorf("the window of the broadcast that takes most is %s, want a shorter one", got)
	}
	s.has("small", 0, 20)
	if s.keeper.room.short() {
		t.Error("the disk counts as full although windows were shortened")
	}

	s.taken = s.disk
	s.relieve()
	if w.Window() != 30*time.Second || len(s.keys("broadcasts/b/")) < 2*15 {
		t.Errorf("%d objects are left in a window of %s", len(s.keys("broadcasts/b/")), w.Window())
	}
	s.has("small", 0, 20)
	if err := s.CheckRoom(); !s.keeper.room.short() || err == nil || !strings.Contains(err.Error(), "new media isn't stored") {
		t.Errorf("on a full disk it says %v", err)
	}
	s.taken = 0
	s.relieve()
	if s.keeper.room.short() || s.CheckRoom() != nil {
		t.Errorf("with room again it says %v", s.CheckRoom())
	}
	s.after(time.Minute)
	if got := w.Window(); got <= 30*time.Second {
		t.Errorf("with room again the window stays at %s", got)
	}
}

// Broadcasts that ended under a version that didn't note what they take give their room, too;
// those of which nothing is stored any more are looked at once.
func TestKeepFloorOfUnknownBroadcasts(t *testing.T) {
	s := newShelf(t, Config{StoreDir: "/"})
	s.end("unknown", "c", 50, time.Hour)
	s.db.HDel(t.Context(), holdingsKey, "unknown")
	s.db.ZAdd(t.Context(), activeKey, redis.Z{Score: float64(s.now.Add(-2 * time.Hour).UnixMilli()), Member: "empty"})
	s.disk = 140 * pieceSize
	s.relieve()
	if left := s.keys(""); len(left) != 0 {
		t.Errorf("%d objects are left", len(left))
	}
	if held, err := readHoldings(t.Context(), s.db); err != nil || len(held) != 1 || held["empty"].Bytes != 0 {
		t.Errorf("noted is %+v, %v", held, err)
	}
	s.taken = 100 * pieceSize // nothing is left to delete
	s.relieve()
	if held, err := readHoldings(t.Context(), s.db); err != nil || len(held) != 1 {
		t.Errorf("what is known to be empty was deleted again: %+v, %v", held, err)
	}
}

// A worker that knows nothing of the init sections of an earlier one deletes none of them.
func TestInitsOfEarlierWorkers(t *testing.T) {
	s := newShelf(t, Config{})
	s.put(objects.InitKey("b", 7, "v", "earlier"))
	s.now = s.now.Add(time.Hour)
	s.Open("b", "c", grantOf(2, 0, 0))
	s.after(0)
	if k := s.keys(objects.Prefix("b")); len(k) != 1 {
		t.Errorf("it is deleted: %v", k)
	}
}

// Where S3 is elsewhere, only the spool is on the disk: nothing in S3 is deleted for it.
func TestKeepFloorOfASpool(t *testing.T) {
	s := newShelf(t, Config{})
	s.run("b", "c", 100)
	s.taken = s.disk
	s.relieve()
	s.has("b", 0, 100)
	if !s.keeper.room.short() || s.uploader.ShortStore() {
		t.Errorf("the spool may grow: %t; S3 is written: %t", !s.uploader.Short(), !s.uploader.ShortStore())
	}
}

// While too little is free the spool doesn't grow, and S3 on the same disk isn't written;
// with room again all that found a place in memory is.
func TestShortDisk(t *testing.T) {
	full := true
	disk := &room{space: func(string) (int64, int64, error) { return int64(oneIf(!full)) * 100, 100, nil }, floor: func(int64) int64 { return 50 }}
	if _, _, err := disk.look(); err != nil {
		t.Fatal(err)
	}
	r := startStorage(t, Config{Redis: testenv.Redis(t), Bucket: testenv.Bucket(t)})
	r.uploader.mu.Lock()
	r.uploader.Short, r.uploader.ShortStore = disk.short, disk.short
	r.uploader.mu.Unlock()
	p := r.Open("b", "c", grantOf(1, 0, 0))
	for n := range uint64(3) {
		publish(t, p, "v", n)
	}
	r.waitUntil("all wait in memory", func(u *uploader) bool { return len(u.items) == 3 && u.disk == 0 && len(u.toSpool) == 0 })
	if got := p.Safe(); got != 0 {
		t.Errorf("%d segments are stored on a full disk", got)
	}
	full = false
	if _, _, err := disk.look(); err != nil {
		t.Fatal(err)
	}
	awaitSafe(t, p, 3)
}

func TestDefaultFloor(t *testing.T) {
	for total, want := range map[int64]int64{10e9: 500e6, 40e9: 2e9, 500e9: 2e9} {
		if got := DefaultFloor(total); got != want {
			t.Errorf("of %d bytes %d stay free, want %d", total, got, want)
		}
	}
	free, total, err := diskSpace(t.TempDir())
	if err != nil || free < 0 || total < free {
		t.Errorf("the disk has %d of %d bytes free, %v", free, total, err)
	}
}

func TestLargestsOldest(t *testing.T) {
	at := func(n int) time.Time { return time.UnixMilli(int64(n)) }
	held := map[string]holding{"a1": {Channel: "a", Bytes: 5}, "a2": {Channel: "a", Bytes: 5}, "b1": {Channel: "b", Bytes: 9}}
	ended := map[string]time.Time{"a1": at(20), "a2": at(10), "b1": at(1)}
	var order []string
	for len(held) > 0 {
		id := largestsOldest(held, ended)
		order = append(order, id)
		delete(held, id)
	}
	if want := []string{"a2", "b1", "a1"}; !slices.Equal(order, want) {
		t.Errorf("deleted are %v, want %v", order, want)
	}
}

// A window that grew back ends at the configured one.
func TestRelax(t *testing.T) {
	s := newShelf(t, Config{})
	w := s.run("b", "c", 1)
	b := s.find("b")
	b.do(func(c change) { c.limitWindow(40 * media.VideoTimescale) })
	var seen []string
	for range 3 {
		seen = append(seen, strconv.Itoa(int(w.Window().Seconds())))
		b.relax()
	}
	if got := strings.Join(seen, " "); got != "40 50 0" {
		t.Errorf("the window grew by %s seconds, want 40 50 0", got)
	}
}
