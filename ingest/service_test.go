package ingest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/ingest/front"
	"millrace/internal/credentials"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/internal/seal"
	"millrace/internal/testenv"
)

// What ffmpeg publishes, ffprobe reads off the relay.
func TestServiceRelaysToFFprobe(t *testing.T) {
	t.Parallel()
	file, _ := sample(t)
	s := newStation(t, Config{Grace: time.Second})
	published := make(chan struct{})
	go func() {
		defer close(published)
		_, _ = run(t, testenv.FFmpeg(t), "-nostdin", "-re", "-i", file, "-c", "copy", "-f", "flv", "rtmp://"+s.rtmp+"/live/s3cret")
	}()
	broadcast := s.broadcast()
	reader := s.read(broadcast)
	reader.expect(relay.Open, 0)
	record := s.until("the picture's size", func(r lease.Record) bool { return r.Width > 0 && r.FrameRate > 0 })
	if record.Broadcast != broadcast || record.Width != 320 || record.Height != 180 || record.FrameRate != 30 || record.State != lease.Live {
		t.Errorf("the lease is %+v", record)
	}
	if m := reader.expect(relay.Open, 1); !m.Independent() {
		t.Errorf("%+v isn't independent", m)
	}
	reader.expect(relay.Pause, 2)
	if m := reader.mark(); m.Kind != relay.End || m.Sequence != 2 {
		t.Errorf("the end is %+v", m)
	}
	reader.over()
	for track, want := range map[media.Kind]string{
		media.Video: "codec_name=h264|nb_read_packets=90", media.Audio: "codec_name=aac|nb_read_packets=14",
	} {
		if found := reader.probe(track); !strings.Contains(found, want) {
			t.Errorf("ffprobe found %q, want %q", found, want)
		}
	}
	receive(t, published, "ffmpeg's end")
	s.until("the end", func(r lease.Record) bool { return r.State == lease.Ended })
	if live, err := lease.Channels(t.Context(), s.db); err != nil || len(live) != 0 {
		t.Errorf("live channels are %q, %v", live, err)
	}
}

func TestServiceClaims(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{Grace: time.Second})
	encoder := s.encoder(tags) // segments 0 and 1
	broadcast := s.broadcast()
	s.read(broadcast).expect(relay.Open, 1)

	first := s.claim(broadcast, s.client)
	if g := first.grant; g.Epoch.Grant != 1 || g.Epoch.Lease == 0 || g.Live != 0 || g.Backfill != 0 || g.Index {
		t.Errorf("the first grant is %+v", g)
	}
	if second := s.claim(broadcast, s.client); second.status != http.StatusConflict {
		t.Errorf("a second claim gave %d", second.status)
	}
	if none := s.claim("nothing", s.client); none.status != http.StatusNotFound {
		t.Errorf("another broadcast gave %d", none.status)
	}
	first.report(jobs.Progress{Consumed: 9, Finished: 99, Safe: 1}) // no more than there are
	first.report(jobs.Progress{Consumed: 9, Finished: 1, Safe: 0})  // numbers never go back
	s.skipOffers()
	first.up.Close()
	s.broadcast()

	second := s.claim(broadcast, s.client)
	if g := second.grant; g.Epoch.Grant != 2 || !first.grant.Epoch.Less(g.Epoch) || g.Live != 2 || g.Backfill != 1 || !g.Index {
		t.Errorf("the second grant is %+v", g)
	}
	eventually(t, "the slot's worker", func() bool {
		slots, err := lease.Slots(t.Context(), s.db, broadcast)
		if err != nil {
			t.Fatal(err)
		}
		return slots[0] == jobs.Slot{Address: testenv.Sealed(t, seal.Worker, broadcast, "http://127.0.0.1:7"), Epoch: second.grant.Epoch}
	})
	second.report(jobs.Progress{Finished: 2, Safe: 2})
	encoder.unpublish()
	if reason := second.reason(); reason != "the broadcast is over" {
		t.Errorf("the claim ended since %s", reason)
	}
	if gone := s.claim(broadcast, s.client); gone.status != http.StatusNotFound {
		t.Errorf("a claim after the end gave %d", gone.status)
	}
}

// A worker that says nothing loses its claim, and another one is looked for.
// The claim ends over HTTP/1.1 as well, though the worker keeps its side open.
func TestServiceSilentClaim(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	old := testenv.PrivateClient(t) // it speaks HTTP/1.1
	s := newStation(t, Config{})
	s.encoder(tags)
	broadcast := s.broadcast()
	for _, client := range []*http.Client{s.client, old} {
		h := s.claim(broadcast, client)
		began := time.Now()
		s.skipOffers()
		if reason := h.reason(); reason != "no progress for 1.5s" {
			t.Errorf("the claim ended since %s", reason)
		}
		if took := time.Since(began); took < claimSilence || took > claimSilence+2*time.Second {
			t.Errorf("it took %v", took)
		}
		s.broadcast()
	}
}

