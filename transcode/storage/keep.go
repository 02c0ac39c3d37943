package storage

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/credentials"
	"millrace/internal/media"
	"millrace/internal/objects"
	"millrace/internal/sparselog"
)

const (
	// lookInterval is how often the disk is looked at: at 80 Mb/s, and as much for
	// the rungs, 40 MB come in that time.
	lookInterval = 2 * time.Second
	// tendInterval is how often what is stored of a running broadcast is looked at,
	// slowInterval where all of it is kept and nothing bounds it: listing takes the
	// longer the more there is.
	tendInterval = time.Minute
	slowInterval = 10 * time.Minute
	// shortestWindow is the DVR window that viewers keep whatever the room.
	shortestWindow = 30 * media.VideoTimescale
	// relaxBelow is the share of a quota below which a window may grow again, in
	// per cent, and relaxBy by how much of itself it does at a time.
	relaxBelow, relaxBy = 75, 4
	// silentAfter is how long nothing came of a broadcast that nobody ended, and that counts as ended.
	silentAfter = time.Hour
	// alarmInterval is how often it is said that nothing more can be stored, and what
	// was deleted of running broadcasts for want of room.
	alarmInterval = time.Minute
)

// Why objects were deleted: the values of the label reason.
const (
	// deleteWindow: it has left the DVR window of a running broadcast, and with it all playlists.
	deleteWindow = "window"
	// deleteFloor: less than the floor was free on the disk.
	deleteFloor = "floor"
	// deleteQuota: the channel had more than its quota.
	deleteQuota = "quota"
	// deleteRetention: the broadcast's retention was over.
	deleteRetention = "retention"
)

// keeper bounds what is stored: of a running broadcast what can still be seen, of
// a channel its quota, and of the disk of an S3 server of our own what leaves the
// floor free.
//
// What is deleted for want of room is first what has left the DVR windows of running
// broadcasts: nobody can see it, and it is what grows, so that one that never ends
// takes nothing from the others. Then broadcasts that have ended, of the channel that has
// most of them the oldest. Then DVR windows are shortened, that of the broadcast that
// takes most first. What is in a DVR window is never deleted.
//
// It is owned by run's goroutine.
type keeper struct {
	db      redis.UniversalClient
	bucket  *objects.Bucket
	sweeper *sweeper
	log     *slog.Logger
	metrics *metrics
	// window is the DVR window, quota what is stored of a channel at most where it has
	// none of its own, in bytes; 0: any.
	window time.Duration
	quota  int64
	// all is set when running broadcasts keep all from their beginning.
	all bool
	// room is the disk of the spool, and of S3 where own is set.
	room *room
	own  bool
	// broadcasts returns those that this worker has.
	broadcasts func() []*broadcastStore

	tenures map[string]*tenure
	fault   sparselog.Limiter
	alarmed time.Time
	// freed are bytes that were deleted for the floor since it was told.
	freed int64
	told  time.Time
}

// tenure is what the keeper remembers of a broadcast.
type tenure struct {
	// tended is when it was looked at last.
	tended time.Time
	// marks tell what had left the DVR window when.
	marks []mark
	bytes int64
}

// mark says that segments before left had left the DVR window at a time.
type mark struct {
	at   time.Time
	left uint64
}

// run looks after what is stored until ctx ends.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	k.look(time.Now())
	for tended := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			err := k.relieve(ctx, now)
			if now.Sub(tended) >= tendInterval {
				tended = now
				err = cmp.Or(err, k.tendAll(ctx, now))
			}
			if err != nil && ctx.Err() == nil {
				k.metrics.keepErrors.Inc()
				k.fault.Warn(k.log, "what is stored can't be bounded: it is tried again", err)
			}
		}
	}
}

// look finds out what is free, and tells the operator when that is too little.
func (k *keeper) look(now time.Time) {
	free, least, err := k.room.look()
	if err != nil {
		k.fault.Warn(k.log, "the free space of the disk isn't known: its floor isn't watched", err)
		return
	}
	if !k.own && free < least {
		k.room.exhaust() // only the spool lies here, which bounds itself
	}
	short := k.room.short()
	k.metrics.free.Set(float64(free))
	k.metrics.floor.Set(float64(least))
	k.metrics.short.Set(float64(oneIf(short)))
	if short && now.Sub(k.alarmed) >= alarmInterval {
		k.alarmed = now
		k.log.Error("the disk is full: new media is kept in memory only, and what finds no place there is lost", "err", k.room.check())
	}
}

// relieve deletes until the floor of the disk is free again.
func (k *keeper) relieve(ctx context.Context, now time.Time) error {
	k.look(now)
	if !k.own || k.room.wanting() == 0 {
		return nil
	}
	freed, err := k.relieveWindows(ctx)
	if k.freed += freed; k.freed > 0 && now.Sub(k.told) >= alarmInterval {
		k.log.Warn("the disk has less free than its floor: media of running broadcasts that has left the DVR window is deleted", "bytes", k.freed)
		k.freed, k.told = 0, now
	}
	if err != nil || k.wanting(now) == 0 {
		return err
	}
	held, err := readHoldings(ctx, k.db)
	if err != nil {
		return err
	}
	ended, err := k.dropEnded(ctx, now, deleteFloor, held, func() bool { return k.wanting(now) > 0 })
	if err != nil || ended > 0 || freed > 0 || k.room.wanting() == 0 {
		return err
	}
	if !k.squeezeLargest(k.room.wanting()) {
		k.room.exhaust()
		k.look(now)
	}
	return nil
}

