package talk

import (
	"context"
	"time"

	"millrace/chat/event"
	"millrace/chat/moderation"
	"millrace/internal/channelname"
	"millrace/internal/session"
)

// Action is what a moderator asks for. Do says which of the others it has.
type Action struct {
	// Do is "delete", "clear", "ban", "timeout", "unban", "mod", "unmod", "vip", "unvip", "settings", "announce", "pin" or "unpin".
	Do string `json:"do"`
	// Target is a message, Login a user.
	Target event.ID `json:"target"`
	Login  string   `json:"login"`
	// Seconds is how long a timeout lasts.
	Seconds int `json:"seconds"`
	// Reason is why, or what is announced.
	Reason string `json:"reason"`
	// Settings are the room's new ones.
	Settings *event.Settings `json:"settings"`
}

// maxTimeout is the longest timeout: two weeks.
const maxTimeout = 14 * 24 * 3600

// Act does what somebody asks for in a room. Errors are for [Refused].
func (t *Talk) Act(ctx context.Context, who session.Identity, name string, a Action) error {
	r, err := t.Open(ctx, name)
	if err != nil {
		return err
	}
	role, by := r.Role(who), r.user(who)
	if !role.Moderates() {
		return &Refusal{Code: NotAllowed, Text: "only moderators can do that"}
	}
	switch a.Do {
	case "clear":
		return t.store.Clear(ctx, name, by)
	case "settings":
		if a.Settings == nil || a.Settings.Slow < 0 || a.Settings.Slow > 3600 {
			return &Refusal{Code: "settings", Text: "these settings can't be: slow mode is 0 to 3,600 seconds"}
		}
		return t.store.SetSettings(ctx, name, by, *a.Settings)
	case "announce":
		text, err := event.Clean(a.Reason)
		if err != nil {
			return &Refusal{Code: BadText, Text: err.Error()}
		}
		return t.store.Announce(ctx, name, by, text)
	case "pin", "unpin", "delete":
		return t.onMessage(ctx, r, role, by, a)
	}
	return t.onUser(ctx, r, role, by, a)
}

// onMessage acts on one message.
func (t *Talk) onMessage(ctx context.Context, r *Room, role moderation.Role, by *event.User, a Action) error {
	if a.Do == "unpin" {
		return t.store.Pin(ctx, r.Name, by, "")
	}
	target, err := t.store.Get(ctx, r.Name, a.Target)
	if err != nil {
		return err
	}
	if target == nil || target.User == nil {
		return &Refusal{Code: "no_message", Text: "there is no such message any more"}
	}
	if a.Do == "pin" {
		return t.store.Pin(ctx, r.Name, by, target.ID)
	}
	author := r.roleOf(target.User.ID, target.User.Login)
	if target.User.ID != by.ID && !role.MayActOn(author) {
		return &Refusal{Code: NotAllowed, Text: "you can't act on a " + string(author)}
	}
	return t.store.Delete(ctx, r.Name, by, target, a.Reason)
}

// onUser acts on somebody.
func (t *Talk) onUser(ctx context.Context, r *Room, role moderation.Role, by *event.User, a Action) error {
	subject, err := t.person(ctx, a.Login)
	if err != nil {
		return err
	}
	other := r.roleOf(subject.ID, subject.Login)
	roles := map[string]string{"mod": string(moderation.Moderator), "unmod": "", "vip": string(moderation.VIP), "unvip": ""}
	given, ofRoles := roles[a.Do]
	switch {
	case ofRoles && (role != moderation.Broadcaster || other == moderation.Broadcaster):
		return &Refusal{Code: NotAllowed, Text: "only the broadcaster gives roles, to others"}
	case ofRoles:
		return t.store.SetRole(ctx, r.Name, by, subject, given)
	case !role.MayActOn(other):
		return &Refusal{Code: NotAllowed, Text: "you can't act on a " + string(other)}
	}
	switch a.Do {
	case "ban":
		return t.store.Ban(ctx, r.Name, by, subject, 0, a.Reason)
	case "timeout":
		if a.Seconds < 1 || a.Seconds > maxTimeout {
			return &Refusal{Code: "seconds", Text: "a timeout lasts 1 second to two weeks"}
		}
		return t.store.Ban(ctx, r.Name, by, subject, time.Duration(a.Seconds)*time.Second, a.Reason)
	case "unban":
		return t.store.Unban(ctx, r.Name, by, subject)
	}
	return &Refusal{Code: "do", Text: "this action isn't known"}
}

// person returns somebody by name. As long as nobody can change a name, it tells the ID.
func (t *Talk) person(_ context.Context, login string) (*event.User, error) {
	if !channelname.Valid(login) {
		return nil, &Refusal{Code: "login", Text: "nobody can have this name"}
	}
	return &event.User{ID: session.IDOf(login), Login: login, Name: login}, nil
}
