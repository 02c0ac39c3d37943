package storage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace/internal/index"
	"millrace/internal/objects"
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

// uploaderConfig is what an uploader needs; all of it is required but Log's level.
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
	Log      *slog.Logger
	Metrics  *metrics
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

	mu sync.Mutex
	// changed is closed and replaced when there may be new work.
	changed chan struct{}
	// items are all that aren't in S3 and in the index yet, oldest first; by key.
	items []*item
	keys  map[string]*item
	// incoming wait for the spool, ready for an upload.
	incoming, ready []*item
	// dropped wait for Lost to be called.
	dropped []drop
	// disk and memory are the bytes held in the spool and outside of it.
	disk, memory int64
	closed       bool
	lastFault    time.Time
}

// item is an object on its way.
type item struct {
	object
	// size is the file's on disk, the data's otherwise.
	size int64
	// spooled is set when it is on disk, busy while a goroutine works on it,
	// stored when it is in S3 and its file only waits for its index entry: a
	// process that dies before tells the next one of it by the file.
	spooled, busy, stored bool
}

// drop is an object that won't get to S3.
type drop struct {
	key    string
	entry  index.Entry
	reason string
}

func newUploader(c uploaderConfig) *uploader {
	return &uploader{uploaderConfig: c, changed: make(chan struct{}), keys: map[string]*item{}}
}

