package storage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"millrace/internal/index"
	"millrace/internal/objects"
	"millrace/internal/sparselog"
)

// Why an object was dropped on its way to S3: the values of the label reason.
const (
	dropFull     = "spool full"
	dropDisk     = "disk full"
	dropMemory   = "memory full"
	dropDamaged  = "damaged"
	dropExpired  = "expired"
	dropShutdown = "shutdown"
)

// spoolOverhead bounds what a file of the spool has beside its object, in bytes.
const spoolOverhead = 1 << 10

// The pace of retries.
const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// uploaderConfig is what an uploader needs; all of it is required but Short and ShortStore.
type uploaderConfig struct {
	Bucket *objects.Bucket
	// Dir is the spool's directory, Bytes bounds the files in it, Memory the
	// objects that wait outside of it.
	Dir           string
	Bytes, Memory int64
	// Expire is the age at which files of an earlier run are dropped.
	Expire time.Duration
	// Parallel is the number of uploads at a time.
	Parallel int
	// Short reports whether the spool may not grow, ShortStore whether S3 may not be
	// written, both since their disk has too little room; nil: never.
	Short, ShortStore func() bool
	Log               *slog.Logger
	Metrics           *metrics
	// Uploaded is called after each PUT, Conflict when S3 has other content,
	// Lost when an object was dropped. They are called from the uploader's goroutines.
	Uploaded, Conflict func(key string, e index.Entry)
	Lost               func(key string, e index.Entry, reason string)
}

// uploader brings objects to S3: from the caller's memory to the spool, from
// there to the bucket. Nobody waits for it: add never blocks. When S3 is away
// it tries again until the spool is full, and then drops the oldest.
type uploader struct {
	uploaderConfig
	// Set before run's goroutines start.
	spool *spool // nil when it couldn't be opened
	write func(object) (int64, error)
	fault sparselog.Limiter

	mu sync.Mutex
	// changed is closed and replaced when there may be new work.
	changed chan struct{}
	outbox
	closed bool
}

func newUploader(c uploaderConfig) *uploader {
	never := func() bool { return false }
	if c.Short == nil {
		c.Short = never
	}
	if c.ShortStore == nil {
		c.ShortStore = never
	}
	return &uploader{uploaderConfig: c, changed: make(chan struct{}), outbox: newOutbox(c.Memory)}
}

// run uploads until ctx ends, then goes on for as long as drain lasts or until
// all is uploaded; what is left then stays in the spool. close comes after it.
func (u *uploader) run(ctx context.Context, drain time.Duration) error {
	left, err := u.open()
	if err != nil {
		return err
	}
	u.adoptAll(left)

	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { u.spoolAll(work) })
	wg.Go(func() { u.reportDrops(work) })
	for range u.Parallel {
		wg.Go(func() { u.uploadAll(work) })
	}
	<-ctx.Done()
	patience, cancel := context.WithTimeout(work, drain)
	u.waitEmpty(patience)
	cancel()
	stop()
	wg.Wait()
	u.shut()
	return nil
}

// close lets another process have the spool.
func (u *uploader) close() {
	if u.spool != nil {
		u.spool.close()
	}
}

// open opens the spool. A directory that can't be written only costs the
// spool: uploads go from memory.
func (u *uploader) open() ([]spoolFile, error) {
	s, left, err := openSpool(u.Dir)
	if errors.Is(err, errSpoolInUse) {
		return nil, err
	}
	if err != nil {
		u.Log.Error("the spool can't be used: segments wait in memory for S3", "err", err)
		u.write = func(object) (int64, error) { return 0, err }
		return nil, nil
	}
	u.spool, u.write = s, s.write
	return left, nil
}

// adoptAll takes over the files of an earlier run, but for those that are too old.
func (u *uploader) adoptAll(left []spoolFile) {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range left {
		if now.Sub(f.modified) <= u.Expire || u.keys[f.key] != nil {
			u.adopt(f)
			continue
		}
		u.Metrics.spoolDropped.WithLabelValues(dropExpired).Inc()
		if err := u.spool.remove(f.key); err != nil {
			u.Log.Warn("an old segment stays in the spool", "err", err)
		}
	}
	u.changedLocked()
}

