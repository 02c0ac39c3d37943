// Package room is the engine of chat: it brings what happens in a room to everybody in it.
//
// A room is a log of entries, bounded, with the frames that were made of each, once for each
// Format; a connection is a place in it. Workers go through the places and write all that is new
// since as one piece, without waiting: connections at the same place get the same piece. One that
// takes nothing is left at its place and gets a goroutine that waits until it does; one whose
// place has fallen out of the log is told of the gap and goes on at the end; one that is behind
// for too long is closed. After a pass over a room, the next one waits for a time that grows with the
// number of connections: so a quiet room's entries go out at once, and a busy, large room's many at a
// time. Rooms take turns, a section at a time: a large one doesn't hold up a small one.
//
// The engine knows nothing of protocols and of what an entry is: a front (chat/front) makes the
// frames, and gets the bytes that arrive (Handler). A connection over plain TCP costs one
// goroutine, which waits until there is something to read without holding a buffer.
//
// A front does this:
//
//	c, err := hub.Attach(conn, room.Options{Format: f, Handler: h}) // h.Receive is called from here on
//	err = r.Join(c, room.After(id))   // or Last(50), Live(); ErrGone: give it the history first
//	c.Send(frame)                     // what is for this one alone
//	c.Close(room.Reason{Name: "banned"})
//
// and who knows what happens, for all of them:
//
//	r := hub.Open("name", baseID)
//	r.Publish(room.Entry{ID: id, Encode: func(f *room.Format) []byte { ... }})
package room

import (
	"errors"
	"slices"
	"sync"
)

// sectionSize is how many connections are served in one turn: about half a millisecond's work.
const sectionSize = 64

// Errors of Join.
var (
	// ErrClosed: the room was removed, or the connection has ended.
	ErrClosed = errors.New("the room or the connection is closed")
	// ErrJoined: the connection is in this room already.
	ErrJoined = errors.New("the connection is in this room already")
)

// Room is the log of one room and the connections in it. Its methods may be called by any goroutine.
type Room struct {
	hub  *Hub
	name string
	log  log

	// Locks are taken in this order: Room.mu, section.mu, Conn.mu, log.mu. hub.turns.mu is taken
	// beside them, last of all.
	mu      sync.Mutex
	size    int
	removed bool
	// sections changes with both mu and hub.turns.mu held.
	sections []*section

	pass pass // guarded by hub.turns.mu
}

// section is a part of a room's connections, which is served in one turn.
type section struct {
	room *Room

	mu     sync.Mutex
	places []place

	queued bool // guarded by hub.turns.mu
}

// place is how far a connection has read the room.
type place struct {
	conn *Conn
	next uint64 // the number of the entry that it gets next
}

// Name is the room's name.
func (r *Room) Name() string { return r.name }

// Size is how many connections are in the room.
func (r *Room) Size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.size
}

// Newest is the id of the newest entry, or that before the log's beginning if it is empty.
func (r *Room) Newest() string {
	newest, _ := r.log.end()
	return newest
}

// Publish puts an entry behind all others and lets it be sent. It doesn't wait for that.
// Entries must be published in the order of their ids, by one caller at a time.
func (r *Room) Publish(e Entry) {
	r.log.append(e)
	r.hub.turns.wake(r, nil)
}

// Reset says that entries were lost: the log begins anew, behind the entry with the id base, and all
// connections are told of a gap.
func (r *Room) Reset(base string) {
	r.log.reset(base)
	r.hub.turns.wake(r, nil)
}

// Join lets c get the room's entries, beginning at from. After ErrGone c isn't in the room.
// What c was sent before comes before the entries.
func (r *Room) Join(c *Conn, from From) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed {
		return ErrClosed
	}
	s := r.open()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state >= closing {
		return ErrClosed
	}
	if slices.ContainsFunc(c.rooms, func(m membership) bool { return m.room == r }) {
		return ErrJoined
	}
	next, err := r.log.find(from)
	if err != nil {
		return err
	}
	c.rooms = append(c.rooms, membership{r, s})
	s.places = append(s.places, place{c, next})
	r.size++
	if next != r.log.head.Load() {
		r.hub.turns.wake(r, s)
	}
	return nil
}

// open returns a section that has room for one more. The caller holds mu.
func (r *Room) open() *section {
	for _, s := range slices.Backward(r.sections) {
		s.mu.Lock()
		full := len(s.places) >= sectionSize
		s.mu.Unlock()
		if !full {
			return s
		}
	}
	s := &section{room: r}
	r.hub.turns.mu.Lock()
	defer r.hub.turns.mu.Unlock()
	r.sections = append(r.sections, s)
	return s
}

// Leave takes c out of the room. It reports whether it was in it.
func (r *Room) Leave(c *Conn) bool {
	c.mu.Lock()
	i := slices.IndexFunc(c.rooms, func(m membership) bool { return m.room == r })
	if i < 0 {
		c.mu.Unlock()
		return false
	}
	m := c.rooms[i]
	c.rooms = slices.Delete(c.rooms, i, i+1)
	c.mu.Unlock()
	m.end(c)
	return true
}

// membership is that a connection is in a room.
type membership struct {
	room    *Room
	section *section
}

// end takes the connection's place out of its section.
func (m membership) end(c *Conn) {
	m.room.mu.Lock()
	m.room.size--
	m.room.mu.Unlock()
	s := m.section
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.places, func(p place) bool { return p.conn == c })
	last := len(s.places) - 1
	s.places[i] = s.places[last]
	s.places[last] = place{}
	s.places = s.places[:last]
}

// Remove forgets the room and its log if nobody is in it, and reports whether it did. Join fails
// from then on; Hub.Open makes a new one.
func (r *Room) Remove() bool {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.size > 0 {
		return false
	}
	if !r.removed {
		r.removed = true
		delete(r.hub.rooms, r.name)
		r.log.reset("")
	}
	return true
}

// Members calls fn with each connection that is in the room, until it returns false. Those that come
// or go meanwhile may be left out.
func (r *Room) Members(fn func(c *Conn) bool) {
	r.mu.Lock()
	sections := slices.Clone(r.sections)
	r.mu.Unlock()
	var members []*Conn
	for _, s := range sections {
		members = members[:0]
		s.mu.Lock()
		for _, p := range s.places {
			members = append(members, p.conn)
		}
		s.mu.Unlock()
		for _, c := range members {
			if !fn(c) {
				return
			}
		}
	}
}
