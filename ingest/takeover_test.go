package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"millrace/ingest/front"
	"millrace/internal/credentials"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/internal/seal"
	"millrace/internal/testenv"
)

// two are two ingests by one Redis.
func two(t *testing.T, cfg Config) (first, second *station) {
	t.Helper()
	by := testenv.StartRedis(t)
	return newStationBy(t, cfg, by), newStationBy(t, cfg, by)
}

// follows checks that a broadcast goes on behind a mark.
func follows(t *testing.T, m, before relay.Mark) {
	t.Helper()
	if m.Epoch <= before.Epoch || m.Discontinuity != before.Discontinuity+1 || m.Start < before.Start || m.Time.Before(before.Time) {
		t.Errorf("%+v follows %+v", m, before)
	}
}

func (s *station) taken(source string) float64 {
	return testutil.ToFloat64(s.service.metrics.takeovers.WithLabelValues(source))
}

// An encoder that comes back to another ingest goes on with its broadcast,
// which the ingest before lets go in good order.
func TestTakeoverFromAnIngest(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	first, second := two(t, Config{})
	encoder := first.encoder(tags)
	broadcast := first.broadcast()
	reader := first.read(broadcast)
	reader.expect(relay.Open, 1)
	worker := first.claim(broadcast, first.client)
	encoder.close()
	pause := reader.expect(relay.Pause, 2)
	first.until("the reconnecting", func(r lease.Record) bool { return r.State == lease.Reconnecting })

	second.encoder(tags)
	reader.over()
	log := second.readFrom(second.has(broadcast), 2)
	follows(t, log.expect(relay.Open, 2), pause)
	if n := second.taken("ingest"); n != 1 {
		t.Errorf("%v were taken over from an ingest", n)
	}
	second.until("the second ingest", func(r lease.Record) bool {
		return r.Broadcast == broadcast && r.Ingest.String() == second.private && r.State == lease.Live
	})
	if b := first.service.broadcastOf("demo"); b != nil {
		t.Error("the first ingest still has the channel")
	}
	worker.report(jobs.Progress{Finished: 2, Safe: 1})
	if first.service.broadcastByID(broadcast) == nil {
		t.Error("the first ingest gave the log up before it was stored")
	}
	worker.report(jobs.Progress{Finished: 2, Safe: 2})
	if reason := worker.reason(); reason != overMoved {
		t.Errorf("the claim ended since %s", reason)
	}
	// A grant of the second one begins where it does.
	if g := second.claim(broadcast, second.client).grant; g.Live != 2 || g.Backfill != 2 || !g.Index {
		t.Errorf("the grant is %+v", g)
	}
}

