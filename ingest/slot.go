package ingest

import (
	"errors"
	"slices"
	"time"

	"millrace/internal/jobs"
)

const (
	// claimSilence is how long a claim outlives its last sign of progress.
	claimSilence = 1500 * time.Millisecond
	// offerInterval is how often a job that nobody took is offered again.
	offerInterval = time.Second
	// hurryInterval is the same after a worker took a job that it can't have
	// since it has another slot of the broadcast, for hurries times in a row.
	hurryInterval = 150 * time.Millisecond
	hurries       = 8
	// repeatInterval is the same for the first repeats after a worker was lost:
	// Redis may have given the offer to that very worker, which died with it. It is
	// less than a tick: the next one offers again.
	repeatInterval = tickInterval * 8 / 10
	repeats        = 5
)

var (
	errSlotTaken  = errors.New("the slot has a living worker")
	errNoSlot     = errors.New("the broadcast has no such slot")
	errSameWorker = errors.New("this worker has a slot of the broadcast already")
)

// claim is a worker's hold on a slot. Guarded by the broadcast's mu, but for
// address, epoch, since and orders.
type claim struct {
	address  string
	epoch    jobs.Epoch
	since    time.Time
	orders   chan jobs.Order // buffered; one with End is the last
	progress jobs.Progress
	seen     time.Time
	leaving  bool   // the worker wants another one to take over
	until    uint64 // above 0: the segment that it doesn't make any more
	backfill uint64 // the first segment that it was granted
	gone     bool   // it is over, and what it should have stored is missing
}

// slot is a place for a worker on a broadcast. Guarded by the broadcast's mu.
type slot struct {
	claim *claim // nil: a worker is needed
	next  *claim // takes over at the mark of claim.until
	// retired have handed over, and finish what they were granted.
	retired  []*claim
	progress jobs.Progress // of all its claims
	offered  time.Time
	grants   int
	failures int // claims in a row that broke at once
	refused  int // workers in a row that have another slot
	repeats  int // offers that are soon made again
}

// order tells the worker something; it doesn't wait.
func (c *claim) order(o jobs.Order) {
	select {
	case c.orders <- o:
	default: // it has been told of its end
	}
}

func (c *claim) stop(reason string) { c.order(jobs.Order{End: reason}) }

func (c *claim) of(address string) bool { return c != nil && c.address == address }

// update works out what the slot has reached: a segment counts that every claim
// which must make it has made.
func (s *slot) update() {
	if s.claim == nil {
		return // what was reached stays until another worker comes
	}
	p := jobs.Progress{Finished: s.claim.progress.Finished, Safe: s.claim.progress.Safe}
	for _, c := range s.retired {
		if c.progress.Finished < c.until {
			p.Finished = min(p.Finished, c.progress.Finished)
		}
		if c.progress.Safe < c.until {
			p.Safe = min(p.Safe, c.progress.Safe)
		}
	}
	s.progress = p
}

// lacks reports whether a claim that is gone left segments before safe out.
func (s *slot) lacks() bool {
	return slices.ContainsFunc(s.retired, func(c *claim) bool { return c.gone })
}

// reached is what the slots have reached, the furthest one for each. The caller holds mu.
func (b *broadcast) reached() (finished, safe uint64) {
	for i := range b.slots {
		finished = max(finished, b.slots[i].progress.Finished)
		safe = max(safe, b.slots[i].progress.Safe)
	}
	return finished, safe
}

// over reports whether nothing follows in the log. The caller holds mu.
func (b *broadcast) over() bool {
	return !b.ended.IsZero() || !b.moved.IsZero() || !b.stopping.IsZero()
}

// grant gives the slot to a worker, or the segments from the next mark on if
// its worker leaves.
func (b *broadcast) grant(n int, address string, now time.Time) (*claim, jobs.Grant, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n < 0 || n >= len(b.slots) {
		return nil, jobs.Grant{}, errNoSlot
	}
	s := &b.slots[n]
	for i := range b.slots {
		if !b.slots[i].claim.of(address) && !b.slots[i].next.of(address) {
			continue
		}
		if s.refused++; s.refused <= hurries { // another worker may have room
			s.offered = now.Add(hurryInterval - offerInterval)
		}
		return nil, jobs.Grant{}, errSameWorker
	}
	if s.claim != nil && (s.next != nil || !b.wanted(s)) {
		return nil, jobs.Grant{}, errSlotTaken
	}
	at := b.seq.NextMark()
	if s.claim != nil && at == 0 { // nothing was made yet
		s.claim.stop("another worker has taken over")
		s.claim = nil
	}
	s.grants++
	b.grants++
	s.refused = 0
	c := &claim{
		address: address, epoch: jobs.Epoch{Lease: b.epoch, Grant: b.grants},
		since: now, seen: now, orders: make(chan jobs.Order, 4),
	}
	g := jobs.Grant{Epoch: c.epoch, Index: b.resumed || s.grants > 1}
	for i := range b.slots {
		g.Standby = g.Standby || i != n && b.slots[i].claim != nil
	}
	if s.claim == nil {
		g.Live, g.Backfill = b.unfinished(s)
		s.claim = c
	} else {
		if s.claim.until == 0 {
			s.claim.until = at
			s.claim.order(jobs.Order{Until: at})
		}
		g.Live, g.Backfill = s.claim.until, s.claim.until
		if s.lacks() {
			g.Backfill = min(g.Live, max(s.progress.Safe, b.log.Oldest()))
		}
		s.next = c
	}
	c.backfill = g.Backfill
	c.progress = jobs.Progress{Finished: g.Live, Safe: g.Backfill}
	b.passMark()
	s.update()
	b.noteSlots()
	return c, g, nil
}

