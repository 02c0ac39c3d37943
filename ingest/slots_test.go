package ingest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/relay"
	"millrace/internal/seal"
)

// crew are the slots of a broadcast with pictures, played with by hand.
type crew struct {
	slots
	t      *testing.T
	now    time.Time
	orders map[*claim][]jobs.Order // that weren't looked at yet
	news   []news
}

func newCrew(t *testing.T, n int) *crew {
	return &crew{slots: newSlots(n, 7, nil), t: t, now: time.Now(), orders: map[*claim][]jobs.Order{}}
}

// note takes what comes of a call.
func (s *crew) note(out outcome) {
	for _, o := range out.orders {
		s.orders[o.claim] = append(s.orders[o.claim], o.say)
	}
	s.news = append(s.news, out.news...)
}

// mark passes marks up to the one that opens segment n.
func (s *crew) mark(n uint64) {
	for s.sequence < n || !s.open {
		s.note(s.pass(relay.Mark{Kind: relay.Open, Sequence: s.nextMark()}))
	}
}

func (s *crew) pause() { s.note(s.pass(relay.Mark{Kind: relay.Pause, Sequence: s.nextMark()})) }

func (s *crew) end() {
	s.note(s.pass(relay.Mark{Kind: relay.End, Sequence: s.nextMark()}))
	s.phase = ended
}

func (s *crew) take(n int, name string) (*claim, jobs.Grant) {
	s.t.Helper()
	c, g, out, err := s.grant(n, seal.Address(name), 0, s.now)
	if err != nil {
		s.t.Fatalf("%s didn't get slot %d: %v", name, n, err)
	}
	s.note(out)
	return c, g
}

func (s *crew) refuse(n int, name string, want error) {
	s.t.Helper()
	if _, _, _, err := s.grant(n, seal.Address(name), 0, s.now); !errors.Is(err, want) {
		s.t.Errorf("%s got %v for slot %d, want %v", name, err, n, want)
	}
}

func (s *crew) tells(n int, c *claim, p jobs.Progress) { s.note(s.report(n, c, p, s.now)) }

func (s *crew) goes(n int, c *claim) (early bool) {
	early, out := s.release(n, c, s.now)
	s.note(out)
	return early
}

func (s *crew) tick() []int {
	offer, out := s.look(0, s.now)
	s.note(out)
	return offer
}

func (s *crew) stored() bool {
	done, out := s.wrapUp(false)
	s.note(out)
	return done
}

func (s *crew) offers(want ...int) {
	s.t.Helper()
	got := s.tick()
	if len(got) != len(want) {
		s.t.Errorf("offered are %v, want %v", got, want)
	}
}

func (s *crew) told(c *claim, want jobs.Order) {
	s.t.Helper()
	said := s.orders[c]
	if len(said) == 0 {
		s.t.Errorf("%s was told nothing, want %+v", c.address, want)
		return
	}
	if o := said[0]; o.Until != want.Until || (o.End != "") != (want.End != "") {
		s.t.Errorf("%s was told %+v, want %+v", c.address, o, want)
	}
	s.orders[c] = said[1:]
}

func (s *crew) untold(c *claim) {
	s.t.Helper()
	if said := s.orders[c]; len(said) > 0 {
		s.t.Errorf("%s was told %+v", c.address, said)
	}
}

func (s *crew) is(live, backfill uint64, g jobs.Grant) {
	s.t.Helper()
	if g.Live != live || g.Backfill != backfill {
		s.t.Errorf("the grant is %+v, want live %d and backfill %d", g, live, backfill)
	}
}

var endOrder = jobs.Order{End: "some reason"}

// An ingest that stood still itself ends no claim of workers that report.
func TestIngestThatStoodStill(t *testing.T) {
	s := newCrew(t, 1)
	s.mark(1)
	a, _ := s.take(0, "a")
	s.offers()
	s.now = s.now.Add(5 * time.Second)
	s.offers()
	if s.list[0].claim != a {
		t.Fatal("the claim was ended by the ingest's own standstill")
	}
	for range int(claimSilence/tickInterval) + 1 {
		s.now = s.now.Add(tickInterval)
		s.tick()
	}
	if s.list[0].claim != nil {
		t.Error("a worker that is silent keeps its claim")
	}
}

// Under a lease no two grants have one number, whatever their slots: a worker that
// changes slots isn't taken for one that was there before it.
func TestGrantsHaveNumbersOfTheirOwn(t *testing.T) {
	s := newCrew(t, 2)
	s.mark(1)
	a, _ := s.take(0, "a")
	b, _ := s.take(1, "b")
	s.goes(0, a)
	c, _ := s.take(0, "c")
	s.goes(1, b)
	again, _ := s.take(1, "a")
	for _, pair := range [][2]*claim{{a, b}, {b, c}, {c, again}} {
		if !pair[0].epoch.Less(pair[1].epoch) {
			t.Errorf("%s got %+v after %+v of %s", pair[1].address, pair[1].epoch, pair[0].epoch, pair[0].address)
		}
	}
}

