package ingest

import (
	"time"

	"millrace/internal/jobs"
	"millrace/internal/seal"
)

// grant gives slot n to a worker, or the segments from the next mark on if the
// slot's worker leaves. oldest is the first segment that the log still has.
func (s *slots) grant(n int, address seal.Address, oldest uint64, now time.Time) (c *claim, g jobs.Grant, out outcome, err error) {
	if n < 0 || n >= len(s.list) {
		return nil, g, out, errNoSlot
	}
	t := &s.list[n]
	for i := range s.list {
		if !s.list[i].claim.of(address) && !s.list[i].next.of(address) {
			continue
		}
		if t.refused++; t.refused <= hurries { // another worker may have room
			t.offered = now.Add(hurryInterval - offerInterval)
		}
		return nil, g, out, errSameWorker
	}
	if t.claim != nil && (t.next != nil || !s.wanted(t)) {
		return nil, g, out, errSlotTaken
	}
	at := s.nextMark()
	if t.claim != nil && at == 0 { // nothing was made yet
		out.stop(t.claim, "another worker has taken over")
		t.claim = nil
	}
	t.grants++
	s.grants++
	t.refused = 0
	c = &claim{address: address, epoch: jobs.Epoch{Lease: s.lease, Grant: s.grants}, since: now, seen: now}
	g = jobs.Grant{Epoch: c.epoch, Index: s.resumed || t.grants > 1}
	for i := range s.list {
		g.Standby = g.Standby || i != n && s.list[i].claim != nil
	}
	if t.claim == nil {
		g.Live, g.Backfill = s.unfinished(t, oldest)
		t.claim = c
	} else {
		if t.claim.until == 0 {
			t.claim.until = at
			out.order(t.claim, jobs.Order{Until: at})
		}
		g.Live, g.Backfill = t.claim.until, t.claim.until
		if t.lacks() {
			g.Backfill = min(g.Live, max(t.progress.Safe, oldest))
		}
		t.next = c
	}
	c.backfill = g.Backfill
	c.progress = jobs.Progress{Finished: g.Live, Safe: g.Backfill}
	s.handOver(&out)
	t.update()
	out.note = true
	return c, g, out, nil
}

// unfinished is where a worker begins that takes an empty slot.
func (s *slots) unfinished(t *slot, oldest uint64) (live, backfill uint64) {
	live, backfill = s.reached()
	for _, c := range t.retired {
		if !c.gone { // it makes those itself
			live, backfill = max(live, c.until), max(backfill, c.until)
		}
	}
	if t.lacks() {
		backfill = min(backfill, t.progress.Safe)
	}
	live = max(live, oldest)
	return live, min(max(backfill, oldest), live)
}
