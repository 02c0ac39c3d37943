package talk

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"millrace/chat/event"
	"millrace/chat/moderation"
	"millrace/chat/store"
	"millrace/internal/session"
)

// maxOrigins bounds the messages on their way whose connection is remembered.
const maxOrigins = 10_000

// Code is why something is refused: one of a fixed set, those of packages store and moderation and these.
type Code string

// The refusals of this package.
const (
	// Anonymous: who has no name only reads.
	Anonymous Code = "anonymous"
	// BadText: the text is empty, too long, or none.
	BadText Code = "text"
	// NotAllowed: that is for moderators, or for the broadcaster.
	NotAllowed Code = "not_allowed"
	// NoRoom: there is no such channel.
	NoRoom Code = "no_room"
	// Unavailable: Redis can't be asked.
	Unavailable Code = "unavailable"
)

// Refusal is what isn't done, and why, in words for whoever asked.
type Refusal struct {
	Code Code
	Text string
	// Until is when to try it again; zero: nobody knows.
	Until time.Time
}

// Error says why.
func (r *Refusal) Error() string { return r.Text }

// Refused turns any error of this package into words for whoever asked.
func Refused(err error) *Refusal {
	var own *Refusal
	var kept *store.Refusal
	var text *moderation.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.As(err, &kept):
		return &Refusal{Code(kept.Code), kept.Error(), kept.Until}
	case errors.As(err, &text):
		return &Refusal{Code: Code(text.Code), Text: text.Error()}
	case errors.Is(err, ErrNoRoom):
		return &Refusal{Code: NoRoom, Text: err.Error()}
	}
	return &Refusal{Code: Unavailable, Text: "chat can't reach its memory at the moment: try again", Until: time.Now().Add(2 * time.Second)}
}

// Said is a message that somebody wants to send.
type Said struct {
	Room string
	// Nonce is the sender's name for it, at most [store.MaxNonce] bytes: one that is sent again with the same
	// nonce is there once. "" gets one made.
	Nonce, Text string
	// Action is set of what its sender does (/me).
	Action bool
	// Reply is the message that it answers; "" for none.
	Reply event.ID
	// Origin is the ID of the connection that it comes from.
	Origin uint64
}

// Say sends a message and returns its ID, and what was made of its text. Errors are for [Refused].
func (t *Talk) Say(ctx context.Context, who session.Identity, m Said) (*event.Event, error) {
	if who.Anonymous() {
		return nil, &Refusal{Code: Anonymous, Text: "log in to write"}
	}
	r, err := t.Open(ctx, m.Room)
	if err != nil {
		return nil, err
	}
	if rest, ok := strings.CutPrefix(m.Text, "/me "); ok {
		m.Text, m.Action = rest, true
	}
	text, err := event.Clean(m.Text)
	if err != nil {
		return nil, &Refusal{Code: BadText, Text: err.Error()}
	}
	role := r.Role(who)
	if refusal := moderation.Check(text, role, r.Settings(), nil, isEmote); refusal != nil {
		return nil, refusal
	}
	if m.Nonce == "" || len(m.Nonce) > store.MaxNonce {
		m.Nonce = rand.Text()
	}
	e := &event.Event{Kind: event.Message, User: r.user(who), Text: text, Action: m.Action, Nonce: m.Nonce}
	if m.Reply != "" {
		parent, err := t.store.Get(ctx, m.Room, m.Reply)
		if err != nil {
			return nil, err
		}
		if parent != nil && parent.User != nil && parent.Kind == event.Message {
			e.Reply = &event.Reply{ID: parent.ID, User: *parent.User, Text: parent.Text}
		}
	}
	kept := ""
	if role == moderation.Broadcaster {
		kept = string(role)
	}
	t.expect(e, m.Origin)
	e.ID, err = t.store.Send(ctx, m.Room, kept, e)
	if err != nil {
		t.origin(e) // it doesn't come
		return nil, err
	}
	return e, nil
}

// user is how others see somebody in the room.
func (r *Room) user(who session.Identity) *event.User {
	u := &event.User{ID: who.ID, Login: who.Login, Name: who.Name}
	if role := r.Role(who); role != moderation.Nobody {
		u.Badges = []string{string(role)}
	}
	return u
}

// expect notes where a message comes from that is on its way, and origin returns that, once.
func (t *Talk) expect(e *event.Event, origin uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.origins) >= maxOrigins {
		clear(t.origins) // those of messages that were sent twice stay
	}
	t.origins[e.User.ID+" "+e.Nonce] = origin
}

func (t *Talk) origin(e *event.Event) uint64 {
	if e.Nonce == "" || e.User == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := e.User.ID + " " + e.Nonce
	origin := t.origins[key]
	delete(t.origins, key)
	return origin
}

// isEmote tells the words that are emotes.
func isEmote(word string) bool { return emotes[strings.Trim(word, ":")] }

// emotes are those of every room.
var emotes = map[string]bool{}
