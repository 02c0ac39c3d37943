package storage

import (
	"errors"
	"sync"
	"time"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

// broadcastStore is what this worker holds of one broadcast, with everybody
// who reads it. It outlives the publications that fill it.
type broadcastStore struct {
	storage     *Storage
	id, channel string

	mu        sync.Mutex
	catalogue *catalogue
	feed      feed
	// over is when the broadcast ended or the last publication was closed; zero while neither is so.
	over time.Time
	// open counts the publications.
	open int
}

func newBroadcastStore(s *Storage, id, channel string) *broadcastStore {
	return &broadcastStore{
		storage: s, id: id, channel: channel,
		catalogue: newCatalogue(id, windowSpan, media.TicksOf(s.DVRWindow), s.WindowBytes),
		feed:      feed{readers: map[*follower]struct{}{}},
	}
}

// reopen lets the holder of a grant publish.
func (b *broadcastStore) reopen(g jobs.Grant) *Writer {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = time.Time{}
	b.open++
	b.catalogue.reopen(g)
	return &Writer{store: b, grant: g}
}

// do calls fn in the newest grant's name and carries out what follows from it.
func (b *broadcastStore) do(fn func(change)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change(b.catalogue.writer, fn)
}

// change calls fn in a grant's name and carries out what follows from it. The
// follow lines of all calls have one order. The caller holds mu.
func (b *broadcastStore) change(by jobs.Epoch, fn func(change)) {
	var out outcome
	fn(change{b.catalogue, by, &out})
	m := b.storage.metrics
	for _, line := range out.lines {
		if slow, err := b.feed.send(line); err != nil {
			b.storage.Log.Error("index entries can't be encoded", "broadcast", b.id, "err", err)
		} else if slow > 0 {
			m.disconnects.WithLabelValues("slow").Add(float64(slow))
		}
	}
	b.storage.store(b.id, out.stores)
	for _, e := range out.records {
		b.storage.recorder.add(b.id, e, b.catalogue.indexLength())
	}
	for _, err := range out.errs {
		b.refused(err)
		b.storage.Log.Error("media that had waited for its turn was refused", "broadcast", b.id, "err", err)
	}
	m.gaps.WithLabelValues("not made").Add(float64(out.gaps))
	if out.late > 0 {
		m.gaps.WithLabelValues("late").Add(float64(out.late))
		b.storage.Log.Error("segments were given up, later ones were waiting", "broadcast", b.id, "segments", out.late)
	}
	m.evicted.Add(float64(out.evicted))
}

// standing is how a broadcast's DVR window stands.
type standing struct {
	// left is the first segment that hasn't left it.
	left uint64
	// window is its length, limited is set when there was no room for a longer one.
	window  media.Ticks
	limited bool
	// inits are the hashes of the init sections that are in use.
	inits map[string]bool
}

func (b *broadcastStore) standing() standing {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.catalogue
	return standing{c.left, c.window(), c.limit > 0, c.usedInits()}
}

// squeeze shortens the DVR window for its media to take allowed bytes in place of
// held, if it isn't the shortest already. It reports whether it did.
func (b *broadcastStore) squeeze(held, allowed int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.catalogue
	now, least := c.window(), max(shortestWindow, 4*c.target())
	if now <= least || c.settings == nil {
		return false
	}
	// By a tenth at least: what it takes is known from a while ago.
	share := min(float64(allowed)/float64(max(held, 1)), 0.9)
	b.change(c.writer, func(c change) { c.limitWindow(max(least, media.Ticks(float64(now)*share))) })
	return true
}

// relax lets a DVR window that was shortened grow by a part of itself.
func (b *broadcastStore) relax() {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.catalogue
	if c.limit == 0 {
		return
	}
	wider := c.limit + c.limit/relaxBy
	if wider >= c.dvr {
		wider = 0
	}
	b.change(c.writer, func(c change) { c.limitWindow(wider) })
}

// refused counts media that was not published.
func (b *broadcastStore) refused(err error) {
	reason := "invalid"
	switch {
	case errors.Is(err, errDiffers):
		b.storage.metrics.conflicts.WithLabelValues("part").Inc()
		reason = "differs"
	case errors.Is(err, errOrder):
		reason = "order"
	case errors.Is(err, errGap):
		reason = "gap"
	case errors.Is(err, errVersion):
		reason = "version"
	case errors.Is(err, ErrFenced):
		reason = "fenced"
	}
	b.storage.metrics.refused.WithLabelValues(reason).Inc()
}

// forget ends the follow streams of a broadcast that was over forgetAfter ago,
// and reports whether it was.
func (b *broadcastStore) forget(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over.IsZero() || now.Sub(b.over) < ForgetAfter {
		return false
	}
	b.feed.close()
	return true
}

// Writer is the only way by which what this worker makes of a broadcast
// becomes known: one per grant. Its methods are safe for concurrent use and
// never wait for the network or a disk. A later grant of the same broadcast
// fences it: from that grant's live mark on its methods do nothing, or return
// [ErrFenced]. What comes before that mark it may finish; what is said of the
// broadcast as a whole is the later one's to say.
//
// Within a rendition, a segment is shown after the one before it: what comes
// early is held back, within bounds, until that one is finished, a gap or
// skipped. Segments before the grant's live mark are shown as they come.
type Writer struct {
	store *broadcastStore
	grant jobs.Grant
	// closed is guarded by the store's lock.
	closed bool
}

// wholeBroadcast stands for a sequence in what only the newest grant may say.
const wholeBroadcast = ^uint64(0)

// do calls fn, which is about a segment, while this publication may speak of it.
func (p *Writer) do(sequence uint64, fn func(change) error) error {
	b := p.store
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.closed || !b.catalogue.mayPublish(p.grant.Epoch, sequence) {
		b.refused(ErrFenced)
		return ErrFenced
	}
	var err error
	b.change(p.grant.Epoch, func(c change) { err = fn(c) })
	if err != nil {
		b.refused(err)
	}
	return err
}

// announce is do for what can only be refused by a later grant: no news then.
func (p *Writer) announce(sequence uint64, fn func(change)) {
	_ = p.do(sequence, func(c change) error {
		fn(c)
		return nil
	})
}

// Broadcast announces the settings and all renditions. It comes first, and
// again when the settings have changed.
func (p *Writer) Broadcast(b index.Broadcast) {
	p.announce(wholeBroadcast, func(c change) { c.announceBroadcast(b) })
}

// Init announces and stores an init section. e carries its codec, its picture's
// size and the ingest's epoch. Said again, it does nothing.
func (p *Writer) Init(rendition string, init *media.Init, e index.Entry) {
	p.announce(0, func(c change) { c.announceInit(rendition, init, e) })
}

// Restore takes the index entries of earlier workers from Redis, so that new
// readers are told of their segments, and so that safe counts them. It may come
// while media is published already.
func (p *Writer) Restore(entries []index.Entry) {
	p.announce(wholeBroadcast, func(c change) { c.restore(entries) })
}

// Part publishes a part; it keeps data, which must not change any more. A part
// that exists with the same bytes is no error; with others it is [errDiffers].
func (p *Writer) Part(e index.Entry, data []byte) error {
	return p.do(e.Sequence, func(c change) error { return c.part(e, data) })
}

// Finish publishes the last part of a segment and the segment, in one step, and
// sends the segment on its way to S3. data may be empty when all parts are
// published already. Parts and Size of seg are filled in.
func (p *Writer) Finish(last index.Entry, data []byte, seg index.Entry) error {
	return p.do(seg.Sequence, func(c change) error { return c.finish(last, data, seg) })
}

// Gap declares a segment missing for good. A complete segment stays.
func (p *Writer) Gap(e index.Entry) {
	p.announce(e.Sequence, func(c change) {
		_ = c.gap(e) // a gap is never refused
	})
}

// Skip says that a rendition has no such segment: nothing is announced, and
// neither safe, finished nor later segments wait for it.
func (p *Writer) Skip(rendition string, sequence uint64) {
	p.announce(sequence, func(c change) { _ = c.skip(rendition, sequence) }) // nor is this
}

// Pause announces that the publisher is away; segment sequence, when it comes, resumes.
func (p *Writer) Pause(sequence uint64, reason string) {
	p.announce(wholeBroadcast, func(c change) { c.pause(sequence, reason) })
}

// End announces the broadcast's end; sequence is one past its last segment.
// The retention of its objects begins, and this worker forgets it after a minute.
func (p *Writer) End(sequence uint64, reason string) {
	p.announce(wholeBroadcast, func(c change) {
		c.end(sequence, reason)
		p.store.over = time.Now()
		p.store.storage.recorder.noteEnd(p.store.id, p.store.over)
	})
}

// Close says that nothing more is published. What is held stays readable for a
// minute after the last publication's; uploads go on.
func (p *Writer) Close() {
	b := p.store
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	b.catalogue.closeGrant(p.grant.Epoch)
	if b.open--; b.open == 0 && b.over.IsZero() {
		b.over = time.Now()
	}
}

// Thumbnail replaces the newest picture; it keeps jpeg.
func (p *Writer) Thumbnail(jpeg []byte) {
	p.announce(wholeBroadcast, func(c change) { c.thumbnail = jpeg })
}

// Safe is the first sequence that isn't in S3 in every rendition.
func (p *Writer) Safe() uint64 {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	return p.store.catalogue.safe(p.grant)
}

// Finished is the first sequence that isn't complete in every rendition.
func (p *Writer) Finished() uint64 {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	return p.store.catalogue.finished(p.grant)
}

// Window is how far viewers can seek back, where there is no room to keep as much
// as the DVR window; 0: there is.
func (p *Writer) Window() time.Duration {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	return p.store.catalogue.limit.Duration()
}

// Missing declares a segment missing in every rendition in which it isn't known
// to be complete.
func (p *Writer) Missing(sequence uint64, reason string) {
	p.announce(sequence, func(c change) {
		for _, name := range c.names {
			_ = c.gap(c.missing(c.tracks[name], sequence, name, reason)) // a gap is never refused
		}
	})
}
