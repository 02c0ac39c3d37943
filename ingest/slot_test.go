package ingest

import (
	"errors"
	"testing"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/media"
	"millrace/internal/relay"
)

// slots is a broadcast with pictures, whose slots are played with by hand.
type slots struct {
	*broadcast
	t      *testing.T
	now    time.Time
	filmed uint32 // ms
}

func newSlots(t *testing.T, n int) *slots {
	b, _ := testBroadcast(t)
	b.slots = make([]slot, n)
	s := &slots{broadcast: b, t: t, now: time.Now()}
	return s
}

// open opens segment n, as a publisher does.
func (s *slots) open(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for mark, open := s.seq.Mark(); mark.Sequence < n || !open; mark, open = s.seq.Mark() {
		if s.filmed == 0 {
			s.seq.Attach(false)
			s.seq.SetVideo(&media.AVCConfig{})
		}
		s.seq.PushVideo(s.filmed, 0, true, []byte{1}, s.now)
		s.seq.Tick(s.now.Add(time.Second)) // nothing more is waited for
		s.filmed += 2000
	}
}

func (s *slots) pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq.Pause()
}

func (s *slots) take(n int, name string) (*claim, jobs.Grant) {
	s.t.Helper()
	c, g, err := s.grant(n, name, s.now)
	if err != nil {
		s.t.Fatalf("%s didn't get slot %d: %v", name, n, err)
	}
	return c, g
}

func (s *slots) refuse(n int, name string, want error) {
	s.t.Helper()
	if _, _, err := s.grant(n, name, s.now); !errors.Is(err, want) {
		s.t.Errorf("%s got %v for slot %d, want %v", name, err, n, want)
	}
}

func (s *slots) offers(want ...int) {
	s.t.Helper()
	got := s.reapSilent(s.now)
	if len(got) != len(want) {
		s.t.Errorf("offered are %v, want %v", got, want)
	}
}

func (s *slots) told(c *claim, want jobs.Order) {
	s.t.Helper()
	select {
	case o := <-c.orders:
		if o.Until != want.Until || (o.End != "") != (want.End != "") {
			s.t.Errorf("%s was told %+v, want %+v", c.address, o, want)
		}
	default:
		s.t.Errorf("%s was told nothing, want %+v", c.address, want)
	}
}

func (s *slots) untold(c *claim) {
	s.t.Helper()
	if len(c.orders) > 0 {
		s.t.Errorf("%s was told %+v", c.address, <-c.orders)
	}
}

func (s *slots) is(live, backfill uint64, g jobs.Grant) {
	s.t.Helper()
	if g.Live != live || g.Backfill != backfill {
		s.t.Errorf("the grant is %+v, want live %d and backfill %d", g, live, backfill)
	}
}

var ended = jobs.Order{End: "some reason"}

// An ingest that stood still itself ends no claim of workers that report.
func TestIngestThatStoodStill(t *testing.T) {
	s := newSlots(t, 1)
	s.open(1)
	a, _ := s.take(0, "a")
	s.offers()
	s.now = s.now.Add(5 * time.Second)
	s.offers()
	if s.slots[0].claim != a {
		t.Fatal("the claim was ended by the ingest's own standstill")
	}
	for range int(claimSilence/tickInterval) + 1 {
		s.now = s.now.Add(tickInterval)
		s.reapSilent(s.now)
	}
	if s.slots[0].claim != nil {
		t.Error("a worker that is silent keeps its claim")
	}
}

// Under a lease no two grants have one number, whatever their slots: a worker that
// changes slots isn't taken for one that was there before it.
func TestGrantsHaveNumbersOfTheirOwn(t *testing.T) {
	s := newSlots(t, 2)
	s.open(1)
	a, _ := s.take(0, "a")
	b, _ := s.take(1, "b")
	s.release(0, a)
	c, _ := s.take(0, "c")
	s.release(1, b)
	again, _ := s.take(1, "a")
	for _, pair := range [][2]*claim{{a, b}, {b, c}, {c, again}} {
		if !pair[0].epoch.Less(pair[1].epoch) {
			t.Errorf("%s got %+v after %+v of %s", pair[1].address, pair[1].epoch, pair[0].epoch, pair[0].address)
		}
	}
}

