// Package storage keeps what a worker process makes of broadcasts, and publishes
// it: the newest media in memory for edges, whole segments in S3, the index of
// what exists in Redis. What is on its way there waits on disk. It knows nothing
// of how media is made.
package storage

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/objects"
	"millrace/internal/window"
)

const (
	// ForgetAfter is how long a broadcast's window and follow stream outlive
	// its end, or the last claim of this worker on it.
	ForgetAfter = 60 * time.Second
	// forgetInterval is how often that is looked at.
	forgetInterval = 2 * time.Second
)

// Config is what a storage needs. Redis, Bucket, SpoolDir and Log are
// required.
type Config struct {
	Redis  redis.UniversalClient
	Bucket *objects.Bucket
	// SpoolDir is a directory of this process alone.
	SpoolDir string
	// SpoolBytes bounds the spool; 0 means 1 GiB.
	SpoolBytes int64
	// MemoryBytes bounds the objects that wait for S3 outside of the spool; 0 means 64 MiB.
	MemoryBytes int64
	// WindowBytes bounds the newest media of one broadcast; 0 means 128 MiB.
	WindowBytes int
	// Retention is how long objects outlive the broadcast's end; 0 means 2 h.
	Retention time.Duration
	// DVRWindow is how far back a new reader of the follow stream is told what
	// exists; 0 means 10 min.
	DVRWindow time.Duration
	// Drain is how long run goes on uploading after its context has ended; 0 means 750 ms:
	// the process has 2 s to stop, and what is left stays in the spool.
	Drain time.Duration
	// Keep has running broadcasts keep all from their beginning; without it what has
	// left the DVR window is deleted.
	Keep bool
	// Quota bounds what is stored of a channel that has no quota of its own, in
	// bytes; 0: nothing does.
	Quota int64
	// StoreDir is set when Bucket is a server of our own: the directory that it keeps all in.
	StoreDir string
	// MinFree tells how many bytes are to stay free on the disk of StoreDir, else of
	// SpoolDir, by the disk's size; nil: [DefaultFloor].
	MinFree func(total int64) int64
	// Space tells how many bytes are free on the disk that holds a directory, and
	// how many there are; nil asks the system.
	Space func(dir string) (free, total int64, err error)
	// Uploads is the number of uploads at a time; 0 means 4.
	Uploads int
	Log     *slog.Logger
	// Registerer takes the metrics; nil means that nobody reads them.
	Registerer prometheus.Registerer
}

// Storage keeps what this worker makes: the newest media in memory, everything
// else in S3, the index in Redis. It is safe for concurrent use.
type Storage struct {
	Config
	metrics  *metrics
	uploader *uploader
	recorder *recorder
	sweeper  *sweeper
	keeper   *keeper
	// stopped is closed when run's context ends.
	stopped chan struct{}

	mu         sync.Mutex
	broadcasts map[string]*broadcastStore
}

// New prepares a storage; it does no I/O.
func New(c Config) *Storage {
	c.SpoolBytes = cmp.Or(c.SpoolBytes, 1<<30)
	c.MemoryBytes = cmp.Or(c.MemoryBytes, int64(64<<20))
	c.WindowBytes = cmp.Or(c.WindowBytes, 128<<20)
	c.Retention = cmp.Or(c.Retention, 2*time.Hour)
	c.DVRWindow = cmp.Or(c.DVRWindow, 10*time.Minute)
	c.Drain = cmp.Or(c.Drain, 750*time.Millisecond)
	c.Uploads = cmp.Or(c.Uploads, 4)
	if c.MinFree == nil {
		c.MinFree = DefaultFloor
	}
	if c.Space == nil {
		c.Space = diskSpace
	}
	s := &Storage{
		Config:     c,
		metrics:    newMetrics(c.Registerer),
		stopped:    make(chan struct{}),
		broadcasts: map[string]*broadcastStore{},
	}
	silence := c.Retention + time.Hour
	s.recorder = newRecorder(recorderConfig{
		Redis: c.Redis, Expire: silence, Log: c.Log, Metrics: s.metrics, Written: s.written, Again: s.recordAgain,
	})
	disk := &room{dir: cmp.Or(c.StoreDir, c.SpoolDir), space: c.Space, floor: c.MinFree}
	s.uploader = newUploader(uploaderConfig{
		Short: disk.short, ShortStore: func() bool { return c.StoreDir != "" && disk.short() },
		Bucket: c.Bucket, Dir: c.SpoolDir, Bytes: c.SpoolBytes, Memory: c.MemoryBytes,
		Expire: silence, Parallel: c.Uploads, Log: c.Log, Metrics: s.metrics,
		Uploaded: s.uploaded, Conflict: s.conflict, Lost: s.lost,
	})
	s.sweeper = &sweeper{db: c.Redis, bucket: c.Bucket, retention: c.Retention, silence: silence, log: c.Log, metrics: s.metrics}
	s.keeper = &keeper{
		db: c.Redis, bucket: c.Bucket, sweeper: s.sweeper, log: c.Log, metrics: s.metrics,
		window: c.DVRWindow, quota: c.Quota, all: c.Keep, room: disk, own: c.StoreDir != "",
		broadcasts: s.held, tenures: map[string]*tenure{},
	}
	return s
}