// unfinished is where a worker begins that takes an empty slot. The caller holds mu.
func (b *broadcast) unfinished(s *slot) (live, backfill uint64) {
	live, backfill = b.reached()
	for _, c := range s.retired {
		if !c.gone { // it makes those itself
			live, backfill = max(live, c.until), max(backfill, c.until)
		}
	}
	if s.lacks() {
		backfill = min(backfill, s.progress.Safe)
	}
	oldest := b.log.Oldest()
	live = max(live, oldest)
	return live, min(max(backfill, oldest), live)
}

// passMark hands slots over whose mark has come. The caller holds mu.
func (b *broadcast) passMark() {
	mark, open := b.seq.Mark()
	for i := range b.slots {
		s := &b.slots[i]
		c := s.claim
		if c == nil || c.until == 0 || open && mark.Sequence < c.until || !open && s.next == nil {
			continue
		}
		s.retired = append(s.retired, c)
		s.claim, s.next = s.next, nil
		if s.claim == nil { // whoever was to take over is gone
			s.offered = time.Time{}
			b.wakeUp()
			continue
		}
		s.retired = slices.DeleteFunc(s.retired, func(c *claim) bool { return c.gone && c.progress.Safe >= s.claim.backfill })
		s.update()
		b.service.metrics.handovers.WithLabelValues("done").Inc()
		b.logger.Info("a worker has handed over", "slot", i, "from", c.address, "to", s.claim.address, "segment", c.until)
	}
}

// report notes progress. Numbers that go back are a worker's fault and don't count.
func (b *broadcast) report(n int, c *claim, p jobs.Progress, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.slots[n]
	if c != s.claim && c != s.next && !slices.Contains(s.retired, c) {
		return
	}
	c.seen = now
	most := b.segments() + 1
	c.progress.Consumed = max(c.progress.Consumed, p.Consumed)
	c.progress.Finished = max(c.progress.Finished, min(p.Finished, most))
	c.progress.Safe = max(c.progress.Safe, min(p.Safe, c.progress.Finished))
	c.progress.Shed = p.Shed
	s.update()
	if p.Leaving && !c.leaving {
		c.leaving = true
		if c == s.claim && s.next == nil {
			b.logger.Info("a worker wants to leave", "slot", n, "worker", c.address)
			s.offered = time.Time{}
			b.wakeUp()
		}
	}
}

// shed is how many rungs viewers miss: a slot that makes them all is enough.
// The caller holds mu.
func (b *broadcast) shed() int {
	least := -1
	for i := range b.slots {
		if c := b.slots[i].claim; c != nil && (least < 0 || c.progress.Shed < least) {
			least = c.progress.Shed
		}
	}
	return max(least, 0)
}

// lose notes that a claim is over, and reports whether that was too early.
// The caller holds mu.
func (b *broadcast) lose(n int, c *claim, now time.Time) (early bool) {
	s := &b.slots[n]
	switch {
	case c == s.next:
		s.next, s.offered = nil, time.Time{}
		b.service.metrics.handovers.WithLabelValues("successor_lost").Inc()
	case c == s.claim:
		s.claim = nil
		b.dropNext(s, "worker_lost")
		b.offerAfter(s, c, now)
	case !slices.Contains(s.retired, c) || c.gone:
		return false
	case c.progress.Safe >= c.until:
		s.retired = slices.DeleteFunc(s.retired, func(o *claim) bool { return o == c })
		s.update()
		return false
	case c.progress.Finished < c.until:
		// Viewers wait for those segments: somebody makes them, and goes on.
		s.retired = slices.DeleteFunc(s.retired, func(o *claim) bool { return o == c })
		b.dropNext(s, "worker_lost")
		if s.claim != nil {
			s.claim.stop("segments before its own are missing: another grant begins there")
			s.claim = nil
		}
		s.offered = time.Time{}
	default:
		c.gone = true
	}
	b.noteSlots()
	b.wakeUp()
	return true
}

