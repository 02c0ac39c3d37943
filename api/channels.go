package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"millrace/api/store"
	"millrace/internal/channelname"
	"millrace/internal/lease"
	"millrace/internal/viewers"
)

const (
	// leaseDead is the age at which a lease's holder counts as dead: its
	// broadcast waits, like one whose publisher is gone, for another ingest.
	leaseDead = 3 * time.Second
	// graceSlack is how much longer than its grace period a broadcast without a
	// living holder is shown, since clocks differ.
	graceSlack = 5 * time.Second
	// trustFor is how long after Redis was away a record's age says nothing about
	// its holder: ingest couldn't renew the record meanwhile.
	trustFor = 5 * time.Second
	// probeKey is written to see whether Redis takes writes.
	probeKey = "millrace:probe"
)

// The states of a channel.
const (
	stateLive         = "live"
	stateReconnecting = "reconnecting"
	stateOffline      = "offline"
)

// Channel is a channel as the API shows it.
type Channel struct {
	Name      string     `json:"name" doc:"Its name, as in the address of its page"`
	Live      bool       `json:"live" doc:"There is a broadcast, also while it waits for its streamer"`
	State     string     `json:"state" enum:"live,reconnecting,offline" doc:"reconnecting: the streamer lost the connection, the broadcast waits"`
	Broadcast *string    `json:"broadcast" doc:"Id of the broadcast; another id is another broadcast"`
	StartedAt *time.Time `json:"started_at" doc:"When the broadcast began (RFC 3339)"`
	Viewers   int        `json:"viewers" minimum:"0" doc:"How many people watch"`
	Video     *Video     `json:"video" doc:"What the streamer sends; null without video"`
	Thumbnail *string    `json:"thumbnail" doc:"Path of a picture of the last seconds"`
}

// Video is the source's picture.
type Video struct {
	_         struct{} `nullable:"true"`
	Width     int      `json:"width" doc:"Pixels"`
	Height    int      `json:"height" doc:"Pixels"`
	FrameRate float64  `json:"frame_rate" doc:"Frames a second"`
}

// channels joins what SQL says of channels with what Redis says of their
// broadcasts. It is safe for concurrent use; its answers are up to cacheFor old.
type channels struct {
	redis redis.UniversalClient
	store *store.Store
	// listAll: anybody may list the channels without a broadcast too.
	listAll bool
	one     *cache[Channel]
	// many has two keys: listLive and listAll.
	many *cache[[]Channel]
	// away is when Redis last failed to answer or to take a write; nil: it never has.
	away atomic.Pointer[time.Time]
}

const (
	listLive = "live"
	listAll  = "all"
)

func newChannels(db redis.UniversalClient, st *store.Store, all bool) *channels {
	c := &channels{redis: db, store: st, listAll: all}
	c.one = newCache(c.loadOne)
	c.many = newCache(c.loadMany)
	return c
}

// get returns one channel, or an error that is store.ErrNotFound.
func (c *channels) get(ctx context.Context, name string) (Channel, error) {
	if !channelname.Valid(name) {
		return Channel{}, store.ErrNotFound
	}
	return c.one.get(ctx, name)
}

// list returns the live channels, those with most viewers first, or all
// channels by name, if anybody may list them. The caller must not change it.
func (c *channels) list(ctx context.Context, live bool) ([]Channel, error) {
	if live || !c.listAll {
		return c.many.get(ctx, listLive)
	}
	return c.many.get(ctx, listAll)
}

func (c *channels) loadOne(ctx context.Context, name string) (Channel, error) {
	if _, err := c.store.Channel(ctx, name); err != nil {
		return Channel{}, err
	}
	return c.broadcast(ctx, name)
}

func (c *channels) loadMany(ctx context.Context, which string) ([]Channel, error) {
	if which == listLive {
		return c.loadLive(ctx)
	}
	known, err := c.store.Channels(ctx)
	if err != nil {
		return nil, err
	}
	live, err := c.list(ctx, true)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]Channel, len(live))
	for _, ch := range live {
		byName[ch.Name] = ch
	}
	all := make([]Channel, len(known))
	for i, k := range known {
		ch, ok := byName[k.Name]
		if !ok {
			ch = Channel{Name: k.Name, State: stateOffline}
		}
		all[i] = ch
	}
	return all, nil
}

func (c *channels) loadLive(ctx context.Context) ([]Channel, error) {
	names, err := lease.Channels(ctx, c.redis)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	live := make([]Channel, 0, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, name := range names {
		g.Go(func() error {
			ch, err := c.broadcast(ctx, name)
			if err != nil || !ch.Live {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			live = append(live, ch)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(live, func(a, b Channel) int {
		return cmp.Or(cmp.Compare(b.Viewers, a.Viewers), cmp.Compare(a.Name, b.Name))
	})
	return live, nil
}

// broadcast reads what Redis says of a channel's broadcast.
func (c *channels) broadcast(ctx context.Context, name string) (Channel, error) {
	ch := Channel{Name: name, State: stateOffline}
	r, err := lease.Read(ctx, c.redis, name)
	if errors.Is(err, lease.ErrNone) {
		return ch, nil
	}
	if err != nil {
		now := time.Now()
		c.away.Store(&now)
		return ch, err
	}
	if ch.State = stateOf(r, c.ageless(ctx, r)); ch.State == stateOffline {
		return ch, nil
	}
	ch.Viewers, err = viewers.Count(ctx, c.redis, name)
	if err != nil {
		return ch, err
	}
	thumbnail := "/hls/" + name + "/" + r.Broadcast + "/thumbnail.jpg"
	ch.Live = true
	ch.Broadcast, ch.StartedAt = &r.Broadcast, &r.Started
	if r.Width > 0 {
		ch.Video = &Video{Width: r.Width, Height: r.Height, FrameRate: r.FrameRate}
		ch.Thumbnail = &thumbnail
	}
	return ch, nil
}

// ageless reports whether a record's age says nothing about its holder: Redis was away
// a moment ago, or it takes no writes, as with a full disk or memory. Then its holder
// can't renew it, and the pictures go on all the same.
func (c *channels) ageless(ctx context.Context, r lease.Record) bool {
	away := c.away.Load()
	if away != nil && time.Since(*away) < trustFor {
		return true
	}
	if r.State == lease.Ended || r.Age <= leaseDead || c.redis.Set(ctx, probeKey, 1, time.Second).Err() == nil {
		return false
	}
	now := time.Now()
	c.away.Store(&now)
	return true
}

// stateOf tells a channel's state from its lease. With ageless, the record's age
// says nothing about its holder, and what the record says is believed.
func stateOf(r lease.Record, ageless bool) string {
	if r.State == lease.Ended {
		return stateOffline
	}
	if r.Age > leaseDead && !ageless {
		gone := r.Age
		if !r.Lost.IsZero() {
			gone = r.Seen.Add(r.Age).Sub(r.Lost)
		}
		if gone > r.Grace+graceSlack {
			return stateOffline
		}
		return stateReconnecting
	}
	if r.State == lease.Reconnecting {
		return stateReconnecting
	}
	return stateLive
}
