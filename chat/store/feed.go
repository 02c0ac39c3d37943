package store

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/chat/event"
	"millrace/internal/sparselog"
)

const (
	// canaryEvery is how often a process tells itself something: Redis's subscriptions can fall silent without
	// an error. canaryPatience is how long it may hear nothing.
	canaryEvery    = time.Second
	canaryPatience = 2 * time.Second
	// retryAfter is how long a feed waits when Redis can't be asked.
	retryAfter = 250 * time.Millisecond
	// readAtOnce is how many events are read at a time.
	readAtOnce = 500
	// overlap is how many events a room reads again after a subscription broke: a Redis that took over from
	// another one may give IDs below those that were heard of.
	overlap = 64
)

// Feed tells a process of the events of the rooms that it has open, each once and in one order. Hints bring
// them; what a hint shows to be missing is read from the stream.
type Feed struct {
	store  *Store
	log    *slog.Logger
	faults sparselog.Limiter
	canary string

	mu    sync.Mutex
	rooms map[string]*feedRoom
	sub   *redis.PubSub // nil between two
	reads sync.WaitGroup
	ctx   context.Context // of Run; nil before it
}

// feedRoom is what a feed knows of one room. deliver is called by one goroutine at a time.
type feedRoom struct {
	name    string
	deliver func([]*event.Event)

	// guarded by the feed's mu
	last    event.ID          // the newest event delivered
	recent  map[event.ID]bool // the newest overlap of them
	order   []event.ID        // those, oldest first
	reading bool              // a goroutine reads the stream,
	again   bool              // and has to do so once more
	tail    bool              // beginning before last
}

// NewFeed returns the feed of one process, which has a name that no other process has.
func NewFeed(s *Store, process string, log *slog.Logger) *Feed {
	return &Feed{store: s, log: log, canary: "millrace:chat:canary:" + process, rooms: make(map[string]*feedRoom)}
}

// Open has deliver called with a room's events after one, by one goroutine at a time, until Close. It must not block.
func (f *Feed) Open(room string, after event.ID, deliver func([]*event.Event)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &feedRoom{name: room, deliver: deliver, last: after, recent: make(map[event.ID]bool)}
	f.rooms[room] = r
	if f.sub != nil {
		_ = f.sub.Subscribe(f.ctx, hints(room)) // a broken subscription is made anew, with this one
	}
}

// Close ends what Open began.
func (f *Feed) Close(room string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.rooms, room)
	if f.sub != nil {
		_ = f.sub.Unsubscribe(f.ctx, hints(room))
	}
}

// Run keeps the feed going until ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	defer f.reads.Wait()
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	for {
		err := f.subscribe(ctx)
		if ctx.Err() != nil {
			return nil
		}
		f.faults.Log(f.log, slog.LevelWarn, "chat is subscribed anew: until then messages come late", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryAfter):
		}
	}
}

// subscribe hears of events until the subscription breaks.
func (f *Feed) subscribe(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var singing sync.WaitGroup
	defer singing.Wait()
	defer cancel()

	f.mu.Lock()
	channels := []string{f.canary}
	for name := range f.rooms {
		channels = append(channels, hints(name))
	}
	sub := f.store.db.Subscribe(ctx, channels...)
	f.sub = sub
	f.mu.Unlock()
	hangUp := context.AfterFunc(ctx, func() { _ = sub.Close() }) // a receive that waits doesn't see ctx
	defer func() {
		hangUp()
		f.mu.Lock()
		f.sub = nil
		f.mu.Unlock()
		_ = sub.Close()
	}()
	singing.Go(func() { f.sing(ctx) })
	for {
		m, err := sub.ReceiveTimeout(ctx, canaryPatience)
		if err != nil {
			return fmt.Errorf("hear of events: %w", err)
		}
		switch m := m.(type) {
		case *redis.Subscription:
			if m.Kind == "subscribe" && m.Channel != f.canary {
				f.catchUp(roomOf(m.Channel), true)
			}
		case *redis.Message:
			if m.Channel != f.canary {
				f.hint(roomOf(m.Channel), m.Payload)
			}
		}
	}
}

// sing publishes the canary.
func (f *Feed) sing(ctx context.Context) {
	tick := time.NewTicker(canaryEvery)
	defer tick.Stop()
	for {
		_ = f.store.db.Publish(ctx, f.canary, "").Err() // that it doesn't arrive is what counts
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func roomOf(channel string) string {
	_, rest, _ := strings.Cut(channel, "{")
	room, _, _ := strings.Cut(rest, "}")
	return room
}

// hint takes what append.lua publishes: the ID before, the event's, the event.
func (f *Feed) hint(room, payload string) {
	before, rest, _ := strings.Cut(payload, " ")
	id, doc, _ := strings.Cut(rest, " ")
	e, err := event.Parse([]byte(doc))
	f.mu.Lock()
	r := f.rooms[room]
	if r == nil {
		f.mu.Unlock()
		return
	}
	if err != nil || r.reading || r.last != event.ID(before) {
		f.mu.Unlock()
		f.catchUp(room, false)
		return
	}
	e.ID = event.ID(id)
	r.note(e)
	f.mu.Unlock()
	r.deliver([]*event.Event{e})
}

// note remembers that an event was delivered.
func (r *feedRoom) note(e *event.Event) {
	if event.Compare(e.ID, r.last) > 0 {
		r.last = e.ID
	}
	r.recent[e.ID] = true
	if r.order = append(r.order, e.ID); len(r.order) > overlap {
		delete(r.recent, r.order[0])
		r.order = r.order[1:]
	}
}

// catchUp reads what is missing of a room from its stream; with tail also what is there below the newest ID.
func (f *Feed) catchUp(room string, tail bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.rooms[room]
	if r == nil {
		return
	}
	r.tail = r.tail || tail
	if r.reading {
		r.again = true
		return
	}
	r.reading = true
	f.reads.Go(func() { f.read(f.ctx, r) })
}

// read delivers until the room's stream has nothing more.
func (f *Feed) read(ctx context.Context, r *feedRoom) {
	for {
		f.mu.Lock()
		after, tail := r.last, r.tail && len(r.order) > 0
		r.again, r.tail = false, false
		f.mu.Unlock()
		var list []*event.Event
		var err error
		if tail {
			list, err = f.store.Newest(ctx, r.name, overlap)
		}
		if err == nil {
			var more []*event.Event
			more, err = f.store.After(ctx, r.name, after, readAtOnce)
			list = append(list, more...)
			slices.SortStableFunc(list, func(a, b *event.Event) int { return event.Compare(a.ID, b.ID) })
		}
		if err != nil {
			f.faults.Log(f.log, slog.LevelWarn, "read a room; it is tried again", "room", r.name, "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryAfter):
			}
			f.mu.Lock()
			r.tail = r.tail || tail
			f.mu.Unlock()
			continue
		}
		f.mu.Lock()
		fresh := list[:0]
		for _, e := range list {
			if !r.recent[e.ID] && (event.Compare(e.ID, after) > 0 || tail && !r.old(e.ID)) {
				r.note(e)
				fresh = append(fresh, e)
			}
		}
		done := len(fresh) == 0 && !r.again
		if done {
			r.reading = false
		}
		f.mu.Unlock()
		if len(fresh) > 0 {
			r.deliver(fresh)
		}
		if done {
			return
		}
	}
}

// old reports whether an event is before all that are remembered: it was delivered, or was before the room was opened.
func (r *feedRoom) old(id event.ID) bool { return event.Compare(id, r.order[0]) < 0 }