// dropNext sends away who was to take over: its grant begins too late.
func (b *broadcast) dropNext(s *slot, result string) {
	if s.next == nil {
		return
	}
	b.service.metrics.handovers.WithLabelValues(result).Inc()
	s.next.stop("the worker before it was lost: another grant begins earlier")
	s.next = nil
}

// offerAfter offers the slot at once, unless its claims break at once again and again.
func (b *broadcast) offerAfter(s *slot, c *claim, now time.Time) {
	if now.Sub(c.since) >= offerInterval {
		s.failures = 0
	} else {
		s.failures++
	}
	if s.failures <= 1 {
		s.offered, s.repeats = time.Time{}, repeats
	}
}

// release ends a claim whose connection is over.
func (b *broadcast) release(n int, c *claim) (early bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lose(n, c, time.Now())
}

// endClaims ends every claim, telling the workers why.
func (b *broadcast) endClaims(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.slots {
		for _, c := range b.slots[i].all() {
			c.stop(reason)
		}
	}
}

// all are the claims that live.
func (s *slot) all() (list []*claim) {
	for _, c := range append(slices.Clone(s.retired), s.claim, s.next) {
		if c != nil && !c.gone {
			list = append(list, c)
		}
	}
	return list
}

// wanted reports whether a worker is looked for. The caller holds mu.
func (b *broadcast) wanted(s *slot) bool {
	switch {
	case b.drained || !b.stopping.IsZero():
		return false
	case s.claim == nil:
		_, safe := b.reached()
		return !b.over() || safe < b.segments()
	default:
		return s.next == nil && !b.over() && (s.claim.leaving || s.lacks())
	}
}

// reapSilent ends claims without progress and returns the slots that need a worker.
func (b *broadcast) reapSilent(now time.Time) (offer []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Where this process itself stood still, lines of progress wait to be read.
	stood := now.Sub(b.reaped)
	if b.reaped.IsZero() || stood <= 3*tickInterval {
		stood = 0
	}
	b.reaped = now
	for i := range b.slots {
		s := &b.slots[i]
		for _, c := range s.all() {
			c.seen = c.seen.Add(stood)
			if now.Sub(c.seen) <= claimSilence {
				continue
			}
			b.service.metrics.claimsLost.WithLabelValues("silent").Inc()
			b.logger.Warn("worker is silent, its claim ends", "slot", i, "worker", c.address)
			c.stop("no progress for " + claimSilence.String())
			b.lose(i, c, now)
		}
		b.forgetLost(i)
		if b.wanted(s) && now.Sub(s.offered) >= offerInterval {
			s.offered = now
			if s.repeats > 0 {
				s.repeats--
				s.offered = now.Add(repeatInterval - offerInterval)
			}
			offer = append(offer, i)
		}
	}
	return offer
}

// forgetLost gives up segments that nobody stored and that the log no longer
// has, and those that another slot's worker stored. The caller holds mu.
func (b *broadcast) forgetLost(n int) {
	s := &b.slots[n]
	if !s.lacks() {
		return
	}
	oldest := b.log.Oldest()
	_, safe := b.reached()
	s.retired = slices.DeleteFunc(s.retired, func(c *claim) bool {
		if !c.gone || c.progress.Safe >= oldest && safe < c.until {
			return false
		}
		if safe < c.until {
			b.logger.Warn("segments were not stored and can't be made again", "slot", n, "from", c.progress.Safe, "to", c.until)
		}
		return true
	})
	s.update()
}

// finish ends claims that have nothing left to do for a broadcast that is
// over, and reports whether all is stored. The caller holds mu.
func (b *broadcast) finish() (stored bool) {
	end := b.segments()
	_, safe := b.reached()
	stored = safe >= end
	for i := range b.slots {
		s := &b.slots[i]
		for _, c := range s.all() {
			done := c.progress.Safe >= end || c.until > 0 && c.progress.Safe >= c.until
			switch {
			case !done:
				stored = false
			case c == s.claim && s.lacks():
				// A worker is needed for what an earlier one left out.
				c.stop("segments before its own are missing: another grant begins there")
				s.claim, s.offered = nil, time.Time{}
			case !b.moved.IsZero():
				c.stop(overMoved)
			}
		}
	}
	return stored
}

// unclaimed is how many slots need a worker and have none, and whether those are all.
func (b *broadcast) unclaimed() (n int, all bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.slots {
		if s := &b.slots[i]; s.claim == nil && b.wanted(s) {
			n++
		}
	}
	return n, n > 0 && n == len(b.slots)
}
