package transcode

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/relay"
	"millrace/internal/seal"
	"millrace/internal/testenv"
	"millrace/transcode/encode"
	"millrace/transcode/transcodetest"
)

const (
	onAir = "broadcast1"
)

// An ingest that dies leaves the open segment with its worker, which closes it
// for the ingest that goes on, and stores it.
func TestOpenSegmentOutlivesItsIngest(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 12))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	c := src.offer(db, transcodetest.FirstGrant)
	await(t, "a segment is finished", func() bool { return c.progress().Finished >= 1 })
	if code, _ := postClose(t, p, onAir, 7); code != http.StatusConflict {
		t.Errorf("/close under the same lease answers %d, want 409", code)
	}
	src.die()
	await(t, "the worker knows that it is detached", func() bool { return testutil.ToFloat64(p.metrics.detached) == 1 })
	if code, _ := postClose(t, p, "another", 8); code != http.StatusNotFound {
		t.Errorf("/close of an unknown broadcast answers %d, want 404", code)
	}
	code, handoff := postClose(t, p, onAir, 8)
	if code != http.StatusOK || handoff.Mark.Kind != relay.Pause || handoff.Settings.PartTarget != 33000 {
		t.Fatalf("/close answers %d %+v", code, handoff)
	}
	if _, again := postClose(t, p, onAir, 9); again.Mark != handoff.Mark {
		t.Errorf("asked again, /close answers %+v, want %+v", again.Mark, handoff.Mark)
	}
	cut := l.ReadUntil(handoff)
	last := cut.Events[cut.Marks[len(cut.Marks)-1]].Mark
	if handoff.Mark.Sequence != last.Sequence+1 || handoff.Mark.DecodeFrom != handoff.Mark.Sequence || handoff.Mark.Time.Sub(last.Time) != (handoff.Mark.Start-last.Start).Duration().Truncate(time.Millisecond) {
		t.Errorf("the handoff's mark is %+v after %+v", handoff.Mark, *last)
	}
	// How much sound had come after the last picture isn't known.
	heard := fmt.Sprintf("audio/%d", last.Sequence)
	want := undisturbed(t, cut)
	await(t, "the sound is stored", func() bool { return stored(t, bucket)[heard] != "" })
	want[heard] = stored(t, bucket)[heard]
	awaitStored(t, bucket, want)
	await(t, "the work is over", func() bool { return len(p.current()) == 0 })
}

// An open segment that another ingest doesn't ask for is dropped: its numbers
// may be used again. What is finished is stored.
func TestOpenSegmentIsDroppedWhenAnotherIngestDoesNotAsk(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 12))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 1}})
	await(t, "a segment is finished", func() bool { return c.progress().Finished >= 1 })
	src.die()
	if next, _, err := lease.Acquire(t.Context(), db, "demo", "fresh", "http://second", 0, time.Minute); err != nil || next.Broadcast != onAir {
		t.Fatalf("the second ingest has %+v, %v", next, err)
	}
	await(t, "the work is over", func() bool { return len(p.current()) == 0 })
	got := stored(t, bucket)
	if open := int(src.open.Load()); len(only(got, func(n int) bool { return n >= open })) > 0 {
		t.Errorf("the open segment, %d, was stored: %v", open, got)
	}
	want := undisturbed(t, l)
	for k, sum := range got {
		if want[k] != sum {
			t.Errorf("segment %s has other bytes", k)
		}
	}
}

// A worker whose ingest died publishes the end of a broadcast that nobody goes
// on with; an ingest that asks for it later is told so.
func TestDetachedPublishesTheEnd(t *testing.T) {
	t.Parallel()
	db := testenv.Redis(t)
	bucket, _, s3 := testenv.ProxiedBucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 12))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 1}})
	await(t, "a segment is finished", func() bool { return c.progress().Finished >= 1 })
	s3.Cut() // the worker stays for what isn't stored
	src.die()
	now.State = lease.Ended
	if err := lease.Renew(t.Context(), db, "demo", now); err != nil {
		t.Fatal(err)
	}
	await(t, "the end is in the index", func() bool {
		newest, err := db.XRevRangeN(t.Context(), index.StreamKey(onAir), "+", "-", 1).Result()
		if err != nil || len(newest) == 0 {
			return false
		}
		e, err := index.Parse([]byte(newest[0].Values[index.Field].(string)))
		return err == nil && e.Type == index.TypeEnd
	})
	if code, _ := postClose(t, p, onAir, now.Epoch+1); code != http.StatusGone {
		t.Errorf("/close answers %d, want 410", code)
	}
	s3.Restore()
	await(t, "the work is over", func() bool { return len(p.current()) == 0 })
}

