package irc

import (
	"slices"
	"strconv"
	"strings"

	"millrace/chat/event"
	"millrace/internal/session"
)

// host is how the server is called in the dialect: clients compare it.
const host = "tmi.twitch.tv"

// tags writes "@name=value;... " in the order in which it is given them.
type tags []string

func (t *tags) add(name, value string) { *t = append(*t, name+"="+escape(value)) }

func (t *tags) flag(name string, on bool) {
	value := "0"
	if on {
		value = "1"
	}
	t.add(name, value)
}

// line returns a line with its end, with tags or without.
func (t tags) line(with bool, parts ...string) string {
	text := strings.Join(parts, "") + "\r\n"
	if with && len(t) > 0 {
		return "@" + strings.Join(t, ";") + " " + text
	}
	return text
}

// roomID is the number that a channel has for clients: that of who has its name.
func roomID(room string) string { return session.IDOf(room) }

// badges are "broadcaster/1,vip/1".
func badges(list []string) string {
	named := make([]string, len(list))
	for i, b := range list {
		named[i] = b + "/1"
	}
	return strings.Join(named, ",")
}

// person adds the tags that say who somebody is.
func (t *tags) person(u *event.User) {
	moderates := slices.Contains(u.Badges, "moderator")
	t.add("badge-info", "")
	t.add("badges", badges(u.Badges))
	t.add("color", u.Color)
	t.add("display-name", u.Name)
	t.flag("mod", moderates)
	t.flag("subscriber", false)
	t.flag("turbo", false)
	t.add("user-id", u.ID)
	kind := ""
	if moderates {
		kind = "mod"
	}
	t.add("user-type", kind)
	if slices.Contains(u.Badges, "vip") {
		t.add("vip", "1")
	}
}

// mask is who a line comes from.
func mask(login string) string { return ":" + login + "!" + login + "@" + login + "." + host }

// sent adds when something happened.
func (t *tags) sent(room string, id event.ID) {
	t.add("room-id", roomID(room))
	t.add("tmi-sent-ts", strconv.FormatInt(id.Time().UnixMilli(), 10))
}

// encode returns the lines that tell of an event: all with the capabilities tags and commands, and
// of those without only messages.
func encode(room string, e *event.Event, full bool) string {
	var t tags
	switch e.Kind {
	case event.Message:
		return message(room, e, full)
	case event.Announcement:
		t.person(e.User)
		t.add("emotes", "")
		t.add("flags", "")
		t.add("id", string(e.ID))
		t.add("login", e.User.Login)
		t.add("msg-id", "announcement")
		t.add("msg-param-color", "PRIMARY")
		t.add("system-msg", "")
		t.sent(room, e.ID)
		return only(full, t.line(true, ":", host, " USERNOTICE #", room, " :", e.Text))
	case event.Deleted:
		login, text := "", ""
		if e.Reply != nil {
			login, text = e.Reply.User.Login, e.Reply.Text
		}
		t.add("login", login)
		t.add("target-msg-id", string(e.Target))
		t.sent(room, e.ID)
		return only(full, t.line(true, ":", host, " CLEARMSG #", room, " :", text))
	case event.Cleared:
		t.sent(room, e.ID)
		return only(full, t.line(true, ":", host, " CLEARCHAT #", room))
	case event.UserCleared:
		if e.Seconds > 0 {
			t.add("ban-duration", strconv.Itoa(e.Seconds))
		}
		t.add("target-user-id", e.Subject.ID)
		t.sent(room, e.ID)
		return only(full, t.line(true, ":", host, " CLEARCHAT #", room, " :", e.Subject.Login))
	case event.SettingsChanged:
		return only(full, roomState(room, *e.Settings))
	}
	return ""
}

func only(full bool, lines string) string {
	if full {
		return lines
	}
	return ""
}

func message(room string, e *event.Event, full bool) string {
	var t tags
	t.person(e.User)
	t.add("client-nonce", e.Nonce)
	t.add("emotes", "")
	t.flag("first-msg", e.First)
	t.add("flags", "")
	t.add("id", string(e.ID))
	t.flag("returning-chatter", false)
	t.sent(room, e.ID)
	text := e.Text
	if e.Action {
		text = "\x01ACTION " + text + "\x01"
	}
	if r := e.Reply; r != nil {
		t.add("reply-parent-msg-id", string(r.ID))
		t.add("reply-parent-user-id", r.User.ID)
		t.add("reply-parent-user-login", r.User.Login)
		t.add("reply-parent-display-name", r.User.Name)
		t.add("reply-parent-msg-body", r.Text)
		t.add("reply-thread-parent-msg-id", string(r.ID))
		t.add("reply-thread-parent-user-login", r.User.Login)
		text = "@" + r.User.Name + " " + text // the dialect has the name of whom one answers in the text
	}
	return t.line(full, mask(e.User.Login), " PRIVMSG #", room, " :", text)
}

// roomState tells of a room's settings.
func roomState(room string, s event.Settings) string {
	var t tags
	t.flag("emote-only", s.EmoteOnly)
	followers := "-1"
	if s.FollowersOnly != nil {
		followers = strconv.Itoa(*s.FollowersOnly)
	}
	t.add("followers-only", followers)
	t.flag("r9k", s.Unique)
	t.add("room-id", roomID(room))
	t.add("slow", strconv.Itoa(s.Slow))
	t.flag("subs-only", s.SubscribersOnly)
	return t.line(true, ":", host, " ROOMSTATE #", room)
}

// notice tells somebody something about a room: of what goes by an id in the dialect.
func notice(room, id, text string, full bool) string {
	var t tags
	t.add("msg-id", id)
	return t.line(full, ":", host, " NOTICE #", room, " :", text)
}
