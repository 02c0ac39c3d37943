package lease

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/internal/seal"
	"millrace/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	here  = "http://here:9180"
	there = "http://there:9180"
)

func acquire(t *testing.T, db redis.UniversalClient, broadcast string, ingest seal.Address, busyFor time.Duration) Record {
	t.Helper()
	r, _, err := Acquire(t.Context(), db, "demo", broadcast, ingest, busyFor, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAcquire(t *testing.T) {
	db := testenv.Redis(t)
	if _, err := Read(t.Context(), db, "demo"); !errors.Is(err, ErrNone) {
		t.Errorf("an unknown channel gave %v", err)
	}
	before := time.Now().Add(-time.Second)
	first := acquire(t, db, "b1", here, time.Minute)
	if first.Broadcast != "b1" || first.Ingest != here || first.State != Live || first.Epoch == 0 || first.Started.Before(before) {
		t.Errorf("the record is %+v", first)
	}
	read, err := Read(t.Context(), db, "demo")
	if err != nil || read.Age < 0 || read.Age > time.Minute {
		t.Errorf("%+v, %v", read, err)
	}
	if read.Age = 0; read != first {
		t.Errorf("read %+v, want %+v", read, first)
	}
	if names, err := Channels(t.Context(), db); err != nil || !slices.Equal(names, []string{"demo"}) {
		t.Errorf("live channels are %q, %v", names, err)
	}
	// Another ingest gets it only when the first one is silent, or its broadcast isn't live.
	if _, _, err := Acquire(t.Context(), db, "demo", "b2", there, time.Minute, 0); !errors.Is(err, ErrBusy) {
		t.Errorf("a channel that is live gave %v", err)
	}
	second := acquire(t, db, "b2", there, 0)
	third := acquire(t, db, "b3", there, time.Minute) // the same ingest
	if second.Epoch <= first.Epoch || third.Epoch <= second.Epoch {
		t.Errorf("epochs are %d, %d, %d", first.Epoch, second.Epoch, third.Epoch)
	}
	third.State = Reconnecting
	if err := Renew(t.Context(), db, "demo", third); err != nil {
		t.Fatal(err)
	}
	acquire(t, db, "b4", here, time.Minute)
}

func TestRenew(t *testing.T) {
	db := testenv.Redis(t)
	r := acquire(t, db, "b1", here, 0)
	r.State, r.Format, r.Width, r.Height, r.FrameRate = Live, media.HEVC, 1920, 1080, 29.97
	if err := Renew(t.Context(), db, "demo", r); err != nil {
		t.Fatal(err)
	}
	read, err := Read(t.Context(), db, "demo")
	if read.Age, read.Seen, r.Seen = 0, (time.Time{}), (time.Time{}); err != nil || read != r {
		t.Errorf("read %+v, %v, want %+v", read, err, r)
	}

	// A Redis that lost the record has it whole again.
	if err := db.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := Renew(t.Context(), db, "demo", r); err != nil {
		t.Fatal(err)
	}
	read, err = Read(t.Context(), db, "demo")
	if read.Age, read.Seen = 0, (time.Time{}); err != nil || read != r {
		t.Errorf("read %+v, %v, want %+v", read, err, r)
	}
	if ttl, err := db.PTTL(t.Context(), channelKey("demo")).Result(); err != nil || ttl <= 0 || ttl > Forget {
		t.Errorf("it is kept for %v, %v", ttl, err)
	}

	// A higher epoch ends it, and what it says counts no longer.
	next := acquire(t, db, "b2", there, 0)
	r.State = Ended
	if err := Renew(t.Context(), db, "demo", r); !errors.Is(err, ErrLost) {
		t.Errorf("a lower epoch gave %v", err)
	}
	if read, err := Read(t.Context(), db, "demo"); err != nil || read.Broadcast != "b2" || read.State != Live {
		t.Errorf("read %+v, %v", read, err)
	}
	if names, err := Channels(t.Context(), db); err != nil || len(names) != 1 {
		t.Errorf("live channels are %q, %v", names, err)
	}
	next.State = Ended
	if err := Renew(t.Context(), db, "demo", next); err != nil {
		t.Fatal(err)
	}
	if names, err := Channels(t.Context(), db); err != nil || len(names) != 0 {
		t.Errorf("live channels are %q, %v", names, err)
	}
}

func TestSlots(t *testing.T) {
	db := testenv.Redis(t)
	if slots, err := Slots(t.Context(), db, "b1"); err != nil || len(slots) != 0 {
		t.Errorf("%v, %v", slots, err)
	}
	want := map[int]jobs.Slot{
		0: {Address: here, Epoch: jobs.Epoch{Lease: 1_790_000_000_000, Grant: 2}},
		1: {Address: there, Epoch: jobs.Epoch{Lease: 1_790_000_000_000, Grant: 1}},
	}
	for n, s := range want {
		if err := SetSlot(t.Context(), db, "b1", n, s); err != nil {
			t.Fatal(err)
		}
	}
	slots, err := Slots(t.Context(), db, "b1")
	if err != nil || len(slots) != 2 || slots[0] != want[0] || slots[1] != want[1] {
		t.Errorf("%v, %v", slots, err)
	}
	if ttl, err := db.PTTL(t.Context(), slotsKey("b1")).Result(); err != nil || ttl <= 0 || ttl > Forget {
		t.Errorf("they are kept for %v, %v", ttl, err)
	}
}

func TestRedisAway(t *testing.T) {
	s := testenv.StartRedis(t)
	db := s.Client()
	r := acquire(t, db, "b1", here, 0)
	s.Stop()
	if err := Renew(t.Context(), db, "demo", r); err == nil || errors.Is(err, ErrLost) {
		t.Errorf("Renew gave %v", err)
	}
	if _, err := Read(t.Context(), db, "demo"); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("Read gave %v", err)
	}
	if _, _, err := Acquire(t.Context(), db, "demo", "b2", here, 0, 0); err == nil || errors.Is(err, ErrBusy) {
		t.Errorf("Acquire gave %v", err)
	}
}

// Who takes a channel goes on with its broadcast, within its grace period.
func TestAcquireGoesOn(t *testing.T) {
	db := testenv.Redis(t)
	first, before, err := Acquire(t.Context(), db, "demo", "b1", here, 0, time.Minute)
	if err != nil || before != (Record{}) {
		t.Fatalf("%+v, %v", before, err)
	}
	first.Lost, first.State, first.Width = time.Now().Add(-30*time.Second).Truncate(time.Millisecond).UTC(), Reconnecting, 640
	first.Handoff = relay.Handoff{
		Settings: relay.Settings{TargetDuration: 4, PartTarget: 30_000},
		Mark:     relay.Mark{Kind: relay.Pause, Epoch: first.Epoch, Sequence: 812, Discontinuity: 3, Time: first.Started},
	}
	if err := Renew(t.Context(), db, "demo", first); err != nil {
		t.Fatal(err)
	}
	second, before, err := Acquire(t.Context(), db, "demo", "b2", there, time.Hour, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if second.Broadcast != "b1" || second.Epoch <= first.Epoch || second.Ingest != there || second.State != Live ||
		!second.Lost.IsZero() || second.Width != 640 || !second.Started.Equal(first.Started) {
		t.Errorf("it goes on as %+v", second)
	}
	if off := before.Lost.Sub(first.Lost).Abs(); off > 5*time.Second {
		t.Errorf("it was lost %s off", off)
	}
	before.Age, before.Seen, first.Seen, before.Lost = 0, time.Time{}, time.Time{}, first.Lost
	if before != first {
		t.Errorf("before it was %+v, want %+v", before, first)
	}
	// Past its grace period, or after its end, another broadcast begins.
	for i, end := range []func(*Record){
		func(r *Record) { r.State, r.Lost = Reconnecting, time.Now().Add(-2*time.Minute) },
		func(r *Record) { r.State = Ended },
	} {
		end(&second)
		if err := Renew(t.Context(), db, "demo", second); err != nil {
			t.Fatal(err)
		}
		fresh := "fresh" + string(rune('0'+i))
		if second, before, err = Acquire(t.Context(), db, "demo", fresh, here, 0, time.Minute); err != nil || second.Broadcast != fresh || before != (Record{}) {
			t.Errorf("it goes on with %+v, %v", second, err)
		}
	}
}

// What an ingest notes that has lost the channel counts no longer.
func TestSlotsFenced(t *testing.T) {
	db := testenv.Redis(t)
	now := jobs.Slot{Address: there, Epoch: jobs.Epoch{Lease: 1_790_000_000_001, Grant: 1}}
	if err := SetSlot(t.Context(), db, "b1", 0, now); err != nil {
		t.Fatal(err)
	}
	old := jobs.Slot{Address: here, Epoch: jobs.Epoch{Lease: 1_790_000_000_000, Grant: 9}}
	if err := SetSlot(t.Context(), db, "b1", 0, old); !errors.Is(err, ErrLost) {
		t.Errorf("an earlier lease gave %v", err)
	}
	if slots, err := Slots(t.Context(), db, "b1"); err != nil || slots[0] != now {
		t.Errorf("%v, %v", slots, err)
	}
}