// add takes an object; its data must not change any more. It doesn't block.
func (u *uploader) add(o object) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		u.Metrics.spoolDropped.WithLabelValues(dropShutdown).Inc()
		return
	}
	u.Metrics.spoolDropped.WithLabelValues(dropMemory).Add(float64(len(u.outbox.add(o))))
	u.changedLocked()
}

// spoolAll writes what comes in to the spool, one after the other.
func (u *uploader) spoolAll(ctx context.Context) {
	for {
		it := u.next(ctx, &u.toSpool)
		if it == nil {
			return
		}
		size, err := u.toDisk(it)
		u.mu.Lock()
		if err == nil {
			u.written(it, size)
		} else {
			u.retry(it)
		}
		u.changedLocked()
		u.mu.Unlock()
		if err != nil {
			u.Metrics.spoolErrors.Inc()
			u.fault.Warn(u.Log, "the spool can't be written: a segment waits in memory for S3", err)
		}
	}
}

// toDisk writes an object, after room was made for it within the bound, and
// on a full disk at the expense of older files.
func (u *uploader) toDisk(it *item) (int64, error) {
	held := func() int64 {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.disk
	}
	u.clear(it.size+spoolOverhead, u.Bytes, dropFull)
	if u.Short() {
		before := held()
		if u.clear(it.size+spoolOverhead, before, dropDisk); held()+it.size+spoolOverhead > before {
			return 0, errShort
		}
	}
	for {
		size, err := u.write(it.object)
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			return size, err
		}
		if !u.clear(it.size, max(held(), it.size), dropDisk) {
			return 0, err
		}
	}
}

// errShort means that the disk must be left what is free on it.
var errShort = errors.New("the disk has less free than its floor (--min-free)")

// clear drops the oldest files until size more bytes fit into bound. It
// reports whether any was dropped.
func (u *uploader) clear(size, bound int64, reason string) bool {
	u.mu.Lock()
	victims := u.makeRoom(size, bound)
	u.changedLocked()
	u.mu.Unlock()
	for _, v := range victims {
		if v.entry.Type == "" && v.stage != stored {
			// A file of an earlier run: its entry says what is missing now.
			v.entry, _, _ = u.spool.read(v.key)
		}
		if err := u.spool.remove(v.key); err != nil {
			u.fault.Warn(u.Log, "a dropped segment stays in the spool", err)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, v := range victims {
		if v.stage != stored {
			u.dropLocked(v, reason)
		}
	}
	u.changedLocked()
	return len(victims) > 0
}

// uploadAll uploads what is ready. What fails goes to the end of the queue, so
// that one object can't hold up the others.
func (u *uploader) uploadAll(ctx context.Context) {
	pause := firstRetry
	for {
		it := u.next(ctx, &u.toUpload)
		if it == nil {
			return
		}
		ok := u.upload(ctx, it)
		if ok {
			pause = firstRetry
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, lastRetry)
	}
}

// upload tries once, and reports whether the object needs no more tries.
func (u *uploader) upload(ctx context.Context, it *item) bool {
	data, err := u.load(it)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errCorrupt) {
			u.discard(it, dropDamaged)
			u.Log.Error("a segment is lost", "broadcast", broadcastOf(it.key), "err", err)
			return true
		}
		u.requeue(it)
		u.fault.Warn(u.Log, "the spool can't be read", err)
		return false
	}
	if u.ShortStore() {
		u.requeue(it)
		u.fault.Warn(u.Log, "a segment isn't stored", errShort)
		return false
	}
	start := time.Now()
	err = u.Bucket.Put(ctx, it.key, data)
	u.Metrics.uploadSeconds.Observe(time.Since(start).Seconds())
	switch {
	case err == nil:
		u.Metrics.uploads.WithLabelValues("ok").Inc()
		u.Metrics.uploadBytes.Add(float64(len(data)))
		u.keep(it)
		u.Uploaded(it.key, it.entry)
		return true
	case errors.Is(err, objects.ErrConflict):
		u.Metrics.uploads.WithLabelValues("conflict").Inc()
		u.Log.Error("a segment was made twice with different bytes: workers of one profile must make the same", "broadcast", broadcastOf(it.key), "err", err)
		u.discard(it, "")
		u.Conflict(it.key, it.entry)
		return true
	}
	u.requeue(it)
	if ctx.Err() != nil {
		return false
	}
	u.Metrics.uploads.WithLabelValues("error").Inc()
	u.fault.Warn(u.Log, "S3 can't be written: segments wait in the spool", err)
	return false
}

