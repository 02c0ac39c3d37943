// Package talk is what every front of chat can do for its connections: bring them into rooms, say
// something, act as a moderator. It keeps a room open while somebody is in it: its settings, its roles,
// its newest events, and the feed that brings more.
package talk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/chat/event"
	"millrace/chat/moderation"
	"millrace/chat/room"
	"millrace/chat/store"
	"millrace/internal/channelname"
	"millrace/internal/credentials"
	"millrace/internal/session"
)

const (
	// keptEvents is how many of the newest events a room that is opened begins with.
	keptEvents = 200
	// idleFor is how long a room stays open when everybody has left it, and sweepEvery how often that is looked at.
	idleFor, sweepEvery = time.Minute, 10 * time.Second
	// maxMissed is how many events a connection that comes back is given; one that missed more is told of a gap.
	maxMissed = 1000
	// MaxRooms is how many rooms a process has open at a time.
	MaxRooms = 20_000
)

// Errors that callers branch on.
var (
	// ErrNoRoom means that no channel has this name.
	ErrNoRoom = errors.New("there is no such channel")
	// ErrTooManyRooms means that this process has [MaxRooms] open.
	ErrTooManyRooms = errors.New("too many rooms are open here")
)

// Encode makes the frames that tell of an event in a room.
type Encode func(room string, e *event.Event) []byte

// Config is what a [Talk] needs.
type Config struct {
	// Redis is the client of this service alone.
	Redis redis.UniversalClient
	// Process is a name that no other process has.
	Process string
	// Hub is the engine; Encoders has a line for each of its formats that has no Each.
	Hub      *room.Hub
	Encoders map[*room.Format]Encode
	Log      *slog.Logger
}

// Talk is safe for concurrent use.
type Talk struct {
	Config
	store *store.Store
	feed  *store.Feed

	mu    sync.Mutex
	rooms map[string]*Room
	// origins are the connections whose messages are on their way, by user and nonce.
	origins map[string]uint64
}

// New returns a Talk. Nothing is heard of before Run.
func New(c Config) *Talk {
	s := store.New(c.Redis)
	return &Talk{Config: c, store: s, feed: store.NewFeed(s, c.Process, c.Log), rooms: make(map[string]*Room), origins: make(map[string]uint64)}
}

// Run keeps rooms up to date until ctx ends.
func (t *Talk) Run(ctx context.Context) error {
	var sweeping sync.WaitGroup
	defer sweeping.Wait()
	sweeping.Go(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				t.sweep(now)
			}
		}
	})
	return t.feed.Run(ctx)
}

// Identify returns who has a token, or [session.ErrUnknownToken].
func (t *Talk) Identify(ctx context.Context, token session.Token) (session.Identity, error) {
	return session.Lookup(ctx, t.Redis, token)
}

// Room is a room that is open in this process.
type Room struct {
	// Name is the channel's.
	Name string
	room *room.Room

	mu       sync.Mutex
	settings event.Settings
	roles    map[string]string
	empty    time.Time // since when nobody is in it; zero: somebody is

	opened chan struct{} // closed when it can be used,
	err    error         // or why it can't
}

// Settings are what the room asks of those who write.
func (r *Room) Settings() event.Settings {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.settings
}

// Role is what somebody is in the room: who has the channel's name is its broadcaster.
func (r *Room) Role(who session.Identity) moderation.Role {
	if who.Anonymous() {
		return moderation.Nobody
	}
	return r.roleOf(who.ID, who.Login)
}

