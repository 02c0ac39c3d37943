// Package store keeps rooms in Redis. The truth of a room is a stream of events; a script appends
// to it what the room's rules let through, and publishes a hint, by which all processes hear of it
// at once (see [Feed]).
package store

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/chat/event"
)

const (
	// maxEntries is how many events a room keeps, about, and maxAudit how many of what moderators did.
	maxEntries, maxAudit = 5000, 5000
	// rememberedUsers is how many of those who wrote a room remembers.
	rememberedUsers = 100_000
	// rateSpan bounds messages of one user in one room: so many in it, and so many of a moderator.
	rateSpan                      = 30 * time.Second
	rateMessages, rateOfModerator = 20, 100
	// nonceKept is for how long a message that is sent again is known.
	nonceKept = 10 * time.Minute
	// MaxNonce is the longest nonce, in bytes.
	MaxNonce = 64
)

//go:embed append.lua
var appendSource string

//go:embed act.lua
var actSource string

var (
	appendScript = redis.NewScript(appendSource)
	actScript    = redis.NewScript(actSource)
)

// Store reads and writes rooms. It is safe for concurrent use.
type Store struct{ db redis.UniversalClient }

// New returns a store over a client, which stays the caller's.
func New(db redis.UniversalClient) *Store { return &Store{db} }

// key is a key of a room; all keys of one are in one slot of a cluster.
func key(room, what string) string {
	if what == "" {
		return "millrace:room:{" + room + "}"
	}
	return "millrace:room:{" + room + "}:" + what
}

// hints is the channel on which a room's events are told of.
func hints(room string) string { return "millrace:room:{" + room + "}:hints" }

// Code is why a message is refused: one of a fixed set.
type Code string

// The refusals that depend on what a room remembers.
const (
	Banned    Code = "banned"
	TimedOut  Code = "timed_out"
	Slow      Code = "slow"
	Duplicate Code = "duplicate"
	Rate      Code = "rate"
	Shield    Code = "shield"
)

// Refusal is a message that isn't let through.
type Refusal struct {
	Code Code
	// Until is when it may be sent; zero: nobody knows.
	Until time.Time
}

// Error says why, in words for whoever sent it.
func (r *Refusal) Error() string {
	switch r.Code {
	case Banned:
		return "you are banned from this chat"
	case TimedOut:
		return "you are timed out"
	case Slow:
		return "this chat is in slow mode"
	case Duplicate:
		return "this chat takes no message twice in a row"
	case Rate:
		return "you are sending messages too fast"
	case Shield:
		return "only who has written here before can write now"
	}
	return "the message was refused"
}

// Send appends a message of e.User. One that was sent with the same e.Nonce ("" is none) before isn't appended again: its ID
// is returned. role is the user's where [Store.SetRole] didn't give it. An error is a [*Refusal], or that Redis can't be asked.
func (s *Store) Send(ctx context.Context, room, role string, e *event.Event) (event.ID, error) {
	doc, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("send to room %s: %w", room, err)
	}
	user := e.User.ID
	reply, err := appendScript.Run(ctx, s.db, []string{
		key(room, ""), key(room, "bans"), key(room, "settings"), key(room, "roles"), key(room, "seen"),
		key(room, "pace:"+user), key(room, "sent:"+user+":"+e.Nonce),
	}, hints(room), doc, user, e.Nonce, nonceKept.Milliseconds(), rateMessages, rateOfModerator, rateSpan.Milliseconds(),
		maxEntries, rememberedUsers, role).StringSlice()
	if err != nil {
		return "", fmt.Errorf("send to room %s: %w", room, err)
	}
	if reply[0] == "" {
		return event.ID(reply[1]), nil
	}
	r := &Refusal{Code: Code(reply[0])}
	if ms, _ := strconv.ParseInt(reply[1], 10, 64); ms > 0 {
		r.Until = time.UnixMilli(ms)
	}
	return "", r
}

// Newest returns up to n of the newest events, oldest first.
func (s *Store) Newest(ctx context.Context, room string, n int) ([]*event.Event, error) {
	return s.Before(ctx, room, "", n)
}

// Before returns up to n of the newest events before one, oldest first; "" stands for the end.
func (s *Store) Before(ctx context.Context, room string, id event.ID, n int) ([]*event.Event, error) {
	from := "+"
	if id != "" {
		from = "(" + string(id)
	}
	list, err := s.db.XRevRangeN(ctx, key(room, ""), from, "-", int64(n)).Result()
	if err != nil {
		return nil, fmt.Errorf("read the history of room %s: %w", room, err)
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return parse(list), nil
}

// Get returns one event; nil if the room has it no more.
func (s *Store) Get(ctx context.Context, room string, id event.ID) (*event.Event, error) {
	if !id.Valid() {
		return nil, nil
	}
	list, err := s.db.XRangeN(ctx, key(room, ""), string(id), string(id), 1).Result()
	if err != nil {
		return nil, fmt.Errorf("read room %s: %w", room, err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	return parse(list)[0], nil
}

// After returns up to n of the oldest events after one.
func (s *Store) After(ctx context.Context, room string, id event.ID, n int) ([]*event.Event, error) {
	from := "-"
	if id != "" {
		from = "(" + string(id)
	}
	list, err := s.db.XRangeN(ctx, key(room, ""), from, "+", int64(n)).Result()
	if err != nil {
		return nil, fmt.Errorf("read room %s: %w", room, err)
	}
	return parse(list), nil
}

// parse leaves out what a newer release wrote and this one can't read.
func parse(list []redis.XMessage) []*event.Event {
	events := make([]*event.Event, 0, len(list))
	for _, m := range list {
		text, _ := m.Values["e"].(string)
		e, err := event.Parse([]byte(text))
		if err != nil {
			e = &event.Event{Kind: "unknown"}
		}
		e.ID = event.ID(m.ID)
		events = append(events, e)
	}
	return events
}