// wanting looks how much is to be deleted still.
func (k *keeper) wanting(now time.Time) int64 {
	k.look(now)
	return k.room.wanting()
}

// relieveWindows deletes what has left the DVR windows of running broadcasts, of the one
// that has most of it first.
func (k *keeper) relieveWindows(ctx context.Context) (freed int64, err error) {
	type candidate struct {
		id    string
		stock *stock
		left  uint64
	}
	var found []candidate
	for _, b := range k.broadcasts() {
		st, err := survey(ctx, k.bucket, b.id)
		if err != nil {
			return 0, err
		}
		k.tenure(b.id).bytes = st.bytes
		found = append(found, candidate{b.id, st, b.standing().left})
	}
	slices.SortFunc(found, func(a, b candidate) int { return cmp.Compare(b.stock.before(b.left), a.stock.before(a.left)) })
	want := k.room.wanting()
	for _, c := range found {
		taken, bytes := c.stock.take(c.left, want-freed)
		if err := k.remove(ctx, taken, deleteFloor); err != nil {
			return freed, err
		}
		freed += bytes
		k.tenure(c.id).bytes = c.stock.bytes
	}
	return freed, nil
}

// squeezeLargest shortens the DVR window of the broadcast that has most. It reports whether
// any could be shortened.
func (k *keeper) squeezeLargest(want int64) bool {
	list := k.broadcasts()
	slices.SortFunc(list, func(a, b *broadcastStore) int {
		return cmp.Compare(k.tenure(b.id).bytes, k.tenure(a.id).bytes)
	})
	for _, b := range list {
		if bytes := k.tenure(b.id).bytes; b.squeeze(bytes, bytes-want) {
			k.log.Warn("the disk has less free than its floor: the DVR window of the broadcast that takes most is shortened",
				"broadcast", b.id, "channel", b.channel, "window", b.standing().window.Duration())
			return true
		}
	}
	return false
}

// tendAll looks after all running broadcasts.
func (k *keeper) tendAll(ctx context.Context, now time.Time) error {
	quotas, err := credentials.Quotas(ctx, k.db)
	if err != nil {
		return err
	}
	held, err := readHoldings(ctx, k.db)
	if err != nil {
		return err
	}
	running := map[string]bool{}
	shortened := 0
	var bytes int64
	for _, b := range k.broadcasts() {
		running[b.id] = true
		quota := cmp.Or(quotas[b.channel], k.quota)
		t := k.tenure(b.id)
		if !k.all || quota > 0 || b.standing().limited || now.Sub(t.tended) >= slowInterval {
			if err := k.tend(ctx, b, now, quota, held); err != nil {
				return err
			}
			k.look(now)
		}
		bytes += t.bytes
		shortened += oneIf(b.standing().limited)
	}
	for id := range k.tenures {
		if !running[id] {
			delete(k.tenures, id)
		}
	}
	var ended int64
	for id, h := range held {
		if !running[id] && now.Sub(time.UnixMilli(h.Seen)) > 2*slowInterval {
			ended += h.Bytes
		}
	}
	k.metrics.stored.WithLabelValues("running").Set(float64(bytes))
	k.metrics.stored.WithLabelValues("ended").Set(float64(ended))
	k.metrics.shortened.Set(float64(shortened))
	return nil
}

// tend deletes what a running broadcast and its channel needn't or mustn't keep.
func (k *keeper) tend(ctx context.Context, b *broadcastStore, now time.Time, quota int64, held map[string]holding) error {
	st, err := survey(ctx, k.bucket, b.id)
	if err != nil {
		return err
	}
	at, t := b.standing(), k.tenure(b.id)
	t.tended = now
	if !k.all {
		// RFC 8216, 6.2.2: a segment that was removed from a playlist MUST remain
		// available for as long as the longest playlist that listed it, and the
		// segment, last.
		gone := t.gone(now, at.left, k.window)
		taken, _ := st.take(gone, st.bytes)
		if gone > 0 { // else an earlier worker's segments may need init sections that this one wasn't told of yet
			unused, _ := st.takeInits(now.Add(-2*k.window), at.inits)
			taken = append(taken, unused...)
		}
		if err := k.remove(ctx, taken, deleteWindow); err != nil {
			return err
		}
	}
	if err := k.enforce(ctx, b, st, at, now, quota, held); err != nil {
		return err
	}
	t.bytes = st.bytes
	h := holding{Channel: b.channel, Bytes: st.bytes, Seen: now.UnixMilli()}
	held[b.id] = h
	return writeHolding(ctx, k.db, b.id, h)
}