// An ingest that dies before its first mark leaves nothing to keep.
func TestDetachedWithNothingEnds(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 4))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, -time.Hour) // nothing is due yet
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 1}})
	src.die()
	now.State = lease.Ended
	if err := lease.Renew(t.Context(), db, "demo", now); err != nil {
		t.Fatal(err)
	}
	await(t, "the work is over", func() bool { return testutil.CollectAndCount(p.metrics.claims) > 0 && len(p.current()) == 0 })
}

// A Redis that lost the lease is believed no more than one that is away, and not for ever.
func TestDetachedWithALostLeaseEnds(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 4))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch + 1, Grant: 1}})
	src.die()
	await(t, "the worker knows that it is detached", func() bool { return testutil.ToFloat64(p.metrics.detached) == 1 })
	a := p.current()[0]
	for _, c := range []struct {
		since time.Duration
		over  bool
	}{{detachedLimit - time.Minute, false}, {detachedLimit + time.Minute, true}} {
		now := time.Now()
		s := state{phase: phaseDetached, own: a.grant.Epoch, broadcast: onAir, since: now.Add(-c.since)}
		s, do := next(s, event{kind: eventLooked, at: now, found: a.look(t.Context())})
		if over := s.phase == phaseFinishing && len(do) == 1 && do[0].kind == actDrop; over != c.over {
			t.Errorf("after %s the open segment is dropped: %t", c.since, over)
		}
		for _, what := range do {
			a.perform(t.Context(), what, s, nil)
		}
	}
	await(t, "the work is over", func() bool { return len(p.current()) == 0 })
}

// A worker that was granted the broadcast again gives up what it had.
func TestAnotherGrantOfTheSlotEndsTheDetached(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 12))
	p := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 0)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 1}})
	src.die()
	if err := lease.SetSlot(t.Context(), db, onAir, 0, jobs.Slot{Address: "http://another", Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 2}}); err != nil {
		t.Fatal(err)
	}
	await(t, "the work is over", func() bool { return len(p.current()) == 0 })
	if code, _ := postClose(t, p, onAir, now.Epoch+1); code != http.StatusNotFound {
		t.Errorf("/close answers %d, want 404", code)
	}
}

// A worker that is asked to stop hands its broadcast over at a mark: all
// segments are stored, and are what one worker alone makes.
func TestDrainHandsOverAtAMark(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 12))
	want := undisturbed(t, l)
	drain := func(c *Config) { c.Drain = 20 * time.Second }
	first := startWorker(t, db, bucket, drain)
	const next = 4 // the first worker doesn't finish it before it hears that the other one has it
	src := startSource(t, l, 0)
	src.told, src.withheld = make(chan struct{}), next
	a := src.offer(db, transcodetest.FirstGrant)
	await(t, "a segment is finished", func() bool { return a.progress().Finished >= 1 })
	stopped := make(chan struct{})
	go func() {
		first.stop()
		close(stopped)
	}()
	await(t, "the worker wants to leave", func() bool { return a.progress().Leaving })
	startWorker(t, db, bucket, nil)
	b := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: 7, Grant: 2}, Live: next, Backfill: next, Index: true})
	if b.address == a.address {
		t.Error("the worker that leaves took the broadcast again")
	}
	a.orders <- jobs.Order{Until: next}
	<-a.over
	close(src.told)
	if p := a.progress(); p.Finished != next || p.Safe != next {
		t.Errorf("the worker that left reports %+v, want all before %d safe", p, next)
	}
	<-stopped
	awaitStored(t, bucket, want)
}

// A worker that is asked to stop while it claims a broadcast hands that over too.
func TestDrainWaitsForClaims(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 8))
	first := startWorker(t, db, bucket, func(c *Config) { c.Drain = 20 * time.Second })
	src := startSource(t, l, 0)
	src.granting = make(chan struct{})
	a := src.offer(db, transcodetest.FirstGrant)
	var stopping sync.WaitGroup
	defer stopping.Wait()
	stopping.Go(first.stop)
	await(t, "the worker takes no more jobs", func() bool { return first.working.Load() == 1 })
	close(src.granting)
	await(t, "the worker wants to leave", func() bool { return a.progress().Leaving })
	await(t, "a segment is finished", func() bool { return a.progress().Finished >= 1 })
	a.orders <- jobs.Order{Until: a.progress().Finished + 1}
	<-a.over
	if p := a.progress(); p.Safe != p.Finished {
		t.Errorf("the worker that left reports %+v", p)
	}
}

