package room

import "errors"

// maxFormats is how many formats a hub may have: each entry has a place for each.
const maxFormats = 16

// Format is one way in which a room's entries are written to connections: a protocol, with
// those of its options that change what is sent (IRC with tags and IRC without are two
// formats). A hub knows its formats from its Config; a Format belongs to one hub.
type Format struct {
	// Name is the label of metrics: "ws", "irc".
	Name string
	// SkipOwn is true if an entry isn't sent to the connection that it came from: in IRC a
	// sender doesn't get its own message.
	SkipOwn bool
	// Each, where it is set, makes the frames for one connection, in place of Entry.Encode.
	// It costs a call for each entry and connection: it is for formats of few connections, whose
	// frames differ (EventSub's carry the id of a subscription). It is called while the engine
	// holds locks: it must be quick, and call neither the Conn nor a Room.
	Each func(c *Conn, e Entry) []byte

	index   int
	metrics formatMetrics
}

// Entry is one thing that happened in a room.
type Entry struct {
	// ID is unique in the room, and greater than those before it: see Config.Compare.
	ID string
	// Encode makes the frames, ready for the wire, that tell of it in a format; nil if the format
	// has none. It is called at most once for each format, and what it returned is sent to every
	// connection: it must not change afterwards. It is called while the engine holds locks:
	// it must be quick, and call neither a Conn nor a Room.
	Encode func(f *Format) []byte
	// Origin is the ID of the connection that it came from, 0 for none: see Format.SkipOwn.
	Origin uint64
	// Value is for Format.Each and for the caller.
	Value any
	// Size is what Value and Encode hold, in bytes: it counts in the log's bounds. 0: about 512.
	Size int
}

// ErrGone is returned to who wants to go on from an entry that the log no longer holds, or
// never held. The caller gives the reader what it missed, from the room's history, and joins after
// the last one of that.
var ErrGone = errors.New("the log no longer holds what comes after that entry")

// From says from where on a connection reads a room.
type From struct {
	after string
	last  int
}

// Live is from the next entry on.
func Live() From { return From{} }

// Last is from n entries before the end on, or fewer if the log holds no more.
func Last(n int) From { return From{last: n} }

// After is from the entry behind the one with this id on: all that a reader missed who has seen
// that one.
func After(id string) From { return From{after: id} }