// An ingest that was killed keeps nobody away for long, though Redis says that
// it is live.
func TestTakeoverFromAWorker(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	first, second := two(t, Config{})
	first.encoder(tags)
	broadcast := first.broadcast()
	first.read(broadcast).expect(relay.Open, 1)
	was := first.until("the settings", func(r lease.Record) bool {
		return r.Handoff.Settings.TargetDuration != 0 && r.Handoff.Mark.Sequence == 2
	})

	handoff := was.Handoff
	handoff.Mark.Sequence, handoff.Mark.Start = 5, handoff.Mark.Start+media.VideoTimescale
	asked := make(chan string, 1)
	worker := testenv.PrivateServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Path
		_ = json.NewEncoder(w).Encode(handoff)
	}))
	defer worker.Close()
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hang.Close()
	for n, address := range []string{worker.URL, hang.URL} {
		if err := lease.SetSlot(t.Context(), first.db, broadcast, n, jobs.Slot{Address: testenv.Sealed(t, seal.Worker, broadcast, address), Epoch: jobs.Epoch{Lease: was.Epoch, Grant: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	first.kill()
	second.encoder(tags)
	log := second.readFrom(second.has(broadcast), 5)
	follows(t, log.expect(relay.Open, 5), handoff.Mark)
	if got := receive(t, asked, "the worker being asked"); got != "POST /close/"+broadcast {
		t.Errorf("it was asked %s", got)
	}
	if n := second.taken("worker"); n != 1 {
		t.Errorf("%v were taken over from a worker", n)
	}
}

// has waits until this station has the broadcast.
func (s *station) has(id string) string {
	s.t.Helper()
	eventually(s.t, "the broadcast", func() bool { return s.service.broadcastByID(id) != nil })
	return id
}

// Where nobody can be asked, Redis says where to go on.
func TestTakeoverFromRedis(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	first, second := two(t, Config{})
	first.encoder(tags)
	broadcast := first.broadcast()
	first.read(broadcast).expect(relay.Open, 1)
	was := first.until("the newest mark", func(r lease.Record) bool {
		return r.Handoff.Mark.Sequence == 2 && r.Handoff.Settings.TargetDuration != 0
	})
	first.kill()
	second.encoder(tags)
	log := second.readFrom(second.has(broadcast), 2)
	follows(t, log.expect(relay.Open, 2), was.Handoff.Mark)
	if n := second.taken("redis"); n != 1 {
		t.Errorf("%v were taken over from Redis", n)
	}
}

// A publisher whose connection stands, but brings nothing, gives way to one
// that comes to another ingest; when it was not silent, it doesn't.
func TestTakeoverOfSilence(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	first, second := two(t, Config{})
	sleeper := first.encoder(tags)
	broadcast := first.broadcast()
	first.until("the silence", func(r lease.Record) bool {
		return r.State == lease.Reconnecting && r.Silent >= takeoverSilence && !r.Lost.IsZero()
	})
	sleeper.media(tags[len(tags)-4:], 40)
	first.until("the way back", func(r lease.Record) bool { return r.State == lease.Live && r.Lost.IsZero() })
	second.encoder(tags)
	second.readFrom(second.has(broadcast), 2).expect(relay.Open, 3)
	sleeper.expect("through another server")
}

// Two encoders with one key don't evict each other in turns: who came first
// stays, at one ingest and at two.
func TestTwoEncoders(t *testing.T) {
	t.Parallel()
	file, _ := sample(t)
	first, second := two(t, Config{})
	publish := func(ctx context.Context, s *station) chan error {
		ended := make(chan error, 1)
		go func() {
			ended <- exec.CommandContext(ctx, testenv.FFmpeg(t), "-nostdin", "-re", "-stream_loop", "-1", "-i", file,
				"-c", "copy", "-f", "flv", "rtmp://"+s.rtmp+"/live/s3cret").Run()
		}()
		return ended
	}
	ctx, cancel := context.WithCancel(t.Context())
	stays := publish(ctx, first)
	reader := first.read(first.broadcast())
	reader.expect(relay.Open, 0)
	for range 2 {
		for _, s := range []*station{first, second} {
			if err := receive(t, publish(t.Context(), s), "the refusal"); err == nil {
				t.Error("a second encoder was taken")
			}
		}
	}
	for sequence := uint64(1); sequence < 4; sequence++ {
		if m := reader.mark(); m.Kind != relay.Open || m.Discontinuity > 1 { // the file begins anew
			t.Errorf("%+v came", m)
		}
	}
	select {
	case err := <-stays:
		t.Errorf("the first encoder was ended: %v", err)
	default:
	}
	cancel()
	receive(t, stays, "ffmpeg's end")
}

// After a time without Redis the record of a publisher that is sending is old: who
// comes to another ingest meanwhile is refused all the same.
func TestStaleRecordOfALivingIngest(t *testing.T) {
	t.Parallel()
	file, _ := sample(t)
	first, second := two(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- exec.CommandContext(ctx, testenv.FFmpeg(t), "-nostdin", "-re", "-stream_loop", "-1", "-i", file,
			"-c", "copy", "-f", "flv", "rtmp://"+first.rtmp+"/live/s3cret").Run()
	}()
	first.read(first.broadcast()).expect(relay.Open, 1)
	// old makes the record so, until its next renewal.
	old := func() {
		at := time.Now().Add(-2 * busyFor).UnixMilli()
		if err := first.db.HSet(t.Context(), "millrace:channel:{demo}", "state", "live", "seen", at).Err(); err != nil {
			t.Fatal(err)
		}
	}
	demo := credentials.Channel{Name: "demo"}
	second.until("the refusal", func(lease.Record) bool {
		old()
		busy, _ := second.service.elsewhere(t.Context(), demo, false)
		return busy
	})
	if busy, free := first.service.elsewhere(t.Context(), demo, false); busy || free {
		t.Error("an ingest asks itself")
	}
	cancel()
	receive(t, ended, "ffmpeg's end")
	second.until("the way free", func(lease.Record) bool {
		old()
		_, free := second.service.elsewhere(t.Context(), demo, false)
		return free
	})
}

func TestReleaseStatus(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{Grace: 100 * time.Millisecond})
	encoder := s.encoder(tags)
	broadcast := s.broadcast()
	hold := s.claim(broadcast, s.client)
	epoch := s.until("the lease", func(r lease.Record) bool { return r.Epoch != 0 }).Epoch
	status := func(path string) int {
		resp, err := s.client.Post(s.private+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for path, want := range map[string]int{
		relay.ReleasePath("nothing", epoch+1):    http.StatusNotFound,
		relay.ReleasePath(broadcast, epoch):      http.StatusConflict,
		relay.ReleasePath(broadcast, epoch-1):    http.StatusConflict,
		"/release/" + broadcast + "?epoch=later": http.StatusBadRequest,
	} {
		if got := status(path); got != want {
			t.Errorf("%s gave %d, want %d", path, got, want)
		}
	}
	hold.report(jobs.Progress{})
	encoder.close()
	eventually(t, "the end", func() bool { return s.service.broadcastOf("demo") == nil })
	if got := status(relay.ReleasePath(broadcast, epoch+1)); got != http.StatusGone {
		t.Errorf("one that has ended gave %d", got)
	}
}

// An ingest that is asked for its broadcast has published its last word of it
// by the answer, also where it can't learn from Redis who has the channel now.
func TestReleaseFences(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{})
	encoder := s.encoder(tags)
	broadcast := s.broadcast()
	reader := s.read(broadcast)
	reader.expect(relay.Open, 1)
	b := s.service.broadcastByID(broadcast)
	s.redis.Stop()
	resp, err := s.client.Post(s.private+relay.ReleasePath(broadcast, b.epoch+1), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var handoff relay.Handoff
	if err := json.NewDecoder(resp.Body).Decode(&handoff); err != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	if _, err := b.attach(front.Request{End: func(front.Refusal) {}}, credentials.Channel{Name: "demo"}, time.Now(), time.Now()); !errors.Is(err, errEnded) {
		t.Fatalf("another encoder got %v, want %v", err, errEnded)
	}
	pause := reader.expect(relay.Pause, handoff.Mark.Sequence)
	if handoff.Mark.Start < pause.Start || handoff.Mark.Time.Before(pause.Time) {
		t.Errorf("the log ends with %+v, another ingest goes on from %+v", pause, handoff.Mark)
	}
	reader.over()
	encoder.expect("through another server")
	if list := b.holders(); len(list) != 0 {
		t.Errorf("edges would be told of %v", list)
	}
}

// An ingest that nobody could ask learns from Redis that it lost the channel,
// and publishes no more.
func TestLostLeaseFences(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	for name, c := range map[string]struct {
		broadcast string // that the other ingest has; empty: the same
		last      relay.MarkKind
		told      string
	}{
		"the same broadcast": {"", relay.Pause, "through another server"},
		"another broadcast":  {"fresh", relay.End, "another ingest began another broadcast"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStation(t, Config{})
			encoder := s.encoder(tags)
			broadcast := s.broadcast()
			reader := s.read(broadcast)
			reader.expect(relay.Open, 1)
			s.until("the record", func(r lease.Record) bool { return r.Handoff.Mark.Sequence == 2 })
			other := []any{"epoch", s.service.broadcastByID(broadcast).epoch + 1, "ingest", "http://elsewhere", "broadcast", cmp.Or(c.broadcast, broadcast)}
			if err := s.db.HSet(t.Context(), "millrace:channel:{demo}", other...).Err(); err != nil {
				t.Fatal(err)
			}
			encoder.expect(c.told)
			reader.expect(c.last, 2)
			reader.over()
			if r := s.until("the other's record", func(lease.Record) bool { return true }); r.Ingest.String() != "http://elsewhere" {
				t.Errorf("the record was overwritten: %+v", r)
			}
		})
	}
}

// A worker that knows less than Redis takes no broadcast back.
func TestHandoffIsNotBelowWhatRedisKnows(t *testing.T) {
	t.Parallel()
	s := newStation(t, Config{})
	began := time.Unix(1_800_000_000, 0).UTC()
	floor := relay.Handoff{
		Settings: relay.Settings{TargetDuration: 4, PartTarget: 33000, Video: true},
		Mark:     relay.Mark{Kind: relay.Pause, Sequence: 5, Discontinuity: 2, DecodeFrom: 5, Start: 900_000, Time: began.Add(10 * time.Second)},
	}
	worker := testenv.PrivateServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(relay.Handoff{Mark: relay.Mark{Kind: relay.Pause, Sequence: 5, DecodeFrom: 5, Start: 800_000, Discontinuity: 1, Time: began}})
	}))
	defer worker.Close()
	if err := lease.SetSlot(t.Context(), s.db, "b", 0, jobs.Slot{Address: testenv.Sealed(t, seal.Worker, "b", worker.URL), Epoch: jobs.Epoch{Lease: 1, Grant: 1}}); err != nil {
		t.Fatal(err)
	}
	got, err := s.service.handoff(t.Context(), "demo", lease.Record{Broadcast: "b", Epoch: 1, Ingest: s.service.self("demo"), State: lease.Live, Handoff: floor}, 2)
	if err != nil || got != floor {
		t.Errorf("it goes on from %+v, %v; want %+v", got, err, floor)
	}
	if n := s.taken("worker"); n != 1 {
		t.Errorf("%v were taken over from a worker", n)
	}
}