// An encoder whose connection breaks has time to come back to its broadcast;
// then that ends.
func TestServiceGrace(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{Grace: 2 * time.Second})
	encoder := s.encoder(tags)
	broadcast := s.broadcast()
	reader := s.read(broadcast)
	reader.expect(relay.Open, 1)
	encoder.close()
	pause := reader.expect(relay.Pause, 2)
	s.until("the reconnecting", func(r lease.Record) bool { return r.State == lease.Reconnecting })

	encoder = s.encoder(tags)
	again := reader.expect(relay.Open, 2)
	if again.Discontinuity != pause.Discontinuity+1 || again.Start < pause.Start || again.Time.Before(pause.Time) {
		t.Errorf("%+v follows %+v", again, pause)
	}
	s.until("the way back", func(r lease.Record) bool { return r.State == lease.Live && r.Broadcast == broadcast })
	reader.expect(relay.Open, 3)
	encoder.close()
	reader.expect(relay.Pause, 4)
	lost := time.Now()
	reader.expect(relay.End, 4)
	if took := time.Since(lost); took < time.Second || took > 4*time.Second {
		t.Errorf("the grace period was %v", took)
	}
	s.until("the end", func(r lease.Record) bool { return r.State == lease.Ended })
	s.skipOffers()
	s.encoder(tags)
	for next := s.broadcast(); next == broadcast; next = s.broadcast() {
		continue // it is still offered until its log is given up
	}
}

// An encoder that says that it is done has the same time to come back: people
// stop and start again to change a setting. A channel may have its own.
func TestServiceCleanStop(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{Grace: time.Hour})
	key := credentials.StreamKey("s3cret")
	channel := credentials.Channel{Name: "demo", KeyHash: key.Hash(), Grace: time.Second}
	if err := credentials.Replace(t.Context(), s.db, credentials.Catalogue{Version: 2, Channels: []credentials.Channel{channel}}); err != nil {
		t.Fatal(err)
	}
	encoder := s.encoder(tags)
	reader := s.read(s.broadcast())
	reader.expect(relay.Open, 1)
	encoder.unpublish()
	reader.expect(relay.Pause, 2)
	paused := time.Now()
	r := s.until("the reconnecting", func(r lease.Record) bool { return r.State == lease.Reconnecting })
	if r.Grace != time.Second || r.Lost.IsZero() || r.Handoff.Mark.Sequence != 2 || r.Handoff.Settings.TargetDuration == 0 {
		t.Errorf("the record is %+v", r)
	}
	if m := reader.mark(); m.Kind != relay.End || m.Sequence != 2 {
		t.Errorf("%+v came instead of the end", m)
	}
	if took := time.Since(paused); took < time.Second/2 {
		t.Errorf("the grace period was %v", took)
	}
	s.until("the end", func(r lease.Record) bool { return r.State == lease.Ended })
}

// Who can't publish is told why.
func TestServiceRefusals(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{})
	encoder := s.encoder(tags)
	ctx, cancel := context.WithCancel(t.Context())
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		frame := time.NewTicker(40 * time.Millisecond)
		defer frame.Stop()
		for i := media.Ticks(1); ctx.Err() == nil; i++ {
			encoder.media(tags[len(tags)-2:], i*40)
			select {
			case <-frame.C:
			case <-ctx.Done():
			}
		}
	}()
	defer func() { cancel(); <-sending }()
	for _, c := range []struct{ key, text string }{
		{"other", "The stream key is wrong"},
		{"s3cret", "Somebody is publishing with this stream key already"},
	} {
		var r *front.Refusal
		if _, err := s.dial(c.key); !errors.As(err, &r) || !strings.Contains(r.Text, c.text) {
			t.Errorf("key %s: %v, want %q", c.key, err, c.text)
		}
	}
}

// While Redis is away, who publishes goes on publishing, and who reads reading.
func TestServiceWithoutRedis(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{})
	encoder := s.encoder(tags)
	broadcast := s.broadcast()
	reader := s.read(broadcast)
	reader.expect(relay.Open, 1)
	s.redis.Stop()
	for i := range media.Ticks(5) {
		encoder.media(tags, (i+1)*3000)
	}
	reader.expect(relay.Open, 8)
	late := s.read(broadcast) // reading needs no Redis either
	late.expect(relay.Open, 8)
	h := s.claim(broadcast, s.client) // nor does a claim
	h.report(jobs.Progress{Finished: 1})

	s.redis.Start() // it has lost everything
	s.until("the lease", func(r lease.Record) bool { return r.Broadcast == broadcast && r.State == lease.Live })
	h.up.Close()
	s.job = "0"
	if s.broadcast() != broadcast {
		t.Error("another broadcast is offered")
	}
}

