package ingest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/internal/credentials"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/media"
	"millrace/internal/private"
	"millrace/internal/relay"
	"millrace/internal/seal"
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
	if err := credentials.Replace(t.Context(), s.db, catalogue(1, key)); err != nil {
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
	if cfg.Peers, cfg.Registerer = testenv.Peers(t, s.private), prometheus.NewRegistry(); cfg.Redis == nil {
		cfg.Redis = s.redis.Client()
	}
	cfg.Log = slog.New(slog.NewTextHandler(logged, nil))
	if s.service, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s.service.Private(mux)
	server := private.NewServer(cfg.Peers.Guard(mux))
	s.client = testenv.Peers(t, "").ClaimClient()
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
		s.client.CloseIdleConnections()
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
	if job.Channel != "demo" || job.Slot != 0 || job.Ingest != s.service.self("demo") || job.Ingest.String() != s.private {
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
	log  *relay.Reader
	read []relay.Entry
}

func (s *station) read(broadcast string) *relayReader {
	s.t.Helper()
	return s.readFrom(broadcast, 0)
}

func (s *station) readFrom(broadcast string, from uint64) *relayReader {
	s.t.Helper()
	resp := s.get(relay.Path(broadcast, from))
	log, err := relay.NewReader(resp.Body)
	if err != nil || resp.Header.Get("Content-Type") != relay.ContentType {
		s.t.Fatalf("%s, %v: %v", resp.Status, resp.Header, err)
	}
	return &relayReader{t: s.t, log: log}
}

// mark reads up to the next mark and returns it.
func (r *relayReader) mark() relay.Mark {
	r.t.Helper()
	for {
		e, err := r.log.Next()
		if err != nil {
			r.t.Fatalf("no mark came: %v", err)
		}
		if r.read = append(r.read, e); e.Mark != nil {
			return *e.Mark
		}
	}
}

// probe has ffprobe count what was read of a track, as fragmented MP4.
func (r *relayReader) probe(track media.Kind) string {
	r.t.Helper()
	var b []byte
	var scale int
	for n, e := range r.read {
		if e.Codec != nil && e.Codec.Kind() == track {
			init, err := e.Codec.Init()
			if err != nil {
				r.t.Fatal(err)
			}
			b, scale = append(b, init.Data...), e.Codec.Timescale()
		}
		if u := e.Unit; u != nil && u.Track == track {
			f := media.Fragment{Number: uint32(n), DecodeTime: uint64(media.SamplesOf(u.DTS, scale)), Samples: []media.Sample{{
				Duration: 1, CompositionOffset: int32(u.PTS - u.DTS), Sync: u.RandomAccess, Payload: u.Payload,
			}}}
			b = f.Append(b)
		}
	}
	cmd := exec.CommandContext(r.t.Context(), testenv.FFprobe(r.t), "-v", "error", "-count_packets",
		"-show_entries", "stream=codec_name,nb_read_packets", "-of", "compact=p=0", "-")
	cmd.Stdin = bytes.NewReader(b)
	found, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("ffprobe: %v", err)
	}
	return string(found)
}

// over checks that nothing follows in good order.
func (r *relayReader) over() {
	r.t.Helper()
	if e, err := r.log.Next(); !errors.Is(err, io.EOF) {
		r.t.Errorf("the log goes on: %+v, %v", e, err)
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
	return s.claimAs(broadcast, client, slot, testenv.Sealed(s.t, seal.Worker, broadcast, address))
}

func (s *station) claimAs(broadcast string, client *http.Client, slot int, address seal.Address) *hold {
	s.t.Helper()
	body, up := io.Pipe()
	s.t.Cleanup(func() { up.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.private+jobs.ClaimPath(broadcast, slot), body)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set(jobs.AddressHeader, string(address))
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