// enforce keeps a running broadcast's channel within its quota; 0 or less: nothing bounds it.
func (k *keeper) enforce(ctx context.Context, b *broadcastStore, st *stock, at standing, now time.Time, quota int64, held map[string]holding) error {
	ended := of(held, func(id string, h holding) bool { return id != b.id && h.Channel == b.channel })
	total := func() int64 { return st.bytes + sum(ended) }
	if quota <= 0 || total() < quota/100*relaxBelow {
		if !k.own || k.room.ample() {
			b.relax()
		}
		return nil
	}
	taken, _ := st.take(at.left, total()-quota)
	if err := k.remove(ctx, taken, deleteQuota); err != nil {
		return err
	}
	if _, err := k.dropEnded(ctx, now, deleteQuota, ended, func() bool { return total() > quota }); err != nil {
		return err
	}
	if total() > quota && b.squeeze(st.bytes, quota-sum(ended)) {
		k.log.Warn("the channel has more stored than its quota: its DVR window is shortened",
			"broadcast", b.id, "channel", b.channel, "quota", quota, "window", b.standing().window.Duration())
	}
	return nil
}

// dropEnded deletes whole broadcasts that have ended, among those held, as long as more
// have to go: of the channel that has most of them the oldest. It returns how many.
func (k *keeper) dropEnded(ctx context.Context, now time.Time, why string, held map[string]holding, more func() bool) (n int, err error) {
	if !more() {
		return 0, nil
	}
	ended, err := k.sweeper.ended(ctx, now.Add(-silentAfter))
	if err != nil {
		return 0, err
	}
	for _, b := range k.broadcasts() {
		delete(ended, b.id) // viewers may be at its end
	}
	if why == deleteFloor {
		if err := k.findEnded(ctx, ended, held); err != nil {
			return 0, err
		}
	}
	candidates := of(held, func(id string, h holding) bool { _, ok := ended[id]; return ok && h != (holding{Seen: h.Seen}) })
	for more() && len(candidates) > 0 {
		id := largestsOldest(candidates, ended)
		k.log.Warn("room is needed: a broadcast that has ended is deleted before its retention is over",
			"broadcast", id, "channel", candidates[id].Channel, "bytes", candidates[id].Bytes, "reason", why)
		if err := k.sweeper.remove(ctx, endedKey, id, why); err != nil {
			return n, err
		}
		delete(candidates, id)
		delete(held, id)
		n++
	}
	return n, nil
}

// findEnded adds to those held the broadcasts of which that isn't known: they ended under a
// version that didn't note it. What nothing is stored of is noted, too, and no candidate.
func (k *keeper) findEnded(ctx context.Context, ended map[string]time.Time, held map[string]holding) error {
	for id, at := range ended {
		if _, known := held[id]; known {
			continue
		}
		st, err := survey(ctx, k.bucket, id)
		if err != nil {
			return err
		}
		h := holding{Bytes: st.bytes, Seen: at.UnixMilli()}
		if err := writeHolding(ctx, k.db, id, h); err != nil {
			return err
		}
		held[id] = h
	}
	return nil
}

// largestsOldest returns the oldest broadcast of the channel that has most.
func largestsOldest(candidates map[string]holding, ended map[string]time.Time) (oldest string) {
	has := map[string]int64{}
	for _, h := range candidates {
		has[h.Channel] += h.Bytes
	}
	for id, h := range candidates {
		if oldest == "" || cmp.Or(
			cmp.Compare(has[candidates[oldest].Channel], has[h.Channel]), // the larger channel first
			ended[id].Compare(ended[oldest]), cmp.Compare(id, oldest)) < 0 {
			oldest = id
		}
	}
	return oldest
}

// of returns those of the holdings that are meant.
func of(held map[string]holding, is func(string, holding) bool) map[string]holding {
	some := maps.Clone(held)
	maps.DeleteFunc(some, func(id string, h holding) bool { return !is(id, h) })
	return some
}

// sum is the size of all of them.
func sum(held map[string]holding) (bytes int64) {
	for _, h := range held {
		bytes += h.Bytes
	}
	return bytes
}

// gone is the first segment that hadn't left the DVR window long ago.
func (t *tenure) gone(now time.Time, left uint64, long time.Duration) uint64 {
	if n := len(t.marks); n == 0 || t.marks[n-1].left != left {
		t.marks = append(t.marks, mark{now, left})
	}
	n := 0
	for n < len(t.marks) && now.Sub(t.marks[n].at) >= long {
		n++
	}
	if n == 0 {
		return 0
	}
	t.marks = slices.Delete(t.marks, 0, n-1)
	return t.marks[0].left
}

func (k *keeper) tenure(broadcast string) *tenure {
	t := k.tenures[broadcast]
	if t == nil {
		t = new(tenure)
		k.tenures[broadcast] = t
	}
	return t
}

// remove deletes objects.
func (k *keeper) remove(ctx context.Context, all []piece, why string) error {
	for some := range slices.Chunk(all, 1000) {
		keys := make([]string, len(some))
		var bytes int64
		for i, p := range some {
			keys[i] = p.key
			bytes += p.size
		}
		if err := k.bucket.Delete(ctx, keys); err != nil {
			return fmt.Errorf("make room: %w", err)
		}
		k.metrics.deleted(why, len(keys), bytes)
	}
	return nil
}