// A worker that leaves makes what comes before the next mark, another one the rest.
func TestHandover(t *testing.T) {
	s := newSlots(t, 1)
	s.open(3)
	old, g := s.take(0, "a")
	s.is(0, 0, g)
	s.refuse(0, "b", errSlotTaken)
	s.report(0, old, jobs.Progress{Finished: 3, Safe: 1}, s.now)
	s.offers()
	s.report(0, old, jobs.Progress{Finished: 3, Safe: 1, Leaving: true}, s.now)
	s.offers(0)
	s.refuse(0, "a", errSameWorker)
	next, g := s.take(0, "b")
	s.is(4, 4, g)
	if !old.epoch.Less(g.Epoch) || !g.Index {
		t.Errorf("the grant is %+v", g)
	}
	s.told(old, jobs.Order{Until: 4})
	s.refuse(0, "c", errSlotTaken)
	s.open(4)
	if s.slots[0].claim != next || s.holders()[0].Address != "b" {
		t.Error("the mark handed nothing over")
	}
	s.report(0, next, jobs.Progress{Finished: 4, Safe: 4}, s.now)
	if p := s.slots[0].progress; p.Finished != 3 || p.Safe != 1 {
		t.Errorf("together they have reached %+v", p)
	}
	s.report(0, old, jobs.Progress{Finished: 4, Safe: 4}, s.now)
	if early := s.release(0, old); early {
		t.Error("the old worker went too early")
	}
	s.untold(next)
	if p := s.slots[0].progress; p.Finished != 4 || p.Safe != 4 {
		t.Errorf("together they have reached %+v", p)
	}
	s.offers()
}

// While the publisher is away, a slot changes hands at once.
func TestHandoverInAPause(t *testing.T) {
	s := newSlots(t, 1)
	s.open(3)
	old, _ := s.take(0, "a")
	s.pause()
	s.report(0, old, jobs.Progress{Finished: 4, Safe: 1, Leaving: true}, s.now)
	next, g := s.take(0, "b")
	s.is(4, 4, g)
	s.told(old, jobs.Order{Until: 4})
	if s.slots[0].claim != next {
		t.Error("nothing was handed over")
	}
	s.open(4)
	s.untold(next)
}

// Whatever breaks on the way, no segment is left out.
func TestHandoverBroken(t *testing.T) {
	begin := func(t *testing.T) (s *slots, old, next *claim) {
		s = newSlots(t, 1)
		s.open(3)
		old, _ = s.take(0, "a")
		s.report(0, old, jobs.Progress{Finished: 3, Safe: 1, Leaving: true}, s.now)
		next, _ = s.take(0, "b")
		s.told(old, jobs.Order{Until: 4})
		return s, old, next
	}
	t.Run("the old worker before the mark", func(t *testing.T) {
		s, old, next := begin(t)
		s.release(0, old)
		s.told(next, ended)
		s.offers(0)
		_, g := s.take(0, "b")
		s.is(3, 1, g)
	})
	t.Run("the old worker after the mark", func(t *testing.T) {
		s, old, next := begin(t)
		s.open(4)
		s.release(0, old)
		s.told(next, ended)
		s.offers(0)
		_, g := s.take(0, "b")
		s.is(3, 1, g)
	})
	t.Run("the old worker before all is stored", func(t *testing.T) {
		s, old, next := begin(t)
		s.open(5)
		s.report(0, old, jobs.Progress{Finished: 4, Safe: 2}, s.now)
		s.report(0, next, jobs.Progress{Finished: 5, Safe: 5}, s.now)
		s.release(0, old)
		s.untold(next)
		s.offers(0) // somebody who stores it, from the next mark on
		_, g := s.take(0, "c")
		s.is(6, 2, g)
		s.told(next, jobs.Order{Until: 6})
		s.open(6)
		if p := s.slots[0].progress; s.slots[0].lacks() || p.Safe != 2 {
			t.Errorf("reached is %+v", p)
		}
	})
	t.Run("the new worker before the mark", func(t *testing.T) {
		s, old, next := begin(t)
		s.release(0, next)
		s.untold(old)
		s.offers(0)
		third, g := s.take(0, "c")
		s.is(4, 4, g)
		s.untold(old)
		s.open(4)
		if s.slots[0].claim != third {
			t.Error("nothing was handed over")
		}
	})
	t.Run("the new worker, and nobody else", func(t *testing.T) {
		s, _, next := begin(t)
		s.release(0, next)
		s.open(4)
		s.offers(0)
		_, g := s.take(0, "c")
		s.is(4, 4, g)
	})
	t.Run("the new worker after the mark", func(t *testing.T) {
		s, old, next := begin(t)
		s.open(5)
		s.report(0, old, jobs.Progress{Finished: 4, Safe: 4}, s.now)
		s.report(0, next, jobs.Progress{Finished: 5, Safe: 4}, s.now)
		s.release(0, next)
		s.offers(0)
		_, g := s.take(0, "c")
		s.is(5, 4, g)
	})
}

