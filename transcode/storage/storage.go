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
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
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
	s.uploader = newUploader(uploaderConfig{
		Bucket: c.Bucket, Dir: c.SpoolDir, Bytes: c.SpoolBytes, Memory: c.MemoryBytes,
		Expire: silence, Parallel: c.Uploads, Log: c.Log, Metrics: s.metrics,
		Uploaded: s.uploaded, Conflict: s.conflict, Lost: s.lost,
	})
	s.sweeper = &sweeper{db: c.Redis, bucket: c.Bucket, retention: c.Retention, silence: silence, log: c.Log, metrics: s.metrics}
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

// Open begins publishing under a grant. A publication under an earlier grant of
// the broadcast may from now on only finish what comes before the new one's live
// mark; the new one goes on with the content of the old one's window.
func (s *Storage) Open(broadcast string, g jobs.Grant) *Writer {
	s.mu.Lock()
	b := s.broadcasts[broadcast]
	if b == nil {
		b = newBroadcastStore(s, broadcast)
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

// storageMetrics counts what storage does.
type metrics struct {
	spoolBytes, spoolFiles, spoolMemory prometheus.Gauge
	spoolErrors                         prometheus.Counter
	spoolDropped                        *prometheus.CounterVec // reason
	uploads                             *prometheus.CounterVec // result: ok, error, conflict
	uploadSeconds                       prometheus.Histogram
	uploadBytes                         prometheus.Counter
	indexErrors, indexLost              prometheus.Counter
	indexDropped                        *prometheus.CounterVec // reason
	conflicts                           *prometheus.CounterVec // of: part, object
	refused                             *prometheus.CounterVec // reason
	gaps                                *prometheus.CounterVec // reason
	evicted                             prometheus.Counter
	readers                             prometheus.Gauge
	disconnects                         *prometheus.CounterVec // reason
	sweptBroadcasts, sweptObjects       prometheus.Counter
	sweepErrors                         prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "millrace_transcode_" + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "millrace_transcode_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "millrace_transcode_" + name, Help: help})
	}
	m := &metrics{
		spoolBytes:   gauge("spool_bytes", "Bytes in the spool, on their way to S3."),
		spoolFiles:   gauge("spool_files", "Files in the spool."),
		spoolMemory:  gauge("spool_memory_bytes", "Bytes that wait for the spool, or for S3 without it."),
		spoolErrors:  counter("spool_errors_total", "Writes to the spool that failed."),
		spoolDropped: vec("spool_dropped_total", "Objects that were dropped on their way to S3.", "reason"),
		uploads:      vec("uploads_total", "PUT requests to S3 by result.", "result"),
		uploadSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "millrace_transcode_upload_seconds", Help: "Duration of PUT requests to S3.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25},
		}),
		uploadBytes:     counter("upload_bytes_total", "Bytes put to S3."),
		indexErrors:     counter("index_errors_total", "Writes of index entries to Redis that failed."),
		indexLost:       counter("index_lost_total", "Index entries that Redis lost after it had acknowledged them; they were written again."),
		indexDropped:    vec("index_dropped_total", "Index entries that didn't reach Redis.", "reason"),
		conflicts:       vec("conflicts_total", "Media that was made twice with different bytes. It must stay 0.", "of"),
		refused:         vec("publish_refused_total", "Parts, segments and other entries that were not published.", "reason"),
		gaps:            vec("gaps_total", "Segments that were declared missing.", "reason"),
		evicted:         counter("window_evicted_unsafe_total", "Segments that left the window for want of memory before they were in S3."),
		readers:         gauge("follow_readers", "Readers of follow streams."),
		disconnects:     vec("follow_disconnects_total", "Readers of follow streams that were disconnected.", "reason"),
		sweptBroadcasts: counter("swept_broadcasts_total", "Broadcasts deleted after their retention."),
		sweptObjects:    counter("swept_objects_total", "Objects deleted from S3."),
		sweepErrors:     counter("sweep_errors_total", "Sweeps that failed."),
	}
	// From 0 on: an alert on an increase doesn't see a counter that appears with 1.
	drops := []string{dropFull, dropDisk, dropMemory, dropDamaged, dropExpired, dropShutdown}
	for vec, values := range map[*prometheus.CounterVec][]string{
		m.spoolDropped: drops, m.gaps: append([]string{"not made", "late"}, drops...), m.conflicts: {"part", "object"},
		m.uploads: {"ok", "conflict", "error"}, m.indexDropped: {"not encodable", "queue full", dropShutdown},
	} {
		for _, v := range values {
			vec.WithLabelValues(v)
		}
	}
	return m
}
