package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"millrace/chat/event"
)

// The hashes of a room that actions change, by their number in act.lua.
const (
	hashBans = iota + 1
	hashRoles
	hashSettings
)

// act appends an event together with changes: triples of a hash, a field and a value.
func (s *Store) act(ctx context.Context, room string, e *event.Event, changes ...any) (event.ID, error) {
	doc, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("act in room %s: %w", room, err)
	}
	args := append([]any{hints(room), doc, maxEntries, maxAudit}, changes...)
	id, err := actScript.Run(ctx, s.db, []string{
		key(room, ""), key(room, "audit"), key(room, "bans"), key(room, "roles"), key(room, "settings"),
	}, args...).Text()
	if err != nil {
		return "", fmt.Errorf("act in room %s: %w", room, err)
	}
	return event.ID(id), nil
}

// Delete takes one message away.
func (s *Store) Delete(ctx context.Context, room string, by *event.User, target *event.Event, why string) error {
	e := &event.Event{Kind: event.Deleted, User: by, Target: target.ID, Subject: target.User, Text: why}
	e.Reply = &event.Reply{ID: target.ID, User: *target.User, Text: target.Text}
	_, err := s.act(ctx, room, e)
	return err
}

// Pin shows a message above all others; "" none.
func (s *Store) Pin(ctx context.Context, room string, by *event.User, id event.ID) error {
	_, err := s.act(ctx, room, &event.Event{Kind: event.Pinned, User: by, Target: id})
	return err
}

// Clear takes all messages away.
func (s *Store) Clear(ctx context.Context, room string, by *event.User) error {
	_, err := s.act(ctx, room, &event.Event{Kind: event.Cleared, User: by})
	return err
}

// Ban takes a user's messages away and lets the user write no more, for so long; 0: for ever.
func (s *Store) Ban(ctx context.Context, room string, by, subject *event.User, span time.Duration, why string) error {
	until := "0"
	if span > 0 {
		until = strconv.FormatInt(time.Now().Add(span).UnixMilli(), 10)
	}
	e := &event.Event{Kind: event.UserCleared, User: by, Subject: subject, Ban: true, Seconds: int(span.Seconds()), Text: why}
	_, err := s.act(ctx, room, e, hashBans, subject.ID, until)
	return err
}

// Unban lets a user write again.
func (s *Store) Unban(ctx context.Context, room string, by, subject *event.User) error {
	_, err := s.act(ctx, room, &event.Event{Kind: event.Unbanned, User: by, Subject: subject}, hashBans, subject.ID, "")
	return err
}

// Announce appends a message that stands out.
func (s *Store) Announce(ctx context.Context, room string, by *event.User, text string) error {
	_, err := s.act(ctx, room, &event.Event{Kind: event.Announcement, User: by, Text: text})
	return err
}

// SetRole gives a user a role, "moderator" or "vip"; "" takes it back.
func (s *Store) SetRole(ctx context.Context, room string, by, subject *event.User, role string) error {
	_, err := s.act(ctx, room, &event.Event{Kind: event.Role, User: by, Subject: subject, Text: role}, hashRoles, subject.ID, role)
	return err
}

// Roles returns the roles of a room's users by their IDs.
func (s *Store) Roles(ctx context.Context, room string) (map[string]string, error) {
	roles, err := s.db.HGetAll(ctx, key(room, "roles")).Result()
	if err != nil {
		return nil, fmt.Errorf("read the roles of room %s: %w", room, err)
	}
	return roles, nil
}

// BannedUntil tells until when a user of a room may not write: ok is false where it may; a zero time is for ever.
func (s *Store) BannedUntil(ctx context.Context, room, user string) (until time.Time, ok bool, err error) {
	list, err := s.db.HMGet(ctx, key(room, "bans"), user).Result()
	if err != nil {
		return until, false, fmt.Errorf("read the bans of room %s: %w", room, err)
	}
	text, _ := list[0].(string)
	ms, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return until, false, nil
	case ms == 0:
		return until, true, nil
	}
	until = time.UnixMilli(ms)
	return until, until.After(time.Now()), nil
}

// setting is a flag of a room as its hash has it.
func setting(on bool) string {
	if on {
		return "1"
	}
	return ""
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// SetSettings gives a room other settings.
func (s *Store) SetSettings(ctx context.Context, room string, by *event.User, now event.Settings) error {
	followers := ""
	if now.FollowersOnly != nil {
		followers = strconv.Itoa(*now.FollowersOnly)
	}
	_, err := s.act(ctx, room, &event.Event{Kind: event.SettingsChanged, User: by, Settings: &now},
		hashSettings, "slow", count(now.Slow),
		hashSettings, "emote_only", setting(now.EmoteOnly),
		hashSettings, "unique", setting(now.Unique),
		hashSettings, "followers_only", followers,
		hashSettings, "subscribers_only", setting(now.SubscribersOnly),
		hashSettings, "hold_links", setting(now.HoldLinks),
		hashSettings, "shield", setting(now.Shield))
	return err
}

// Settings returns a room's settings.
func (s *Store) Settings(ctx context.Context, room string) (event.Settings, error) {
	h, err := s.db.HGetAll(ctx, key(room, "settings")).Result()
	if err != nil {
		return event.Settings{}, fmt.Errorf("read the settings of room %s: %w", room, err)
	}
	var now event.Settings
	now.Slow, _ = strconv.Atoi(h["slow"])
	now.EmoteOnly, now.Unique, now.SubscribersOnly = h["emote_only"] == "1", h["unique"] == "1", h["subscribers_only"] == "1"
	now.HoldLinks, now.Shield = h["hold_links"] == "1", h["shield"] == "1"
	if n, err := strconv.Atoi(h["followers_only"]); err == nil {
		now.FollowersOnly = &n
	}
	return now, nil
}