// A slot whose worker broke is offered at once; one whose workers break at
// once, over and over, once a second.
func TestSlotBackOff(t *testing.T) {
	s := newSlots(t, 1)
	s.open(0)
	s.offers(0)
	for i, want := range [][]int{{0}, {}, {}} {
		c, _ := s.take(0, "a")
		s.lose(0, c, s.now)
		if got := s.reapSilent(s.now); len(got) != len(want) {
			t.Errorf("break %d: offered are %v, want %v", i, got, want)
		}
	}
	s.now = s.now.Add(offerInterval)
	s.offers(0)
	c, _ := s.take(0, "a")
	s.now = s.now.Add(offerInterval)
	c.seen = s.now
	s.lose(0, c, s.now)
	for range 1 + repeats { // the first may have gone to the worker that died
		s.offers(0)
		s.offers()
		s.now = s.now.Add(repeatInterval)
	}
	s.offers()
}

// A standby is another worker, begins where viewers are, and stores what isn't stored.
func TestSlotStandby(t *testing.T) {
	s := newSlots(t, 2)
	s.open(0)
	s.offers(0, 1)
	a, _ := s.take(0, "a")
	s.refuse(1, "a", errSameWorker)
	s.now = s.now.Add(hurryInterval)
	a.seen = s.now
	s.offers(1) // not only in a second
	s.open(6)
	s.report(0, a, jobs.Progress{Finished: 5, Safe: 3}, s.now)
	b, g := s.take(1, "b")
	s.is(5, 3, g)
	s.end("done")
	s.report(0, a, jobs.Progress{Finished: 7, Safe: 7}, s.now)
	if _, over := s.step(s.now); over {
		t.Error("the standby's segments don't count")
	}
	s.release(1, b)
	if _, over := s.step(s.now); !over {
		t.Error("it waits for nobody")
	}
}

// A Redis that lost its memory hears of the slots again.
func TestSlotsNotedAgain(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{Redundancy: 2})
	s.encoder(tags)
	var id string
	eventually(t, "the broadcast", func() bool {
		b := s.service.broadcastOf("demo")
		if b != nil {
			id = b.id
		}
		return b != nil
	})
	s.read(id).expect(relay.Open, 1)
	first := s.claimSlot(id, s.client, 0, "http://127.0.0.1:7")
	second := s.claimSlot(id, s.client, 1, "http://127.0.0.1:8")
	known := func() bool {
		first.report(jobs.Progress{})
		second.report(jobs.Progress{})
		slots, err := lease.Slots(t.Context(), s.db, id)
		return err == nil && len(slots) == 2 && slots[1].Address == "http://127.0.0.1:8"
	}
	eventually(t, "the slots", known)
	if err := s.db.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slots again", known)
	eventually(t, "the lease again", func() bool {
		r, err := lease.Read(t.Context(), s.db, "demo")
		return err == nil && r.Broadcast == id
	})
	s.job = "0"
	first.up.Close()
	eventually(t, "the workers' group", func() bool {
		second.report(jobs.Progress{})
		groups, err := s.db.XInfoGroups(t.Context(), jobs.Stream).Result()
		return err == nil && len(groups) == 1
	})
}

// The streamer learns that qualities are missing, unless a standby makes them.
func TestShedIsTold(t *testing.T) {
	s := newSlots(t, 2)
	s.open(3)
	a, _ := s.take(0, "a")
	p := &publisher{broadcast: s.broadcast, logger: s.logger}
	told := func() bool {
		p.judge(nil, &summary{})
		_, ok := p.has[problemShed]
		return ok
	}
	s.report(0, a, jobs.Progress{Finished: 3, Shed: 2}, s.now)
	if !told() {
		t.Error("nobody is told of two shed rungs")
	}
	b, g := s.take(1, "b")
	if !g.Standby {
		t.Error("the standby isn't told that there is no hurry")
	}
	s.report(1, b, jobs.Progress{Finished: 3}, s.now)
	if told() {
		t.Error("a rung that the standby makes is called missing")
	}
	s.report(1, b, jobs.Progress{Finished: 3, Shed: 1}, s.now)
	if !told() {
		t.Error("nobody is told of a rung that neither worker makes")
	}
}