// An ingest that stops takes no more publishers, leaves those that are there
// their time, pauses, and waits for the worker.
func TestServiceDrain(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{Drain: 500 * time.Millisecond})
	encoder := s.encoder(tags)
	broadcast := s.broadcast()
	reader := s.read(broadcast)
	reader.expect(relay.Open, 1)
	worker := s.claim(broadcast, s.client)
	s.stop()
	began := time.Now()
	eventually(t, "the closed door", func() bool {
		_, err := s.service.Publish(t.Context(), front.Request{Key: "s3cret"})
		return err == refusalBusy || err == refusalStopping
	})
	encoder.media(tags[len(tags)-4:], 40)
	reader.expect(relay.Pause, 2)
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("the drain was %v", took)
	}
	r := s.until("the reconnecting", func(r lease.Record) bool { return r.State == lease.Reconnecting })
	if r.Lost.IsZero() || r.Handoff.Mark.Sequence != 2 {
		t.Errorf("the record is %+v", r)
	}
	worker.report(jobs.Progress{Finished: 2, Safe: 1})
	if s.service.broadcastByID(broadcast) == nil {
		t.Error("it didn't wait for the worker")
	}
	worker.report(jobs.Progress{Finished: 2, Safe: 2})
	if worker.lines.Scan() {
		t.Errorf("the worker was told %s", worker.lines.Text())
	}
	eventually(t, "the end", func() bool { return s.service.broadcastByID(broadcast) == nil })
}