func (r *Room) roleOf(id, login string) moderation.Role {
	if login == r.Name {
		return moderation.Broadcaster
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return moderation.Role(r.roles[id])
}

// Size is how many connections are in the room, in this process.
func (r *Room) Size() int { return r.room.Size() }

// Open returns a channel's room.
func (t *Talk) Open(ctx context.Context, name string) (*Room, error) {
	if !channelname.Valid(name) {
		return nil, ErrNoRoom
	}
	for {
		t.mu.Lock()
		r := t.rooms[name]
		if r == nil {
			if len(t.rooms) >= MaxRooms {
				t.mu.Unlock()
				return nil, ErrTooManyRooms
			}
			r = &Room{Name: name, opened: make(chan struct{})}
			t.rooms[name] = r
			t.mu.Unlock()
			r.err = t.load(ctx, r)
			close(r.opened)
			if r.err != nil {
				t.mu.Lock()
				delete(t.rooms, name)
				t.mu.Unlock()
			}
			return r, r.err
		}
		t.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-r.opened:
		}
		if r.err == nil || errors.Is(r.err, ErrNoRoom) {
			return r, r.err
		} // whoever opened it couldn't, perhaps since it gave up: try it again
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// load reads what is known of a room and begins to hear of more.
func (t *Talk) load(ctx context.Context, r *Room) error {
	there, err := credentials.Exists(ctx, t.Redis, r.Name)
	if err != nil {
		return err
	}
	if !there {
		return ErrNoRoom
	}
	if r.settings, err = t.store.Settings(ctx, r.Name); err != nil {
		return err
	}
	if r.roles, err = t.store.Roles(ctx, r.Name); err != nil {
		return err
	}
	list, err := t.store.Newest(ctx, r.Name, keptEvents+1)
	if err != nil {
		return err
	}
	base := event.ID("0-0")
	if len(list) > keptEvents { // the oldest one only says behind what the log begins
		base, list = list[0].ID, list[1:]
	}
	r.room = t.Hub.Open(r.Name, string(base))
	r.empty = time.Now()
	last := base
	if len(list) > 0 {
		last = list[len(list)-1].ID
		t.publish(r, list)
	}
	t.feed.Open(r.Name, last, func(list []*event.Event) { t.publish(r, list) })
	return nil
}

// publish brings events into the room.
func (t *Talk) publish(r *Room, list []*event.Event) {
	for _, e := range list {
		r.apply(e)
		t.Hub.Room(r.Name).Publish(t.entry(r.Name, e))
	}
}

// entry is an event as the engine takes it.
func (t *Talk) entry(name string, e *event.Event) room.Entry {
	return room.Entry{
		ID: string(e.ID), Value: e, Origin: t.origin(e),
		Encode: func(f *room.Format) []byte {
			if encode := t.Encoders[f]; encode != nil {
				return encode(name, e)
			}
			return nil
		},
	}
}

// apply keeps what a room knows of itself up to date.
func (r *Room) apply(e *event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.Kind == event.SettingsChanged && e.Settings != nil:
		r.settings = *e.Settings
	case e.Kind == event.Role && e.Subject != nil && e.Text == "":
		delete(r.roles, e.Subject.ID)
	case e.Kind == event.Role && e.Subject != nil:
		r.roles[e.Subject.ID] = e.Text
	}
}

// sweep closes rooms that everybody has left.
func (t *Talk) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, r := range t.rooms {
		if r.room == nil {
			continue // it is being opened
		}
		r.mu.Lock()
		if r.room.Size() > 0 {
			r.empty = time.Time{}
		} else if r.empty.IsZero() {
			r.empty = now
		}
		over := !r.empty.IsZero() && now.Sub(r.empty) >= idleFor
		r.mu.Unlock()
		if over && r.room.Remove() {
			t.feed.Close(name)
			delete(t.rooms, name)
		}
	}
}

// Enter brings a connection into a room: behind an event that it has seen, or with so many of the newest events.
// missed makes the frames of those that the engine holds no more. gap is set where it missed more than is kept.
func (t *Talk) Enter(ctx context.Context, c *room.Conn, name string, after event.ID, newest int) (r *Room, gap bool, err error) {
	for range 3 { // a room may close just when somebody comes
		if r, err = t.Open(ctx, name); err != nil {
			return nil, false, err
		}
		from := room.Last(newest)
		if after != "" {
			from = room.After(string(after))
		}
		err = r.room.Join(c, from)
		if errors.Is(err, room.ErrGone) {
			gap, err = t.enterLate(ctx, c, r, after, newest)
		}
		if !errors.Is(err, room.ErrClosed) {
			return r, gap, err
		}
	}
	return nil, false, fmt.Errorf("enter room %s: %w", name, err)
}

// enterLate gives a connection what it missed from the stream first.
func (t *Talk) enterLate(ctx context.Context, c *room.Conn, r *Room, after event.ID, newest int) (gap bool, err error) {
	list, err := t.store.After(ctx, r.Name, after, maxMissed)
	if err != nil {
		return false, err
	}
	oldest, err := t.store.After(ctx, r.Name, "", 1)
	if err != nil {
		return false, err
	}
	trimmed := len(oldest) > 0 && event.Compare(oldest[0].ID, after) > 0
	if trimmed || len(list) == maxMissed || len(list) == 0 {
		return true, r.room.Join(c, room.Last(newest))
	}
	for _, e := range list {
		if encode := t.Encoders[c.Format()]; encode != nil {
			c.Send(encode(r.Name, e))
		}
	}
	if err = r.room.Join(c, room.After(string(list[len(list)-1].ID))); errors.Is(err, room.ErrGone) {
		return true, r.room.Join(c, room.Last(newest))
	}
	return false, err
}

// Leave takes a connection out of a room, and reports whether it was in it.
func (t *Talk) Leave(c *room.Conn, name string) bool {
	r := t.Hub.Room(name)
	return r != nil && r.Leave(c)
}
