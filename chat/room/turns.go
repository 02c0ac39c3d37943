package room

import (
	"sync"
	"time"
)

// shortRest isn't worth a timer.
const shortRest = time.Millisecond

// turns decides which section of which room is served next. Rooms that have something to send take
// turns; a pass goes over all sections of a room, and then the room rests, the longer the more connections it wrote to.
type turns struct {
	rest    time.Duration // for each connection that the pass wrote to
	maxRest time.Duration // at most

	mu     sync.Mutex
	ready  *sync.Cond
	rooms  []*Room // those with sections to serve, each once
	closed bool
}

// phase is what a room is at.
type phase uint8

const (
	idle    phase = iota // nothing to send
	passing              // its sections are being served
	resting              // there is something to send, later
)

// pass is a room's going over its sections.
type pass struct {
	phase    phase
	again    bool // something came during the pass that belongs to the next one
	sections []*section
	serving  int         // sections that workers are at
	wrote    int         // to so many connections
	rested   time.Time   // when the next pass may begin
	alarm    *time.Timer // begins it
}

// wake lets a room's section be served, or all of them if s is nil.
func (t *turns) wake(r *Room, s *section) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &r.pass
	switch {
	case t.closed:
	case s != nil && p.phase != resting: // one connection goes on: that needn't wait for a rest
		t.enqueue(r, s)
		p.phase = passing
	case p.phase == passing:
		p.again = true
	case p.phase == idle:
		t.next(r)
	}
}

// next begins the room's next pass, or lets it rest before.
func (t *turns) next(r *Room) {
	wait := time.Until(r.pass.rested)
	if wait <= 0 {
		t.begin(r)
		return
	}
	r.pass.phase = resting
	if r.pass.alarm != nil {
		r.pass.alarm.Reset(wait)
		return
	}
	r.pass.alarm = time.AfterFunc(wait, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.closed {
			t.begin(r)
		}
	})
}

func (t *turns) begin(r *Room) {
	p := &r.pass
	p.phase, p.again, p.wrote = passing, false, 0
	for _, s := range r.sections {
		t.enqueue(r, s)
	}
	if len(p.sections) == 0 && p.serving == 0 {
		p.phase = idle
	}
}

func (t *turns) enqueue(r *Room, s *section) {
	if s.queued {
		return
	}
	s.queued = true
	r.pass.sections = append(r.pass.sections, s)
	if len(r.pass.sections) == 1 {
		t.rooms = append(t.rooms, r)
		t.ready.Signal()
	}
}

// take waits for the next section to serve; nil at the end.
func (t *turns) take() *section {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.rooms) == 0 && !t.closed {
		t.ready.Wait()
	}
	if t.closed {
		return nil
	}
	r := t.rooms[0]
	t.rooms = t.rooms[1:]
	p := &r.pass
	s := p.sections[0]
	p.sections = p.sections[1:]
	if len(p.sections) > 0 {
		t.rooms = append(t.rooms, r)
		t.ready.Signal()
	}
	s.queued = false
	p.serving++
	return s
}

// done says to how many connections of a section something was written, and whether it has more to send already.
func (t *turns) done(s *section, wrote int, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	r := s.room
	p := &r.pass
	p.serving--
	p.wrote += wrote
	if more {
		t.enqueue(r, s)
	}
	if p.serving > 0 || len(p.sections) > 0 {
		return
	}
	p.phase, p.sections = idle, nil
	if rest := min(time.Duration(p.wrote)*t.rest, t.maxRest); rest >= shortRest {
		if rested := time.Now().Add(rest); rested.After(p.rested) {
			p.rested = rested
		}
	}
	p.wrote = 0
	if p.again {
		p.again = false
		t.next(r)
	}
}

// close lets take return nil, and nothing be served any more.
func (t *turns) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.ready.Broadcast()
}
