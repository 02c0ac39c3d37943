package rtmp

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"millrace/ingest/front"
	"millrace/internal/media"
)

const patience = 20 * time.Second // for what must happen

// stage is the rest of ingest, as the RTMP front sees it.
type stage struct {
	refusal   func(front.Request) error // nil: all are taken
	onPicture func(n int) error         // says what the n-th picture of a publication brings
	taken     chan *performance
}

type performance struct {
	request   front.Request
	onPicture func(n int) error
	ended     chan bool // gives what end was told

	// written by the connection's goroutine before it sends to ended
	rates    []float64 // that were claimed
	configs  []*media.Codec
	units    []media.Unit
	pictures int
	further  int // times that further tracks were told of
	faults   []front.Fault
	without  []string // why there is no sound
}

func (s *stage) Publish(_ context.Context, r front.Request) (front.Publication, error) {
	if s.refusal != nil {
		if err := s.refusal(r); err != nil {
			return nil, err
		}
	}
	p := &performance{request: r, onPicture: s.onPicture, ended: make(chan bool, 1)}
	s.taken <- p
	return p, nil
}

func (p *performance) Config(c *media.Codec) error {
	p.configs = append(p.configs, c)
	return nil
}

func (p *performance) Write(u media.Unit) error {
	p.units = append(p.units, u)
	if u.Track != media.Video {
		return nil
	}
	if p.pictures++; p.onPicture != nil {
		return p.onPicture(p.pictures)
	}
	return nil
}

func (p *performance) FrameRate(claimed float64) { p.rates = append(p.rates, claimed) }

func (p *performance) FurtherTracks() { p.further++ }

func (p *performance) Fault(f front.Fault) { p.faults = append(p.faults, f) }

func (p *performance) LeaveOut(why *front.Refusal) {
	p.without = append(p.without, why.Text)
}

func (p *performance) Pace() time.Duration { return 0 }

func (p *performance) End(clean bool) { p.ended <- clean }

// of returns the units of a track.
func (p *performance) of(track media.Kind) (all []media.Unit) {
	for _, u := range p.units {
		if u.Track == track {
			all = append(all, u)
		}
	}
	return all
}

// codecs returns the names of the configurations, in order.
func (p *performance) codecs() (names []string) {
	for _, c := range p.configs {
		names = append(names, c.Name)
	}
	return names
}

// rtmpFront is a server that a test runs.
type rtmpFront struct {
	*stage
	server   *Server
	address  string
	log      *logBuffer
	registry *prometheus.Registry
	stop     func() error // ends the server, and gives what Serve said
}

// serveRTMP serves on l, by default on a TCP port, until the test's end.
func serveRTMP(t *testing.T, s *stage, cfg Config, l net.Listener) *rtmpFront {
	t.Helper()
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	s.taken = make(chan *performance, 10)
	f := &rtmpFront{stage: s, address: l.Addr().String(), log: &logBuffer{}, registry: prometheus.NewRegistry()}
	cfg.Publishers, cfg.Metrics = s, f.registry
	cfg.Log = slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.server = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.server.Serve(ctx, l) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if n := f.metric(t, "millrace_ingest_connections", ""); n != 0 {
			t.Errorf("%v connections are left", n)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", f.log)
		}
	})
	return f
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// awaitLog waits until the server's log contains text.
func (f *rtmpFront) awaitLog(t *testing.T, text string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !strings.Contains(f.log.String(), text) {
		select {
		case <-limit:
			t.Fatalf("the log doesn't say %q", text)
		case <-time.After(time.Millisecond): // polls
		}
	}
}

// metric gives the value of a gauge or counter, of the one with the given reason if any.
func (f *rtmpFront) metric(t *testing.T, name, reason string) float64 {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() != name || reason != "" && !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == reason }) {
				continue
			}
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return 0
}

// receive gives what comes on c.
func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s didn't come", what)
		panic("unreachable")
	}
}
