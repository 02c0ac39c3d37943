// Package event is what happens in a room: messages, and what moderators do. Events of a
// room have one order, that of their IDs, which is the same for everybody. It is pure.
package event

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ID is an event's place in its room: milliseconds since 1970 and a number, as Redis
// makes them ("1795797369266-0"). IDs of one room are compared by [Compare], not as text.
type ID string

// parts returns the two numbers; ok is false where id is none.
func (id ID) parts() (ms, n uint64, ok bool) {
	first, second, found := strings.Cut(string(id), "-")
	ms, err := strconv.ParseUint(first, 10, 63)
	if err != nil || !found {
		return 0, 0, false
	}
	n, err = strconv.ParseUint(second, 10, 64)
	return ms, n, err == nil
}

// Valid reports whether id has the form of one.
func (id ID) Valid() bool {
	_, _, ok := id.parts()
	return ok
}

// Time is when the event happened; zero where id is none.
func (id ID) Time() time.Time {
	ms, _, ok := id.parts()
	if !ok {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// Compare is below 0 where a is before b, and above 0 where it is after. No ID, the
// empty text, is before all others.
func Compare(a, b ID) int {
	am, an, _ := a.parts()
	bm, bn, _ := b.parts()
	return cmp.Or(cmp.Compare(am, bm), cmp.Compare(an, bn))
}

// Kind is what kind of thing happened.
type Kind string

// The kinds of events.
const (
	// Message is what somebody said.
	Message Kind = "message"
	// Announcement is a message that stands out, of a moderator.
	Announcement Kind = "announcement"
	// Deleted takes the message Target away.
	Deleted Kind = "deleted"
	// Cleared takes all messages away.
	Cleared Kind = "cleared"
	// UserCleared takes all messages of Subject away; with Ban it may write no more, for Seconds or, where these
	// are 0, for ever.
	UserCleared Kind = "user_cleared"
	// Unbanned lets Subject write again.
	Unbanned Kind = "unbanned"
	// Role gives Subject the role that Text names, or takes it back where that is empty.
	Role Kind = "role"
	// SettingsChanged has the room's new settings.
	SettingsChanged Kind = "settings"
	// Pinned shows the message Target above all others; without a target none is.
	Pinned Kind = "pinned"
)

// User is somebody, as others see them.
type User struct {
	// ID never changes, and is never given to somebody else.
	ID string `json:"id"`
	// Login is the name in lower case, Name as it is shown.
	Login string `json:"login"`
	Name  string `json:"name"`
	// Color is "#rrggbb"; empty: the page chooses one.
	Color string `json:"color,omitempty"`
	// Badges are marks beside the name: broadcaster, moderator, vip.
	Badges []string `json:"badges,omitempty"`
}

// Reply is the message that another one answers.
type Reply struct {
	ID   ID     `json:"id"`
	User User   `json:"user"`
	Text string `json:"text"`
}

// Settings are what a room asks of those who write. The zero value asks nothing.
type Settings struct {
	// Slow is how many seconds somebody waits between two messages.
	Slow int `json:"slow,omitempty"`
	// EmoteOnly lets nothing but emotes through, Unique no message twice in a row.
	EmoteOnly bool `json:"emote_only,omitempty"`
	Unique    bool `json:"unique,omitempty"`
	// FollowersOnly lets those write who follow for so many minutes; nil lets all.
	FollowersOnly *int `json:"followers_only,omitempty"`
	// SubscribersOnly lets subscribers write.
	SubscribersOnly bool `json:"subscribers_only,omitempty"`
	// HoldLinks lets moderators alone send links.
	HoldLinks bool `json:"hold_links,omitempty"`
	// Shield is the one switch against a raid: only those who are known already write.
	Shield bool `json:"shield,omitempty"`
}

// Event is one thing that happened in a room.
type Event struct {
	// ID is set by the store.
	ID   ID   `json:"id,omitempty"`
	Kind Kind `json:"kind"`
	// User did it.
	User *User `json:"user,omitempty"`
	// Nonce is what the sender called its message by before it had an ID.
	Nonce string `json:"nonce,omitempty"`
	// Text is what was said; of an action, why.
	Text string `json:"text,omitempty"`
	// Action is set of a message that says what its user does (/me).
	Action bool `json:"action,omitempty"`
	// First is set of somebody's first message in this room.
	First bool `json:"first,omitempty"`
	// Reply is what a message answers, or the message that is deleted; nil: nothing.
	Reply *Reply `json:"reply,omitempty"`
	// Target is the message that an action is about, Subject the user.
	Target  ID    `json:"target,omitempty"`
	Subject *User `json:"subject,omitempty"`
	// Ban, with Seconds, is what [UserCleared] describes.
	Ban     bool `json:"ban,omitempty"`
	Seconds int  `json:"seconds,omitempty"`
	// Settings are the new ones.
	Settings *Settings `json:"settings,omitempty"`
}

// Parse reads an event from its JSON.
func Parse(doc []byte) (*Event, error) {
	e := new(Event)
	if err := json.Unmarshal(doc, e); err != nil {
		return nil, fmt.Errorf("parse event: %w", err)
	}
	if e.Kind == "" {
		return nil, fmt.Errorf("parse event: it has no kind")
	}
	return e, nil
}