// Run uploads, records and sweeps until ctx ends, drains, and returns when all
// that it started has ended. An error means that it could not start.
func (s *Storage) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error {
		// What the last uploads have to say is recorded after them.
		defer stopRecording()
		return s.uploader.run(ctx, s.Drain)
	})
	g.Go(func() error {
		s.recorder.run(recording, time.Second)
		return nil
	})
	g.Go(func() error {
		s.sweeper.run(ctx)
		return nil
	})
	g.Go(func() error {
		s.keeper.run(ctx)
		return nil
	})
	g.Go(func() error {
		defer close(s.stopped)
		tick := time.NewTicker(forgetInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				s.forget(time.Now())
			}
		}
	})
	err := g.Wait()
	s.uploader.close() // after the recorder, which has files of the spool removed
	if err != nil {
		return fmt.Errorf("store media: %w", err)
	}
	return nil
}

// Open begins publishing a channel's broadcast under a grant. A publication under an earlier grant of
// the broadcast may from now on only finish what comes before the new one's live
// mark; the new one goes on with the content of the old one's window.
func (s *Storage) Open(broadcast, channel string, g jobs.Grant) *Writer {
	s.mu.Lock()
	b := s.broadcasts[broadcast]
	if b == nil {
		b = newBroadcastStore(s, broadcast, channel)
		s.broadcasts[broadcast] = b
	}
	p := b.reopen(g) // under the lock, so that it isn't forgotten before
	s.mu.Unlock()
	s.recorder.noteActivity(broadcast)
	return p
}

// find returns what is held of a broadcast, or nil.
func (s *Storage) find(broadcast string) *broadcastStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broadcasts[broadcast]
}

// held returns what is held of all broadcasts.
func (s *Storage) held() []*broadcastStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.broadcasts))
}

// CheckRoom says what is wrong when less than the floor is free on the disk.
func (s *Storage) CheckRoom() error { return s.keeper.room.check() }

// forget lets go of broadcasts that were over forgetAfter ago.
func (s *Storage) forget(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, b := range s.broadcasts {
		if b.forget(now) {
			delete(s.broadcasts, id)
			s.recorder.forget(id)
		}
	}
}

// Routes serves the follow stream and the window.
func (s *Storage) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /follow/{broadcast}", s.serveFollow)
	mux.HandleFunc(window.ThumbnailPattern, s.serveThumbnail)
	mux.HandleFunc(window.FilePattern, s.serveMedia)
}

// store hands objects to the uploader.
func (s *Storage) store(broadcast string, all []object) {
	for _, o := range all {
		s.uploader.add(o)
	}
	if len(all) > 0 {
		s.recorder.noteActivity(broadcast)
	}
}

// uploaded, conflict and lost are called by the uploader.
func (s *Storage) uploaded(key string, e index.Entry) {
	broadcast := broadcastOf(key)
	s.recorder.noteActivity(broadcast)
	if b := s.find(broadcast); b != nil {
		b.do(func(c change) { c.uploaded(e) })
		return
	}
	s.recorder.add(broadcast, e, s.foreignLength(broadcast))
}

// written and recordAgain are called by the recorder.
func (s *Storage) written(broadcast string, e index.Entry) {
	switch e.Type {
	case index.TypeSegment:
		s.uploader.recorded(objects.SegmentKey(broadcast, e.Epoch, e.Rendition, e.Sequence, e.Profile))
	case index.TypeInit:
		s.uploader.recorded(objects.InitKey(broadcast, e.Epoch, e.Rendition, e.Init))
	}
}

func (s *Storage) recordAgain(broadcast string) {
	b := s.find(broadcast)
	if b == nil {
		return
	}
	b.do(func(c change) {
		c.recordAgain()
		if c.over != nil {
			s.recorder.noteEnd(broadcast, b.over)
		}
	})
}

func (s *Storage) conflict(key string, e index.Entry) {
	s.metrics.conflicts.WithLabelValues("object").Inc()
	if b := s.find(broadcastOf(key)); b != nil {
		b.do(func(c change) { c.stored(e) })
	}
}

func (s *Storage) lost(key string, e index.Entry, reason string) {
	if e.Type != index.TypeSegment {
		return
	}
	broadcast := broadcastOf(key)
	s.metrics.gaps.WithLabelValues(reason).Inc()
	reason = "the segment could not be stored: " + reason
	if b := s.find(broadcast); b != nil {
		b.do(func(c change) { c.lost(e, reason) })
		return
	}
	e.Type, e.Size, e.Reason = index.TypeGap, 0, reason
	s.recorder.add(broadcast, e, s.foreignLength(broadcast))
}

// foreignLength bounds the index of a broadcast that this worker doesn't work
// on: as if it had as many renditions as any has.
func (s *Storage) foreignLength(broadcast string) int {
	sh := newCatalogue(broadcast, 0, media.TicksOf(s.DVRWindow), 0)
	for n := range 12 {
		sh.track(string(rune('a' + n)))
	}
	return sh.indexLength()
}
