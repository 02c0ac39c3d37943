package ingest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/ingest/front"
	"millrace/internal/credentials"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/media"
	"millrace/internal/private"
	"millrace/internal/relay"
	"millrace/internal/testenv"
)

// station is an ingest with all that it needs. Its channel is "demo", the key "s3cret".
type station struct {
	t       *testing.T
	service *Service
	redis   *testenv.RedisServer
	db      redis.UniversalClient
	rtmp    string // address
	private string // base URL
	client  *http.Client
	job     string // the last one seen
	kill    func() // it answers nobody any more and renews nothing
	stop    func() // as SIGTERM
}

// newStation runs an ingest until the test's end, when nothing of it may be left.
func newStation(t *testing.T, cfg Config) *station {
	t.Helper()
	return newStationBy(t, cfg, testenv.StartRedis(t))
}

// newStationBy is the same by a Redis that other stations have too.
func newStationBy(t *testing.T, cfg Config, by *testenv.RedisServer) *station {
	t.Helper()
	s := &station{t: t, redis: by, job: "0"}
	s.db = s.redis.Client()
	key := credentials.StreamKey("s3cret")
	if err := credentials.Replace(t.Context(), s.db, []credentials.Channel{{Name: "demo", KeyHash: key.Hash()}}); err != nil {
		t.Fatal(err)
	}
	var err error
	if cfg.RTMP, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.rtmp, s.private = cfg.RTMP.Addr().String(), "http://"+l.Addr().String()
	logged := &logBuffer{}
	cfg.Redis, cfg.Advertise, cfg.Registerer = s.redis.Client(), s.private, prometheus.NewRegistry()
	cfg.Log = slog.New(slog.NewTextHandler(logged, nil))
	if s.service, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s.service.Private(mux)
	server := private.NewServer(mux)
	transport := private.NewTransport(true)
	s.client = &http.Client{Transport: transport}
	ctx, cancel := context.WithCancel(context.Background())
	ended, served := make(chan error, 1), make(chan error, 1)
	s.stop = cancel
	s.kill = func() {
		_ = server.Close()
		_ = cfg.Redis.Close()
	}
	go func() { served <- server.Serve(l) }()
	go func() { ended <- s.service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, ended, "Run's end"); err != nil {
			t.Errorf("Run: %v", err)
		}
		transport.CloseIdleConnections()
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		receive(t, served, "Serve's end")
		if t.Failed() {
			t.Logf("the log:\n%s", logged)
		}
	})
	eventually(t, "the service", func() bool { // an encoder can't come before it runs
		s.service.mu.Lock()
		defer s.service.mu.Unlock()
		return s.service.ctx != nil
	})
	return s
}

// broadcast waits for the next offer of a job, and returns its broadcast.
func (s *station) broadcast() string {
	s.t.Helper()
	streams, err := s.db.XRead(s.t.Context(), &redis.XReadArgs{Streams: []string{jobs.Stream, s.job}, Count: 1, Block: patience}).Result()
	if err != nil {
		s.t.Fatalf("no job was offered: %v", err)
	}
	m := streams[0].Messages[0]
	s.job = m.ID
	var job jobs.Job
	if err := json.Unmarshal([]byte(m.Values[jobs.Field].(string)), &job); err != nil {
		s.t.Fatal(err)
	}
	if job.Channel != "demo" || job.Slot != 0 || job.Ingest != s.private {
		s.t.Errorf("the job is %+v", job)
	}
	return job.Broadcast
}

// skipOffers forgets the offers that were made so far.
func (s *station) skipOffers() {
	s.t.Helper()
	newest, err := s.db.XRevRangeN(s.t.Context(), jobs.Stream, "+", "-", 1).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	s.job = newest[0].ID
}

// until waits for what Redis says of the channel.
func (s *station) until(what string, true func(lease.Record) bool) (r lease.Record) {
	s.t.Helper()
	eventually(s.t, what, func() bool {
		var err error
		if r, err = lease.Read(s.t.Context(), s.db, "demo"); err != nil && !errors.Is(err, lease.ErrNone) {
			s.t.Fatal(err)
		}
		return true(r)
	})
	return r
}

// eventually waits for what only asking again can tell.
func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !true(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s didn't come", what)
		}
	}
}

