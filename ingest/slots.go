package ingest

import (
	"errors"
	"slices"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/relay"
	"millrace/internal/seal"
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

// earlierMissing is what a worker is told that makes segments behind a hole.
const earlierMissing = "segments before its own are missing: another grant begins there"

// claim is a worker's hold on a slot.
type claim struct {
	address  seal.Address
	epoch    jobs.Epoch
	since    time.Time
	progress jobs.Progress
	seen     time.Time // when progress last came
	leaving  bool      // the worker wants another one to take over
	until    uint64    // above 0: the segment that it doesn't make any more
	backfill uint64    // the first segment that it was granted
	gone     bool      // it is over, and what it should have stored is missing
}

// slot is a place for a worker on a broadcast.
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

// slots decide which workers make a broadcast, and which segments each of them.
// They do no I/O, read no clock, and know of the log only what they are told:
// the newest mark, the oldest segment, and the broadcast's phase. What is to be
// done is in the [outcome] of each call. Not safe for concurrent use.
type slots struct {
	list    []slot
	lease   uint64 // the ingest's epoch on the channel
	resumed bool   // an ingest before this one began the broadcast
	grants  uint64 // of all slots: no two under a lease have one number
	looked  time.Time

	sequence uint64 // of the newest mark
	open     bool   // its segment is open
	phase    phase
	done     bool // no worker is looked for any more
}

// outcome is what a call to [slots] has others do.
type outcome struct {
	orders []order
	news   []news
	// wake: the slots should be looked at before the next tick; note: edges
	// should be told who has them.
	wake, note bool
}

// order is what a claim's worker is to be told.
type order struct {
	claim *claim
	say   jobs.Order
}

// news is what happened to a slot, for the log and the metrics.
type news struct {
	kind  newsKind
	slot  int
	claim *claim // whose claim it is about
	to    *claim // handedOver: who has the slot now
	// segment is the claim's until; from, of notStored, the first segment that is missing.
	segment, from uint64
}

type newsKind int

const (
	handedOver    newsKind = iota // at the mark of claim.until
	successorLost                 // claim was to take over
	workerLost                    // claim was to take over, from a worker that is lost
	wantsToLeave
	fellSilent
	notStored // segments up to claim.until were not stored, and can't be made again
)

// newSlots makes n empty slots. With before not nil the broadcast goes on from there.
func newSlots(n int, lease uint64, before *relay.Handoff) slots {
	s := slots{list: make([]slot, n), lease: lease}
	if before == nil {
		return s
	}
	s.resumed, s.sequence, s.phase = true, before.Mark.Sequence, reconnecting
	for i := range s.list {
		s.list[i].progress = jobs.Progress{Finished: s.sequence, Safe: s.sequence}
	}
	return s
}

func (o *outcome) order(c *claim, say jobs.Order) { o.orders = append(o.orders, order{c, say}) }

func (o *outcome) stop(c *claim, reason string) { o.order(c, jobs.Order{End: reason}) }

func (o *outcome) tell(n news) { o.news = append(o.news, n) }

func (c *claim) of(address seal.Address) bool { return c != nil && c.address == address }

// update works out what the slot has reached: a segment counts that every claim
// which must make it has made.
func (t *slot) update() {
	if t.claim == nil {
		return // what was reached stays until another worker comes
	}
	p := jobs.Progress{Finished: t.claim.progress.Finished, Safe: t.claim.progress.Safe}
	for _, c := range t.retired {
		if c.progress.Finished < c.until {
			p.Finished = min(p.Finished, c.progress.Finished)
		}
		if c.progress.Safe < c.until {
			p.Safe = min(p.Safe, c.progress.Safe)
		}
	}
	t.progress = p
}

// lacks reports whether a claim that is gone left segments before safe out.
func (t *slot) lacks() bool {
	return slices.ContainsFunc(t.retired, func(c *claim) bool { return c.gone })
}

// nextMark is the sequence of the mark that comes next.
func (s *slots) nextMark() uint64 {
	if s.open {
		return s.sequence + 1
	}
	return s.sequence
}

// reached is what the slots have reached, the furthest one for each.
func (s *slots) reached() (finished, safe uint64) {
	for i := range s.list {
		finished = max(finished, s.list[i].progress.Finished)
		safe = max(safe, s.list[i].progress.Safe)
	}
	return finished, safe
}

// pass notes the newest mark, and hands slots over whose mark has come.
func (s *slots) pass(m relay.Mark) (out outcome) {
	s.sequence, s.open = m.Sequence, m.Kind == relay.Open
	s.handOver(&out)
	return out
}

func (s *slots) handOver(out *outcome) {
	for i := range s.list {
		t := &s.list[i]
		c := t.claim
		if c == nil || c.until == 0 || s.open && s.sequence < c.until || !s.open && t.next == nil {
			continue
		}
		t.retired = append(t.retired, c)
		t.claim, t.next = t.next, nil
		if t.claim == nil { // whoever was to take over is gone
			t.offered = time.Time{}
			out.wake = true
			continue
		}
		t.retired = slices.DeleteFunc(t.retired, func(c *claim) bool { return c.gone && c.progress.Safe >= t.claim.backfill })
		t.update()
		out.tell(news{kind: handedOver, slot: i, claim: c, to: t.claim, segment: c.until})
	}
}

// report notes progress. Numbers that go back are a worker's fault and don't count.
func (s *slots) report(n int, c *claim, p jobs.Progress, now time.Time) (out outcome) {
	t := &s.list[n]
	if c != t.claim && c != t.next && !slices.Contains(t.retired, c) {
		return out
	}
	c.seen = now
	most := s.sequence + 1
	c.progress.Consumed = max(c.progress.Consumed, p.Consumed)
	c.progress.Finished = max(c.progress.Finished, min(p.Finished, most))
	c.progress.Safe = max(c.progress.Safe, min(p.Safe, c.progress.Finished))
	c.progress.Shed, c.progress.Failing, c.progress.Window = p.Shed, p.Failing, p.Window
	t.update()
	if p.Leaving && !c.leaving {
		c.leaving = true
		if c == t.claim && t.next == nil {
			out.tell(news{kind: wantsToLeave, slot: n, claim: c})
			t.offered = time.Time{}
			out.wake = true
		}
	}
	return out
}

// shed is how many rungs viewers miss: a slot that makes them all is enough.
func (s *slots) shed() int {
	least := -1
	for i := range s.list {
		if c := s.list[i].claim; c != nil && (least < 0 || c.progress.Shed < least) {
			least = c.progress.Shed
		}
	}
	return max(least, 0)
}

// window is how far viewers can seek back, in seconds, where there is no room for
// more; 0: as far as ever.
func (s *slots) window() int {
	least := 0
	for i := range s.list {
		if c := s.list[i].claim; c != nil && c.progress.Window > 0 && (least == 0 || c.progress.Window < least) {
			least = c.progress.Window
		}
	}
	return least
}

// failing reports whether no slot makes rungs, since processes die of what is sent.
func (s *slots) failing() bool {
	any := false
	for i := range s.list {
		if c := s.list[i].claim; c != nil {
			if any = true; !c.progress.Failing {
				return false
			}
		}
	}
	return any
}

// release notes that a claim's connection is over, and reports whether that was
// too early.
func (s *slots) release(n int, c *claim, now time.Time) (early bool, out outcome) {
	early = s.lose(n, c, now, &out)
	return early, out
}

func (s *slots) lose(n int, c *claim, now time.Time, out *outcome) (early bool) {
	t := &s.list[n]
	switch {
	case c == t.next:
		t.next, t.offered = nil, time.Time{}
		out.tell(news{kind: successorLost, slot: n, claim: c})
	case c == t.claim:
		t.claim = nil
		t.dropNext(n, out)
		t.offerAfter(c, now)
	case !slices.Contains(t.retired, c) || c.gone:
		return false
	case c.progress.Safe >= c.until:
		t.retired = slices.DeleteFunc(t.retired, func(o *claim) bool { return o == c })
		t.update()
		return false
	case c.progress.Finished < c.until:
		// Viewers wait for those segments: somebody makes them, and goes on.
		t.retired = slices.DeleteFunc(t.retired, func(o *claim) bool { return o == c })
		t.dropNext(n, out)
		if t.claim != nil {
			out.stop(t.claim, earlierMissing)
			t.claim = nil
		}
		t.offered = time.Time{}
	default:
		c.gone = true
	}
	out.note, out.wake = true, true
	return true
}

// dropNext sends away who was to take over: its grant begins too late.
func (t *slot) dropNext(n int, out *outcome) {
	if t.next == nil {
		return
	}
	out.tell(news{kind: workerLost, slot: n, claim: t.next})
	out.stop(t.next, "the worker before it was lost: another grant begins earlier")
	t.next = nil
}

// offerAfter has the slot offered at once, unless its claims break at once again and again.
func (t *slot) offerAfter(c *claim, now time.Time) {
	if now.Sub(c.since) >= offerInterval {
		t.failures = 0
	} else {
		t.failures++
	}
	if t.failures <= 1 {
		t.offered, t.repeats = time.Time{}, repeats
	}
}

// endClaims has every worker told why its claim ends.
func (s *slots) endClaims(reason string) (out outcome) {
	for i := range s.list {
		for _, c := range s.list[i].all() {
			out.stop(c, reason)
		}
	}
	return out
}

// all are the claims that live.
func (t *slot) all() (list []*claim) {
	for _, c := range append(slices.Clone(t.retired), t.claim, t.next) {
		if c != nil && !c.gone {
			list = append(list, c)
		}
	}
	return list
}

// abandoned reports whether no worker is left.
func (s *slots) abandoned() bool {
	return !slices.ContainsFunc(s.list, func(t slot) bool { return len(t.all()) > 0 })
}

// wanted reports whether a worker is looked for.
func (s *slots) wanted(t *slot) bool {
	switch {
	case s.done || s.phase.stops():
		return false
	case t.claim == nil:
		_, safe := s.reached()
		return !s.phase.over() || safe < s.sequence
	default:
		return t.next == nil && !s.phase.over() && (t.claim.leaving || t.lacks())
	}
}

// look ends claims without progress, and returns the slots that need a worker.
// oldest is the first segment that the log still has.
func (s *slots) look(oldest uint64, now time.Time) (offer []int, out outcome) {
	// Where this process itself stood still, lines of progress wait to be read.
	stood := now.Sub(s.looked)
	if s.looked.IsZero() || stood <= 3*tickInterval {
		stood = 0
	}
	s.looked = now
	for i := range s.list {
		t := &s.list[i]
		for _, c := range t.all() {
			c.seen = c.seen.Add(stood)
			if now.Sub(c.seen) <= claimSilence {
				continue
			}
			out.tell(news{kind: fellSilent, slot: i, claim: c})
			out.stop(c, "no progress for "+claimSilence.String())
			s.lose(i, c, now, &out)
		}
		s.forgetLost(i, oldest, &out)
		if s.wanted(t) && now.Sub(t.offered) >= offerInterval {
			t.offered = now
			if t.repeats > 0 {
				t.repeats--
				t.offered = now.Add(repeatInterval - offerInterval)
			}
			offer = append(offer, i)
		}
	}
	return offer, out
}

// forgetLost gives up segments that nobody stored and that the log no longer
// has, and those that another slot's worker stored.
func (s *slots) forgetLost(n int, oldest uint64, out *outcome) {
	t := &s.list[n]
	if !t.lacks() {
		return
	}
	_, safe := s.reached()
	t.retired = slices.DeleteFunc(t.retired, func(c *claim) bool {
		if !c.gone || c.progress.Safe >= oldest && safe < c.until {
			return false
		}
		if safe < c.until {
			out.tell(news{kind: notStored, slot: n, claim: c, from: c.progress.Safe, segment: c.until})
		}
		return true
	})
	t.update()
}

// wrapUp ends claims that have nothing left to do for a broadcast that is over,
// and reports whether no worker is needed any more: all is stored, or there is
// no time left, or this ingest stops and has no worker.
func (s *slots) wrapUp(noTime bool) (done bool, out outcome) {
	end := s.sequence
	_, safe := s.reached()
	stored := safe >= end
	for i := range s.list {
		t := &s.list[i]
		for _, c := range t.all() {
			idle := c.progress.Safe >= end || c.until > 0 && c.progress.Safe >= c.until
			switch {
			case !idle:
				stored = false
			case c == t.claim && t.lacks():
				// A worker is needed for what an earlier one left out.
				out.stop(c, earlierMissing)
				t.claim, t.offered = nil, time.Time{}
			case s.phase.hasMoved():
				out.stop(c, overMoved)
			}
		}
	}
	s.done = stored || noTime || s.phase.stops() && s.abandoned()
	return s.done, out
}

// unclaimed is how many slots need a worker and have none, and whether those are all.
func (s *slots) unclaimed() (n int, all bool) {
	for i := range s.list {
		if t := &s.list[i]; t.claim == nil && s.wanted(t) {
			n++
		}
	}
	return n, n > 0 && n == len(s.list)
}

// holders says which worker edges should follow in each slot: who takes over
// next, so that they know it by then.
func (s *slots) holders() map[int]jobs.Slot {
	list := map[int]jobs.Slot{}
	for i := range s.list {
		c := s.list[i].next
		if c == nil {
			c = s.list[i].claim
		}
		if c != nil && !s.phase.hasMoved() {
			list[i] = jobs.Slot{Address: c.address, Epoch: c.epoch}
		}
	}
	return list
}