// lookups tells of those of stream keys that failed.
type lookups struct{ failed chan struct{} }

func (l *lookups) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *lookups) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *lookups) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if err != nil && cmd.Name() == "hget" {
			select {
			case l.failed <- struct{}{}:
			default:
			}
		}
		return err
	}
}

// An encoder that comes while Redis is away waits for it, but not for long.
func TestPublisherWaitsForRedis(t *testing.T) {
	t.Parallel()
	s := newStationBy(t, Config{}, testenv.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always"))
	s.redis.Stop()
	inVain := &lookups{failed: make(chan struct{}, 1)}
	s.service.cfg.Redis.AddHook(inVain)
	dialled := make(chan error, 1)
	go func() {
		_, err := s.dial("s3cret")
		dialled <- err
	}()
	for range 3 {
		receive(t, inVain.failed, "a look-up in vain")
	}
	s.redis.Start()
	if err := receive(t, dialled, "the answer"); err != nil {
		t.Error(err)
	}
	s.redis.Stop()
	var r *front.Refusal
	if _, err := s.dial("s3cret"); err == nil || errors.As(err, &r) {
		t.Errorf("without Redis it was told %v", err) // a fault of ours
	}
}

func TestServiceRelayStatus(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{LogBytes: 100_000}) // less than a segment
	s.encoder(tags)
	broadcast := s.broadcast()
	for path, want := range map[string]int{
		relay.Path("nothing", 0):            http.StatusNotFound,
		"/relay/" + broadcast + ".flv":      http.StatusNotFound,
		"/relay/" + broadcast + "?from=one": http.StatusBadRequest,
		"/relay/" + broadcast + "?from=-1":  http.StatusBadRequest,
	} {
		if resp := s.get(path); resp.StatusCode != want {
			t.Errorf("%s gave %s", path, resp.Status)
		}
	}
	var resp *http.Response
	eventually(t, "410 Gone", func() bool {
		resp = s.get(relay.Path(broadcast, 0))
		return resp.StatusCode == http.StatusGone
	})
	if oldest := resp.Header.Get(relay.OldestHeader); oldest == "" || oldest == "0" {
		t.Errorf("the oldest segment is %q", oldest)
	}
}

// Two encoders that come at the same time get one broadcast, and one of them it.
func TestServiceTwoAtOnce(t *testing.T) {
	t.Parallel()
	s := newStation(t, Config{})
	results := make(chan error, 8)
	for range cap(results) {
		go func() {
			p, err := s.service.Publish(t.Context(), front.Request{Key: "s3cret", End: func(front.Refusal) {}})
			results <- err
			frame := time.NewTicker(20 * time.Millisecond)
			defer frame.Stop()
			for err == nil && t.Context().Err() == nil {
				err = p.Write(media.Unit{Track: media.Audio, Payload: []byte{0x21}})
				select {
				case <-frame.C:
				case <-t.Context().Done():
				}
			}
		}()
	}
	taken := 0
	for range cap(results) {
		switch err := receive(t, results, "a decision"); {
		case err == nil:
			taken++
		case !errors.Is(err, refusalBusy):
			t.Error(err)
		}
	}
	if n := len(s.service.all()); taken != 1 || n != 1 {
		t.Errorf("%d were taken, there are %d broadcasts", taken, n)
	}
	broadcast := s.broadcast()
	s.skipOffers()
	s.broadcast() // a second later it is still there
	if b := s.service.broadcastOf("demo"); b == nil || b.id != broadcast {
		t.Error("the broadcast has ended")
	}
}

func TestConfig(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	db := redis.NewClient(&redis.Options{})
	defer db.Close()
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "Redis, an RTMP listener and peers with an address"},
		{Config{Redis: db, RTMP: l, Peers: testenv.Peers(t, "http://x"), Grace: -1}, "set --grace to more than 0"},
		{Config{Redis: db, RTMP: l, Peers: testenv.Peers(t, "http://x"), Redundancy: 3}, "set --redundancy to 1 or 2"},
		{Config{Redis: db, RTMP: l, Peers: testenv.Peers(t, "http://x"), Drain: -1}, "set --drain to 0 or more"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