func (s *station) get(path string) *http.Response {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.private+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// relayReader reads a broadcast's log.
type relayReader struct {
	t    *testing.T
	r    *bufio.Reader
	tags map[byte]int // read so far, by type
}

func (s *station) read(broadcast string) *relayReader {
	s.t.Helper()
	return s.readFrom(broadcast, 0)
}

func (s *station) readFrom(broadcast string, from uint64) *relayReader {
	s.t.Helper()
	resp := s.get(relay.Path(broadcast, from))
	r := bufio.NewReader(resp.Body)
	if err := media.ReadFLVHeader(r); err != nil || resp.Header.Get("Content-Type") != relay.ContentType {
		s.t.Fatalf("%s, %v: %v", resp.Status, resp.Header, err)
	}
	return &relayReader{s.t, r, map[byte]int{}}
}

// mark reads up to the next mark and returns it.
func (r *relayReader) mark() relay.Mark {
	r.t.Helper()
	for {
		tag, err := media.ReadTag(r.r)
		if err != nil {
			r.t.Fatalf("no mark came: %v", err)
		}
		r.tags[tag.Type]++
		if tag.Type != media.TagScript {
			continue
		}
		m, _, err := relay.ParseScript(tag.Payload)
		if err != nil {
			r.t.Fatal(err)
		}
		if m != nil {
			return *m
		}
	}
}

// expect reads marks up to one of this kind and sequence.
func (r *relayReader) expect(kind relay.MarkKind, sequence uint64) relay.Mark {
	r.t.Helper()
	for {
		if m := r.mark(); m.Kind == kind && m.Sequence == sequence {
			return m
		} else if m.Kind == relay.End || m.Sequence > sequence {
			r.t.Fatalf("%+v came instead of %s %d", m, kind, sequence)
		}
	}
}

// hold is a worker's claim.
type hold struct {
	t      *testing.T
	status int
	grant  jobs.Grant
	up     *io.PipeWriter
	lines  *bufio.Scanner
}

func (s *station) claim(broadcast string, client *http.Client) *hold {
	s.t.Helper()
	return s.claimSlot(broadcast, client, 0, "http://127.0.0.1:7")
}

func (s *station) claimSlot(broadcast string, client *http.Client, slot int, address string) *hold {
	s.t.Helper()
	body, up := io.Pipe()
	s.t.Cleanup(func() { up.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.private+jobs.ClaimPath(broadcast, slot), body)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set(jobs.AddressHeader, address)
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	h := &hold{t: s.t, status: resp.StatusCode, up: up, lines: bufio.NewScanner(resp.Body)}
	if h.status == http.StatusOK {
		if !h.lines.Scan() || json.Unmarshal(h.lines.Bytes(), &h.grant) != nil {
			s.t.Fatalf("the grant is %q, %v", h.lines.Text(), h.lines.Err())
		}
	}
	return h
}

func (h *hold) report(p jobs.Progress) {
	h.t.Helper()
	line, err := json.Marshal(p)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.up.Write(append(line, '\n')); err != nil {
		h.t.Fatal(err)
	}
}

// reason waits for the claim's end.
func (h *hold) reason() string {
	h.t.Helper()
	var end jobs.Order
	if !h.lines.Scan() || json.Unmarshal(h.lines.Bytes(), &end) != nil || h.lines.Scan() || h.lines.Err() != nil {
		h.t.Errorf("the claim ended with %q, %v", h.lines.Text(), h.lines.Err())
	}
	return end.End
}

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
	probe := exec.CommandContext(t.Context(), testenv.FFprobe(t), "-v", "error", "-count_packets",
		"-show_entries", "stream=codec_name,nb_read_packets", "-of", "compact=p=0", s.private+relay.Path(broadcast, 0))
	streams, err := probe.Output()
	if err != nil {
		t.Fatalf("ffprobe: %v", err)
	}
	for _, want := range []string{"codec_name=h264|nb_read_packets=90", "codec_name=aac|nb_read_packets=14"} {
		if !strings.Contains(string(streams), want) {
			t.Errorf("ffprobe found %q, want %q", streams, want)
		}
	}
	if m := reader.expect(relay.Open, 1); !m.Independent() {
		t.Errorf("%+v isn't independent", m)
	}
	reader.expect(relay.Pause, 2)
	if m := reader.mark(); m.Kind != relay.End || m.Sequence != 2 {
		t.Errorf("the end is %+v", m)
	}
	if n := reader.tags[media.TagVideo]; n != 91 { // with the configuration
		t.Errorf("%d video tags", n)
	}
	if _, err := media.ReadTag(reader.r); !errors.Is(err, io.EOF) {
		t.Errorf("after the end came %v", err)
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
		return slots[0] == jobs.Slot{Address: "http://127.0.0.1:7", Epoch: second.grant.Epoch}
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
	old := private.NewTransport(false)
	defer old.CloseIdleConnections()
	s := newStation(t, Config{})
	s.encoder(tags)
	broadcast := s.broadcast()
	for _, client := range []*http.Client{s.client, {Transport: old}} {
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
	if err := credentials.Replace(t.Context(), s.db, []credentials.Channel{channel}); err != nil {
		t.Fatal(err)
	}
	encoder := s.encoder(tags)
	reader := s.read(s.broadcast())
	reader.expect(relay.Open, 1)
	encoder.unpublish()
	reader.expect(relay.Pause, 2)
	paused := time.Now()
	r := s.until("the reconnecting", func(r lease.Record) bool { return r.State == lease.Reconnecting })
	if r.Grace != time.Second || r.Lost.IsZero() || r.Carry.Mark.Sequence != 2 || r.Carry.Settings.TargetDuration == 0 {
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
		relay.Path("nothing", 0):                http.StatusNotFound,
		"/relay/" + broadcast:                   http.StatusNotFound,
		"/relay/" + broadcast + ".flv?from=one": http.StatusBadRequest,
		"/relay/" + broadcast + ".flv?from=-1":  http.StatusBadRequest,
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
		{Config{}, "Redis, an RTMP listener and an address"},
		{Config{Redis: db, RTMP: l, Advertise: "http://x", Grace: -1}, "set --grace to more than 0"},
		{Config{Redis: db, RTMP: l, Advertise: "http://x", Redundancy: 3}, "set --redundancy to 1 or 2"},
		{Config{Redis: db, RTMP: l, Advertise: "http://x", Drain: -1}, "set --drain to 0 or more"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