// run uploads until ctx ends, then goes on for as long as drain lasts or until
// all is uploaded; what is left then stays in the spool. close comes after it.
func (u *uploader) run(ctx context.Context, drain time.Duration) error {
	left, err := u.open()
	if err != nil {
		return err
	}
	u.adopt(left)

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
func (u *uploader) open() ([]spooled, error) {
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

// adopt takes over the files of an earlier run.
func (u *uploader) adopt(left []spooled) {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range left {
		if _, ok := u.keys[f.key]; ok {
			continue // added again before the start: writing it replaces the file
		}
		if now.Sub(f.modified) > u.Expire {
			u.Metrics.spoolDropped.WithLabelValues(dropExpired).Inc()
			if err := u.spool.remove(f.key); err != nil {
				u.Log.Warn("an old segment stays in the spool", "err", err)
			}
			continue
		}
		it := &item{object: object{key: f.key}, size: f.size, spooled: true}
		u.items = append(u.items, it)
		u.keys[f.key] = it
		u.ready = append(u.ready, it)
		u.disk += f.size
	}
	// Files in the spool stand before what was added before the start.
	slices.SortStableFunc(u.items, func(a, b *item) int { return btoi(b.spooled) - btoi(a.spooled) })
	u.wakeLocked()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// add takes an object; its data must not change any more. It doesn't block.
// An object on its way under the same key is the same one. When too much waits
// in memory, the oldest of it is dropped.
func (u *uploader) add(o object) {
	it := &item{object: o}
	for _, d := range o.data {
		it.size += int64(len(d))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		u.Metrics.spoolDropped.WithLabelValues(dropShutdown).Inc()
		return
	}
	if before := u.keys[o.key]; before != nil {
		if !before.stored {
			return
		}
		u.removeLocked(before) // writing it replaces the file
	}
	u.items = append(u.items, it)
	u.keys[o.key] = it
	u.incoming = append(u.incoming, it)
	u.memory += it.size
	for u.memory > u.Memory {
		victim := u.oldestLocked(false)
		if victim == nil {
			break
		}
		u.removeLocked(victim)
		u.dropLocked(victim, dropMemory)
	}
	u.gaugesLocked()
	u.wakeLocked()
}

// spoolAll writes what comes in to the spool, one after the other.
func (u *uploader) spoolAll(ctx context.Context) {
	for {
		it := u.take(ctx, &u.incoming)
		if it == nil {
			return
		}
		size, err := u.toSpool(it)
		u.mu.Lock()
		it.busy = false
		if err == nil {
			u.memory -= it.size
			it.size, it.spooled, it.data = size, true, nil
			u.disk += size
		}
		u.ready = append(u.ready, it)
		u.gaugesLocked()
		u.wakeLocked()
		u.mu.Unlock()
		if err != nil {
			u.Metrics.spoolErrors.Inc()
			u.fault("the spool can't be written: a segment waits in memory for S3", err)
		}
	}
}

// toSpool writes an object, after room was made for it within the bound, and
// on a full disk at the expense of older files.
func (u *uploader) toSpool(it *item) (int64, error) {
	u.makeRoom(it.size+spoolOverhead, u.Bytes, dropFull)
	for {
		size, err := u.write(it.object)
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			return size, err
		}
		u.mu.Lock()
		held := u.disk
		u.mu.Unlock()
		if !u.makeRoom(it.size, max(held, it.size), dropDisk) {
			return 0, err
		}
	}
}

// makeRoom drops the oldest files until size more bytes fit into bound. It
// reports whether any was dropped.
func (u *uploader) makeRoom(size, bound int64, reason string) bool {
	var victims []*item
	u.mu.Lock()
	for u.disk+size > bound {
		v := u.storedLocked()
		if v == nil {
			v = u.oldestLocked(true)
		}
		if v == nil {
			break
		}
		u.removeLocked(v)
		victims = append(victims, v)
	}
	u.gaugesLocked()
	u.mu.Unlock()
	for _, v := range victims {
		if v.entry.Type == "" && !v.stored {
			// A file of an earlier run: its entry says what is missing now.
			v.entry, _, _ = u.spool.read(v.key)
		}
		if err := u.spool.remove(v.key); err != nil {
			u.fault("a dropped segment stays in the spool", err)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, v := range victims {
		if !v.stored {
			u.dropLocked(v, reason)
		}
	}
	u.wakeLocked()
	return len(victims) > 0
}

// uploadAll uploads what is ready. What fails goes to the end of the queue, so
// that one object can't hold up the others.
func (u *uploader) uploadAll(ctx context.Context) {
	pause := firstRetry
	for {
		it := u.take(ctx, &u.ready)
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
			u.settle(it, func() { u.dropLocked(it, dropDamaged) })
			u.Log.Error("a segment is lost", "broadcast", broadcastOf(it.key), "err", err)
			return true
		}
		u.requeue(it)
		u.fault("the spool can't be read", err)
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
		u.settle(it, nil)
		u.Conflict(it.key, it.entry)
		return true
	}
	u.requeue(it)
	if ctx.Err() != nil {
		return false
	}
	u.Metrics.uploads.WithLabelValues("error").Inc()
	u.fault("S3 can't be written: segments wait in the spool", err)
	return false
}

// load returns an object's bytes, and fills in the entry of an earlier run's.
func (u *uploader) load(it *item) ([]byte, error) {
	if !it.spooled {
		return bytes.Join(it.data, nil), nil
	}
	e, data, err := u.spool.read(it.key)
	if err == nil {
		it.entry = e
	}
	return data, err
}

// settle removes an object that needs no more work.
func (u *uploader) settle(it *item, then func()) {
	if it.spooled {
		if err := u.spool.remove(it.key); err != nil {
			u.fault("an uploaded segment stays in the spool", err)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.removeLocked(it)
	if then != nil {
		then()
	}
	u.gaugesLocked()
	u.wakeLocked()
}

// keep notes that an object is in S3; its file stays until recorded is called.
func (u *uploader) keep(it *item) {
	if !it.spooled {
		u.settle(it, nil)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	it.busy, it.stored = false, true
	u.wakeLocked()
}

// recorded says that an object that is in S3 is in the index too.
func (u *uploader) recorded(key string) {
	u.mu.Lock()
	it := u.keys[key]
	if it == nil || !it.stored {
		u.mu.Unlock()
		return
	}
	it.stored, it.busy = false, true // nobody else's now
	u.mu.Unlock()
	u.settle(it, nil)
}

func (u *uploader) requeue(it *item) {
	u.mu.Lock()
	defer u.mu.Unlock()
	it.busy = false
	u.ready = append(u.ready, it)
	u.wakeLocked()
}

// take returns the next item of a queue, marked busy, or nil when ctx ends.
func (u *uploader) take(ctx context.Context, queue *[]*item) *item {
	for {
		u.mu.Lock()
		if len(*queue) > 0 && ctx.Err() == nil {
			it := (*queue)[0]
			*queue = slices.Delete(*queue, 0, 1)
			it.busy = true
			u.mu.Unlock()
			return it
		}
		changed := u.changed
		u.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
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
			u.wakeLocked()
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
		empty := u.emptyLocked()
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

// emptyLocked reports whether nothing waits for S3.
func (u *uploader) emptyLocked() bool {
	return len(u.dropped) == 0 && !slices.ContainsFunc(u.items, func(it *item) bool { return !it.stored })
}

// shut counts what never reached the disk.
func (u *uploader) shut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, it := range u.items {
		if !it.spooled {
			u.Metrics.spoolDropped.WithLabelValues(dropShutdown).Inc()
		}
	}
}

// oldestLocked returns the oldest segment, on disk or in memory, that nobody
// works on. Init sections are never dropped: they are small, and a whole
// rendition is lost without one.
func (u *uploader) oldestLocked(spooled bool) *item {
	for _, it := range u.items {
		if it.spooled == spooled && !it.busy && !it.stored && !strings.HasSuffix(it.key, ".mp4") {
			return it
		}
	}
	return nil
}

// storedLocked returns the oldest file whose object is in S3: it costs nothing
// unless this process dies before Redis has its index entry.
func (u *uploader) storedLocked() *item {
	for _, it := range u.items {
		if it.stored {
			return it
		}
	}
	return nil
}

// removeLocked takes an item off all queues.
func (u *uploader) removeLocked(it *item) {
	same := func(o *item) bool { return o == it }
	u.items = slices.DeleteFunc(u.items, same)
	if u.keys[it.key] == it {
		delete(u.keys, it.key)
	}
	u.incoming = slices.DeleteFunc(u.incoming, same)
	u.ready = slices.DeleteFunc(u.ready, same)
	if it.spooled {
		u.disk -= it.size
	} else {
		u.memory -= it.size
	}
}

func (u *uploader) dropLocked(it *item, reason string) {
	u.Metrics.spoolDropped.WithLabelValues(reason).Inc()
	u.dropped = append(u.dropped, drop{it.key, it.entry, reason})
}

func (u *uploader) wakeLocked() {
	close(u.changed)
	u.changed = make(chan struct{})
}

func (u *uploader) gaugesLocked() {
	files := 0
	for _, it := range u.items {
		files += btoi(it.spooled)
	}
	u.Metrics.spoolFiles.Set(float64(files))
	u.Metrics.spoolBytes.Set(float64(u.disk))
	u.Metrics.spoolMemory.Set(float64(u.memory))
}

// fault logs a fault that may come often, at most once a second.
func (u *uploader) fault(msg string, err error) {
	u.mu.Lock()
	now := time.Now()
	quiet := now.Sub(u.lastFault) < time.Second
	if !quiet {
		u.lastFault = now
	}
	u.mu.Unlock()
	if !quiet {
		u.Log.Warn(msg, "err", err)
	}
}