// A claim whose connection takes nothing more doesn't hold up the end.
func TestLastWordIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, began := &assignment{}, time.Now()
		a.sayLastWord(t.Context(), make(chan struct{}), make(chan struct{}))
		if took := time.Since(began); took != lastWord {
			t.Errorf("the last word took %s, want %s", took, lastWord)
		}
	})
}

// A broadcast that ends while its worker is about to reserve room keeps none.
func TestNoRoomIsKeptForWhatIsOver(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // for a Redis: the worker waits for what earlier ones announced
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	db := redis.NewClient(&redis.Options{Addr: silent.Addr().String(), ContextTimeoutEnabled: true})
	defer db.Close()
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 5))
	f, err := encode.FindFFmpeg(t.Context(), "ffmpeg")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Redis: db, Bucket: testenv.Bucket(t), Peers: testenv.Peers(t, "http://worker"), Preset: "ultrafast", Ladder: transcodetest.Ladder,
		SpoolDir: t.TempDir(), Log: transcodetest.Logger(t), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.ffmpeg = f
	all := s.budget.Room()
	src := startSource(t, l, 0)
	src.cut = func(_, mark uint64) bool {
		<-src.dead // the settings and the configurations were written
		return true
	}
	src.grants = []jobs.Grant{{Epoch: jobs.Epoch{Lease: 7, Grant: 2}, Index: true}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- s.work(ctx, jobs.Job{Broadcast: onAir, Channel: "demo", Ingest: testenv.Sealed(t, seal.Ingest, "demo", src.server.URL)}, s.cfg.Log)
	}()
	await(t, "the worker has the broadcast", func() bool { return len(s.current()) > 0 })
	await(t, "the worker waits for what earlier ones announced", func() bool {
		soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		return !s.current()[0].live.Pause(soon)
	})
	cancel()
	<-done
	if free := s.budget.Room(); free != all {
		t.Errorf("%g of %g cores are free", free, all)
	}
}

// What an earlier worker finished and didn't store is made again, after the
// live segments; what the log no longer has becomes a gap.
func TestBackfill(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		oldest int
	}{{"the log has all", 1}, {"the log begins later", 2}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, bucket := testenv.Redis(t), testenv.Bucket(t)
			l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 10))
			want := undisturbed(t, l)
			p := startWorker(t, db, bucket, nil)
			src := startSource(t, l, 7*time.Second)
			src.oldest = uint64(c.oldest)
			claim := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: 7, Grant: 2}, Live: 3, Backfill: 1, Index: true})
			awaitStored(t, bucket, only(want, func(n int) bool { return n >= c.oldest }))
			await(t, "all is safe", func() bool { return claim.progress().Safe >= 5 })
			gaps := gapsOf(t, p)
			for _, e := range gaps {
				if e.Sequence != 1 {
					t.Errorf("%s has a gap at %d", e.Rendition, e.Sequence)
				}
			}
			if want := 4 * (c.oldest - 1); len(gaps) != want {
				t.Errorf("%d gaps, want %d", len(gaps), want)
			}
		})
	}
}

// Ingest cuts off a reader that takes nothing for long. Earlier segments are made
// again as long as that makes progress; if it makes none, they are gaps.
func TestBackfillGoesOnWhileThereIsProgress(t *testing.T) {
	t.Parallel()
	const live = 6
	for _, c := range []struct {
		name   string
		reach, // how many marks further a reader comes
		gaps int // of each rendition
	}{{"progress", 2, 0}, {"none", 1, live - 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, bucket := testenv.Redis(t), testenv.Bucket(t)
			l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 14))
			want := undisturbed(t, l)
			p := startWorker(t, db, bucket, nil)
			src := startSource(t, l, 13*time.Second)
			src.cut = func(from, mark uint64) bool { return from < live && mark >= from+uint64(c.reach) && mark < live }
			claim := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: 7, Grant: 2}, Live: live, Backfill: 1, Index: true})
			await(t, "all is safe", func() bool { return claim.progress().Safe > live })
			awaitStored(t, bucket, only(want, func(n int) bool { return n > c.gaps }))
			gaps := map[string]int{}
			for _, e := range gapsOf(t, p) {
				gaps[e.Rendition]++
			}
			for _, name := range []string{"source", "audio", "96p30", "64p30"} {
				if gaps[name] != c.gaps {
					t.Errorf("%s has %d gaps, want %d", name, gaps[name], c.gaps)
				}
			}
		})
	}
}