// A worker that leaves makes what comes before the next mark, another one the rest.
func TestHandover(t *testing.T) {
	s := newCrew(t, 1)
	s.mark(3)
	old, g := s.take(0, "a")
	s.is(0, 0, g)
	s.refuse(0, "b", errSlotTaken)
	s.tells(0, old, jobs.Progress{Finished: 3, Safe: 1})
	s.offers()
	s.tells(0, old, jobs.Progress{Finished: 3, Safe: 1, Leaving: true})
	s.offers(0)
	s.refuse(0, "a", errSameWorker)
	next, g := s.take(0, "b")
	s.is(4, 4, g)
	if !old.epoch.Less(g.Epoch) || !g.Index {
		t.Errorf("the grant is %+v", g)
	}
	s.told(old, jobs.Order{Until: 4})
	s.refuse(0, "c", errSlotTaken)
	s.mark(4)
	if s.list[0].claim != next || s.holders()[0].Address != "b" {
		t.Error("the mark handed nothing over")
	}
	if n := s.news[len(s.news)-1]; n.kind != handedOver || n.claim != old || n.to != next || n.segment != 4 {
		t.Errorf("the newest news is %+v", n)
	}
	s.tells(0, next, jobs.Progress{Finished: 4, Safe: 4})
	if p := s.list[0].progress; p.Finished != 3 || p.Safe != 1 {
		t.Errorf("together they have reached %+v", p)
	}
	s.tells(0, old, jobs.Progress{Finished: 4, Safe: 4})
	if early := s.goes(0, old); early {
		t.Error("the old worker went too early")
	}
	s.untold(next)
	if p := s.list[0].progress; p.Finished != 4 || p.Safe != 4 {
		t.Errorf("together they have reached %+v", p)
	}
	s.offers()
}

// While the publisher is away, a slot changes hands at once.
func TestHandoverInAPause(t *testing.T) {
	s := newCrew(t, 1)
	s.mark(3)
	old, _ := s.take(0, "a")
	s.pause()
	s.tells(0, old, jobs.Progress{Finished: 4, Safe: 1, Leaving: true})
	next, g := s.take(0, "b")
	s.is(4, 4, g)
	s.told(old, jobs.Order{Until: 4})
	if s.list[0].claim != next {
		t.Error("nothing was handed over")
	}
	s.mark(4)
	s.untold(next)
}

// Whatever breaks on the way, no segment is left out.
func TestHandoverBroken(t *testing.T) {
	begin := func(t *testing.T) (s *crew, old, next *claim) {
		s = newCrew(t, 1)
		s.mark(3)
		old, _ = s.take(0, "a")
		s.tells(0, old, jobs.Progress{Finished: 3, Safe: 1, Leaving: true})
		next, _ = s.take(0, "b")
		s.told(old, jobs.Order{Until: 4})
		return s, old, next
	}
	t.Run("the old worker before the mark", func(t *testing.T) {
		s, old, next := begin(t)
		s.goes(0, old)
		s.told(next, endOrder)
		s.offers(0)
		_, g := s.take(0, "b")
		s.is(3, 1, g)
	})
	t.Run("the old worker after the mark", func(t *testing.T) {
		s, old, next := begin(t)
		s.mark(4)
		s.goes(0, old)
		s.told(next, endOrder)
		s.offers(0)
		_, g := s.take(0, "b")
		s.is(3, 1, g)
	})
	t.Run("the old worker before all is stored", func(t *testing.T) {
		s, old, next := begin(t)
		s.mark(5)
		s.tells(0, old, jobs.Progress{Finished: 4, Safe: 2})
		s.tells(0, next, jobs.Progress{Finished: 5, Safe: 5})
		s.goes(0, old)
		s.untold(next)
		s.offers(0) // somebody who stores it, from the next mark on
		_, g := s.take(0, "c")
		s.is(6, 2, g)
		s.told(next, jobs.Order{Until: 6})
		s.mark(6)
		if p := s.list[0].progress; s.list[0].lacks() || p.Safe != 2 {
			t.Errorf("reached is %+v", p)
		}
	})
	t.Run("the new worker before the mark", func(t *testing.T) {
		s, old, next := begin(t)
		s.goes(0, next)
		s.untold(old)
		s.offers(0)
		third, g := s.take(0, "c")
		s.is(4, 4, g)
		s.untold(old)
		s.mark(4)
		if s.list[0].claim != third {
			t.Error("nothing was handed over")
		}
	})
	t.Run("the new worker, and nobody else", func(t *testing.T) {
		s, _, next := begin(t)
		s.goes(0, next)
		s.mark(4)
		s.offers(0)
		_, g := s.take(0, "c")
		s.is(4, 4, g)
	})
	t.Run("the new worker after the mark", func(t *testing.T) {
		s, old, next := begin(t)
		s.mark(5)
		s.tells(0, old, jobs.Progress{Finished: 4, Safe: 4})
		s.tells(0, next, jobs.Progress{Finished: 5, Safe: 4})
		s.goes(0, next)
		s.offers(0)
		_, g := s.take(0, "c")
		s.is(5, 4, g)
	})
}

