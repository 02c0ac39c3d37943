package ingest

import (
	"strings"
	"testing"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/relay"
	"millrace/internal/seal"
)

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
		return err == nil && len(slots) == 2 && slots[1].Address.String() == "http://127.0.0.1:8"
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
	b, _ := testBroadcast(t)
	b.workers.slots = newSlots(2, b.epoch, nil)
	now := time.Now()
	take := func(n int, name string) (*claim, jobs.Grant) {
		c, _, g, err := b.grant(n, seal.Address(name), now)
		if err != nil {
			t.Fatal(err)
		}
		return c, g
	}
	a, _ := take(0, "a")
	p := &publisher{broadcast: b, logger: b.logger}
	told := func() bool {
		p.judge(nil, &summary{})
		_, ok := p.has[problemShed]
		return ok
	}
	b.report(0, a, jobs.Progress{Shed: 2}, now)
	if !told() {
		t.Error("nobody is told of two shed rungs")
	}
	second, g := take(1, "b")
	if !g.Standby {
		t.Error("the standby isn't told that there is no hurry")
	}
	b.report(1, second, jobs.Progress{}, now)
	if told() {
		t.Error("a rung that the standby makes is called missing")
	}
	b.report(1, second, jobs.Progress{Shed: 1}, now)
	if !told() {
		t.Error("nobody is told of a rung that neither worker makes")
	}
}

// The streamer learns that viewers can't go back as far as they could.
func TestShorterWindowIsTold(t *testing.T) {
	b, _ := testBroadcast(t)
	c, _, _, err := b.grant(0, "a", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p := &publisher{broadcast: b, logger: b.logger}
	for _, seconds := range []int{0, 240, 0} {
		b.report(0, c, jobs.Progress{Window: seconds}, time.Now())
		p.judge(nil, &summary{})
		if text, told := p.has[problemWindow]; told != (seconds > 0) || told && !strings.Contains(text, "go back 240 s and no further") {
			t.Errorf("with a window of %d s the streamer is told %q", seconds, text)
		}
	}
}