// Ingest says by one connection that the broadcast is over, and by another one
// where: whichever comes first, the end is published.
func TestEndMarkMayComeLate(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 5))
	w := startWorker(t, db, bucket, nil)
	src := startSource(t, l, 5*time.Second)
	src.told = make(chan struct{})
	c := src.offer(db, transcodetest.FirstGrant)
	await(t, "all but the last segment is finished", func() bool { return c.progress().Finished >= 2 })
	c.orders <- jobs.Order{End: "the broadcast is over"}
	close(src.told)
	<-c.over
	await(t, "the work is over", func() bool { return testutil.CollectAndCount(w.metrics.claims) > 0 })
	if n := testutil.ToFloat64(w.metrics.claims.WithLabelValues("complete")); n != 1 {
		t.Error("an end in good order counts as a failure")
	}
	awaitStored(t, bucket, undisturbed(t, l))
	await(t, "the end is in the index", func() bool {
		list, err := db.XRange(t.Context(), index.StreamKey(onAir), "-", "+").Result()
		return err == nil && len(list) > 0 && strings.Contains(fmt.Sprint(list[len(list)-1].Values), string(index.TypeEnd))
	})
}

// The log of an ingest that gave the channel to another one ends at a pause
// mark: the worker stores what was cut, and lets go.
func TestBroadcastMovesToAnotherIngest(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 6))
	want := undisturbed(t, l)
	w := startWorker(t, db, bucket, nil)
	c := startSource(t, l.Until(1, relay.Pause), 0).offer(db, transcodetest.FirstGrant)
	<-c.over
	await(t, "the work is over", func() bool { return testutil.CollectAndCount(w.metrics.claims) > 0 })
	if n := testutil.ToFloat64(w.metrics.claims.WithLabelValues("complete")); n != 1 {
		t.Error("the move counts as a failure")
	}
	if p := c.progress(); p.Finished != 2 || p.Safe != 2 {
		t.Errorf("the worker let go with %+v", p)
	}
	awaitStored(t, bucket, only(want, func(n int) bool { return n < 2 }))
}

// A worker with room has processes ready for what others work on, and takes
// over with them.
func TestTakeoverUsesWarmEncoders(t *testing.T) {
	t.Parallel()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 8))
	p := startWorker(t, db, bucket, nil)
	now, _, err := lease.Acquire(t.Context(), db, "demo", onAir, "http://first", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	settings, video := l.Events[0].Settings, l.Events[1].Codec
	now.Width, now.Height, now.FrameRate, now.Handoff.Settings = 320, 180, 30, *settings
	now.Format, now.Universal, now.Picture = video.Format, video.Universal, video.Picture
	if err := lease.Renew(t.Context(), db, "demo", now); err != nil {
		t.Fatal(err)
	}
	await(t, "two encoders are warm", func() bool { return p.warm.Kept() == 2 })
	src := startSource(t, l, 3*time.Second)
	c := src.offer(db, jobs.Grant{Epoch: jobs.Epoch{Lease: now.Epoch, Grant: 2}, Live: 1, Backfill: 1, Index: true})
	await(t, "the segment is finished", func() bool { return c.progress().Finished >= 2 })
	if n := counter(t, p, "millrace_transcode_encoder_cold_starts_total"); n != 0 {
		t.Errorf("%v encoders were started cold", n)
	}
	await(t, "no encoder is kept for a broadcast of our own", func() bool { return p.warm.Kept() == 0 })
}

// A worker without room doesn't wait for jobs, as those do that have some: Redis
// gives one to whoever waits. What nobody waits for it takes.
func TestJobsGoToWorkersWithRoom(t *testing.T) {
	t.Parallel()
	db := testenv.Redis(t)
	if err := db.XGroupCreateMkStream(t.Context(), jobs.Stream, jobs.Group, "0").Err(); err != nil {
		t.Fatal(err)
	}
	full := &Service{budget: encode.NewBudget(0.01, 0), cfg: Config{Redis: db}}
	const looks = 3
	began := time.Now()
	for range looks {
		if job, err := full.nextJob(t.Context(), "full"); job != nil || err != nil {
			t.Fatalf("%+v, %v", job, err)
		}
	}
	if took := time.Since(began); took < looks*busyPause || took > looks*jobBlock {
		t.Errorf("a worker without room looked for jobs %d times in %s", looks, took)
	}
	if err := db.XAdd(t.Context(), &redis.XAddArgs{Stream: jobs.Stream, Values: map[string]any{jobs.Field: `{"broadcast":"b","ingest":"x"}`}}).Err(); err != nil {
		t.Fatal(err)
	}
	if job, err := full.nextJob(t.Context(), "full"); job == nil || err != nil {
		t.Errorf("a job that nobody else takes isn't taken: %v", err)
	}
}
