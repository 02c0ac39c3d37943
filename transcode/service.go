// Package transcode makes the renditions of broadcasts from their logs: it
// takes jobs, repackages the source, has FFmpeg encode the lower rungs, cuts
// everything into CMAF segments and parts, serves the newest media and what
// exists to edges, and stores whole segments in S3.
package transcode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"millrace/internal/objects"
	"millrace/internal/private"
	"millrace/transcode/encode"
	"millrace/transcode/storage"
)

// presets are x264's, from quick to thorough.
var presets = []string{"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"}

// Config is what transcode needs. A zero value takes the default named beside it.
type Config struct {
	Redis  redis.UniversalClient
	Bucket *objects.Bucket
	// Peers are the other services. They reach Private at the address that it advertises.
	Peers *private.Peers
	// FFmpeg is the program's path; "ffmpeg".
	FFmpeg string
	// Ladder names the rungs, such as "480p30=1400k,160p30=230k"; by the
	// source's size. "none" makes none but that of a source that isn't H.264, which is
	// as large as the source.
	Ladder string
	// Preset is x264's; "veryfast".
	Preset string
	// EncodeCores bounds the CPU cores that rungs take, by estimate; all.
	EncodeCores float64
	// EncodeMemory bounds the memory that rungs take, by estimate, in bytes; 0: three
	// quarters of what there is.
	EncodeMemory int64
	// Tolerance multiplies what the encoders are given of time, as encode.Config says; 0: 1.
	Tolerance float64
	// SpoolDir holds segments on their way to S3. It is this process's alone.
	SpoolDir string
	// SpoolBytes bounds it; 1 GiB.
	SpoolBytes int64
	// Retention is how long objects outlive their broadcast's end; 2 h.
	Retention time.Duration
	// DVRWindow is what live playlists reach back; 10 min.
	DVRWindow time.Duration
	// Keep has running broadcasts keep all from their beginning.
	Keep bool
	// Quota bounds what is stored of a channel that has no quota of its own, in bytes; none.
	Quota int64
	// StoreDir is the directory of an S3 server of our own behind Bucket; S3 is elsewhere.
	StoreDir string
	// MinFree tells how much is to stay free on the disk of StoreDir, else of SpoolDir,
	// by the disk's size; a twentieth, 2 GB at most.
	MinFree func(total int64) int64
	// Drain is how long other workers have to take over the broadcasts of this
	// one after Run's context has ended; 0: not at all.
	Drain      time.Duration
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Service is the transcode service: one worker process.
type Service struct {
	cfg     Config
	ladder  []encode.RungSpec
	storage *storage.Storage
	budget  *encode.Budget
	metrics *metrics
	// encoding counts what the workers do.
	encoding *encode.Metrics
	ffmpeg   *encode.FFmpeg // set by Run
	client   *http.Client
	warm     *encode.Pool
	// working counts the jobs that are worked on, and one while they are taken.
	working atomic.Int64

	mu sync.Mutex // guards what follows
	// assignments are those of each broadcast, and lately were.
	assignments map[string][]*assignment
}

// New makes a service. It does no I/O.
func New(c Config) (*Service, error) {
	if c.Redis == nil || c.Bucket == nil || c.SpoolDir == "" || c.Peers == nil || c.Peers.Advertise() == "" {
		return nil, errors.New("transcode: Redis, a bucket, a spool directory and peers with an address to advertise are needed")
	}
	c.FFmpeg = cmp.Or(c.FFmpeg, "ffmpeg")
	c.Preset = cmp.Or(c.Preset, "veryfast")
	if !slices.Contains(presets, c.Preset) {
		return nil, fmt.Errorf("transcode: preset %q is unknown; take one of %v", c.Preset, presets)
	}
	if !(c.EncodeCores >= 0) { // nor is it NaN
		return nil, fmt.Errorf("transcode: %g cores can't encode; --encode-cores takes a number above 0, and without it all cores are used", c.EncodeCores)
	}
	if c.EncodeMemory < 0 {
		return nil, fmt.Errorf("transcode: %d bytes of memory can't encode; --encode-memory takes a size above 0, and without it three quarters of the memory are used", c.EncodeMemory)
	}
	ladder, err := encode.ParseLadder(c.Ladder)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: c, ladder: ladder, budget: encode.NewBudget(c.EncodeCores, c.EncodeMemory), assignments: map[string][]*assignment{}, warm: encode.NewPool(c.Log),
		storage: storage.New(storage.Config{
			Redis: c.Redis, Bucket: c.Bucket, SpoolDir: c.SpoolDir, SpoolBytes: c.SpoolBytes,
			Retention: c.Retention, DVRWindow: c.DVRWindow, Keep: c.Keep, Quota: c.Quota, StoreDir: c.StoreDir, MinFree: c.MinFree,
			Log: c.Log, Registerer: c.Registerer,
		}),
		client: c.Peers.Client(),
	}
	s.metrics, s.encoding = newMetrics(c.Registerer), encode.NewMetrics(c.Registerer, s.budget)
	return s, nil
}

// DefaultFloor is what stays free of a disk where Config.MinFree is nil.
func DefaultFloor(total int64) int64 { return storage.DefaultFloor(total) }

// CheckFFmpeg fails when path is no FFmpeg, or one that lacks an encoder.
func CheckFFmpeg(ctx context.Context, path string) error {
	_, err := encode.FindFFmpeg(ctx, cmp.Or(path, "ffmpeg"))
	return err
}

// Run works until ctx ends, and returns when all that it started has ended.
func (s *Service) Run(ctx context.Context) error {
	var err error
	if s.ffmpeg, err = encode.FindFFmpeg(ctx, s.cfg.FFmpeg); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx) // it was ended with us
		}
		return err
	}
	if s.ffmpeg.Unlimited != nil {
		s.cfg.Log.Warn("the memory of ffmpeg's processes can't be bounded here", "err", s.ffmpeg.Unlimited)
	}
	if err := os.MkdirAll(s.cfg.SpoolDir, 0o700); err != nil {
		return fmt.Errorf("make spool directory: %w", err)
	}
	defer s.client.CloseIdleConnections()
	whole := context.WithoutCancel(ctx)
	working, stopWork := context.WithCancelCause(whole)
	defer stopWork(nil)
	storing, stopStoring := context.WithCancel(whole)
	defer stopStoring()
	s.warm.Begin(working, s.ffmpeg)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.storage.Run(storing) })
	g.Go(func() error { return s.keepWarm(gctx) })
	g.Go(func() error {
		defer stopStoring()
		return s.takeJobs(gctx, working)
	})
	g.Go(func() error {
		<-gctx.Done()
		defer stopWork(errStopped)
		if ctx.Err() != nil {
			s.drain()
		}
		return nil
	})
	return g.Wait()
}

// CheckRoom says what is wrong when too little is free on the disk that media is written to.
func (s *Service) CheckRoom(context.Context) error { return s.storage.CheckRoom() }

// Private adds the routes for other services to mux: follow, window and close.
// Whoever serves mux guards it.
func (s *Service) Private(mux *http.ServeMux) {
	s.storage.Routes(mux)
	mux.HandleFunc("POST /close/{broadcast}", s.serveClose)
}