// load returns an object's bytes, and fills in the entry of an earlier run's.
func (u *uploader) load(it *item) ([]byte, error) {
	if !it.onDisk() {
		return bytes.Join(it.data, nil), nil
	}
	e, data, err := u.spool.read(it.key)
	if err == nil {
		it.entry = e
	}
	return data, err
}

// discard removes an object that needs no more work, and its file. With a reason
// it is lost.
func (u *uploader) discard(it *item, reason string) {
	if it.onDisk() {
		if err := u.spool.remove(it.key); err != nil {
			u.fault.Warn(u.Log, "an uploaded segment stays in the spool", err)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.remove(it)
	if reason != "" {
		u.dropLocked(it, reason)
	}
	u.changedLocked()
}

// keep notes that an object is in S3; its file stays until recorded is called.
func (u *uploader) keep(it *item) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.putInS3(it)
	u.changedLocked()
}

// recorded says that an object that is in S3 is in the index too.
func (u *uploader) recorded(key string) {
	u.mu.Lock()
	it := u.noteRecorded(key)
	u.mu.Unlock()
	if it != nil {
		u.discard(it, "")
	}
}

func (u *uploader) requeue(it *item) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.retry(it)
	u.changedLocked()
}

// next waits for an item of a queue and takes it; nil when ctx ends.
func (u *uploader) next(ctx context.Context, queue *[]*item) *item {
	for ctx.Err() == nil {
		u.mu.Lock()
		it, changed := u.take(queue), u.changed
		u.mu.Unlock()
		if it != nil {
			return it
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}

// reportDrops calls Lost: outside of the lock, since it announces gaps.
func (u *uploader) reportDrops(ctx context.Context) {
	for {
		u.mu.Lock()
		dropped := u.dropped[:len(u.dropped):len(u.dropped)]
		changed := u.changed
		u.mu.Unlock()
		for _, d := range dropped {
			u.Lost(d.key, d.entry, d.reason)
		}
		if len(dropped) > 0 {
			u.mu.Lock()
			u.dropped = slices.Delete(u.dropped, 0, len(dropped))
			u.changedLocked()
			u.mu.Unlock()
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// waitEmpty waits until all is uploaded and all drops are reported.
func (u *uploader) waitEmpty(ctx context.Context) {
	for {
		u.mu.Lock()
		empty := u.empty()
		changed := u.changed
		u.mu.Unlock()
		if empty {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// shut counts what never reached the disk.
func (u *uploader) shut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, it := range u.items {
		if !it.onDisk() {
			u.Metrics.spoolDropped.WithLabelValues(dropShutdown).Inc()
		}
	}
}

func (u *uploader) dropLocked(it *item, reason string) {
	u.Metrics.spoolDropped.WithLabelValues(reason).Inc()
	u.drop(it, reason)
}

// changedLocked wakes who waits for work, and shows what there is.
func (u *uploader) changedLocked() {
	u.Metrics.spoolFiles.Set(float64(u.files()))
	u.Metrics.spoolBytes.Set(float64(u.disk))
	u.Metrics.spoolMemory.Set(float64(u.memory))
	close(u.changed)
	u.changed = make(chan struct{})
}