// A slot whose worker broke is offered at once; one whose workers break at
// once, over and over, once a second.
func TestSlotBackOff(t *testing.T) {
	s := newCrew(t, 1)
	s.mark(0)
	s.offers(0)
	for i, want := range [][]int{{0}, {}, {}} {
		c, _ := s.take(0, "a")
		s.goes(0, c)
		if got := s.tick(); len(got) != len(want) {
			t.Errorf("break %d: offered are %v, want %v", i, got, want)
		}
	}
	s.now = s.now.Add(offerInterval)
	s.offers(0)
	c, _ := s.take(0, "a")
	s.now = s.now.Add(offerInterval)
	c.seen = s.now
	s.goes(0, c)
	for range 1 + repeats { // the first may have gone to the worker that died
		s.offers(0)
		s.offers()
		s.now = s.now.Add(repeatInterval)
	}
	s.offers()
}

// A standby is another worker, begins where viewers are, and stores what isn't stored.
func TestSlotStandby(t *testing.T) {
	s := newCrew(t, 2)
	s.mark(0)
	s.offers(0, 1)
	a, _ := s.take(0, "a")
	s.refuse(1, "a", errSameWorker)
	s.now = s.now.Add(hurryInterval)
	a.seen = s.now
	s.offers(1) // not only in a second
	s.mark(6)
	s.tells(0, a, jobs.Progress{Finished: 5, Safe: 3})
	b, g := s.take(1, "b")
	s.is(5, 3, g)
	s.end()
	s.tells(0, a, jobs.Progress{Finished: 7, Safe: 7})
	if s.stored() {
		t.Error("the standby's segments don't count")
	}
	s.goes(1, b)
	if !s.stored() {
		t.Error("it waits for nobody")
	}
}

// What becomes of a slot when a claim of it is over, by whose claim it is and
// what that one has reached.
func TestSlotLoses(t *testing.T) {
	type state struct{ has, next, retired, lacks bool }
	for _, c := range []struct {
		name     string
		handover bool // the mark has come
		who      int  // 0: the worker that leaves, 1: the one that takes over
		old      jobs.Progress
		early    bool
		want     state
		told     int // workers that are told to stop
		news     []newsKind
	}{
		{"the only maker, and with it who was to take over", false, 0, jobs.Progress{Finished: 3, Safe: 1}, true, state{}, 1, []newsKind{wantsToLeave, workerLost}},
		{"who was to take over", false, 1, jobs.Progress{Finished: 3, Safe: 1}, true, state{has: true}, 0, []newsKind{wantsToLeave, successorLost}},
		{"who took over", true, 1, jobs.Progress{Finished: 4, Safe: 1}, true, state{retired: true}, 0, []newsKind{wantsToLeave, handedOver}},
		{"who handed over, with all stored", true, 0, jobs.Progress{Finished: 4, Safe: 4}, false, state{has: true}, 0, []newsKind{wantsToLeave, handedOver}},
		{"who handed over, with all made and not all stored", true, 0, jobs.Progress{Finished: 4, Safe: 2}, true, state{has: true, retired: true, lacks: true}, 0, []newsKind{wantsToLeave, handedOver}},
		{"who handed over, with a segment not made", true, 0, jobs.Progress{Finished: 3, Safe: 2}, true, state{}, 1, []newsKind{wantsToLeave, handedOver}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newCrew(t, 1)
			s.mark(3)
			old, _ := s.take(0, "a")
			s.tells(0, old, jobs.Progress{Finished: 3, Leaving: true})
			next, _ := s.take(0, "b")
			if c.handover {
				s.mark(4)
			}
			s.tells(0, old, c.old)
			s.told(old, jobs.Order{Until: 4})
			if early := s.goes(0, []*claim{old, next}[c.who]); early != c.early {
				t.Errorf("too early: %v", early)
			}
			slot := &s.list[0]
			if got := (state{slot.claim != nil, slot.next != nil, len(slot.retired) > 0, slot.lacks()}); got != c.want {
				t.Errorf("the slot is %+v, want %+v", got, c.want)
			}
			told := 0
			for _, said := range s.orders {
				told += len(said)
			}
			if told != c.told {
				t.Errorf("%d were told to stop, want %d", told, c.told)
			}
			var kinds []newsKind
			for _, n := range s.news {
				kinds = append(kinds, n.kind)
			}
			if !slices.Equal(kinds, c.news) {
				t.Errorf("the news are %v, want %v", kinds, c.news)
			}
		})
	}
}
