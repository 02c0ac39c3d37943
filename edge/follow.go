package edge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"millrace/internal/index"
	"millrace/internal/jobs"
)

const (
	// quietAfter is how long a follow stream may say nothing.
	quietAfter = 2 * time.Second
	// lateAfter is when a worker that says nothing is suspected.
	lateAfter = index.Heartbeat + index.Heartbeat/2
	// collectFor bounds the wait for a worker's first line before a cold edge begins.
	collectFor = time.Second
	// burstFor is how long a worker may take from the first media it tells of
	// to the last that exists.
	burstFor = 30 * time.Millisecond
	// redisTimeout bounds one read from Redis.
	redisTimeout = 2 * time.Second
	// indexPage and maxIndex bound the entries read from Redis at once and in all.
	indexPage = 1000
	maxIndex  = 10_000
)

var (
	errQuiet   = errors.New("the follow stream went quiet")
	errNotHere = errors.New("the worker doesn't know the broadcast")
)

// broadcast follows the workers of one broadcast and keeps its board.
type broadcast struct {
	service *Service
	channel *channel
	id      string
	log     *slog.Logger
	board   *board
	stopRun chan struct{}
	stop    func()
	// asked is when somebody asked last, heard when a worker said something
	// last, over since when it isn't the current one (0: it is); Unix nanoseconds.
	asked, heard, over atomic.Int64
	// connected counts open follow streams, searched is since when there is none.
	connected, searched atomic.Int64
	// hot holds, by rendition, when a part of it was asked for last (*atomic.Int64).
	hot sync.Map
	// first is closed when the first media that a worker told of has been applied.
	first     chan struct{}
	firstOnce sync.Once
	// news has room for one: the slots have changed.
	news chan struct{}

	// mu guards slots.
	mu    sync.Mutex
	slots map[int]jobs.Slot
}

func newBroadcast(c *channel, id string, log *slog.Logger) *broadcast {
	b := &broadcast{
		service: c.service, channel: c, id: id, log: log.With("broadcast", id),
		board: newBoard(c.service.cfg.DVRWindow), stopRun: make(chan struct{}),
		first: make(chan struct{}), news: make(chan struct{}, 1),
	}
	b.stop = sync.OnceFunc(func() { close(b.stopRun) })
	now := time.Now().UnixNano()
	b.asked.Store(now)
	b.searched.Store(now)
	return b
}

func (b *broadcast) idle(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - b.asked.Load())
}

// alive reports whether a worker speaks of the broadcast and it hasn't ended.
func (b *broadcast) alive(now time.Time) bool {
	return !b.board.now.Load().ended && now.UnixNano()-b.heard.Load() < int64(quietAfter)
}

// searching reports whether the broadcast needs another worker soon.
func (b *broadcast) searching(now time.Time) bool {
	if b.board.now.Load().ended {
		return false
	}
	if since := b.searched.Load(); since != 0 {
		return now.UnixNano()-since < int64(searchFor)
	}
	return now.UnixNano()-b.heard.Load() > int64(lateAfter)
}

// setSlots tells which workers to follow. No slots at all mean that Redis lost
// its memory, or that there is no worker yet: those known stay.
func (b *broadcast) setSlots(slots map[int]jobs.Slot) {
	if len(slots) == 0 {
		return
	}
	b.mu.Lock()
	same := maps.Equal(b.slots, slots)
	b.slots = slots
	b.mu.Unlock()
	if same {
		return
	}
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// workers returns the base URLs of the workers, newest grant first.
func (b *broadcast) workers() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	slots := slices.SortedFunc(maps.Values(b.slots), func(x, y jobs.Slot) int {
		if y.Epoch.Less(x.Epoch) {
			return -1
		}
		return 1
	})
	addresses := make([]string, 0, len(slots))
	for _, s := range slots {
		if !slices.Contains(addresses, s.Address) {
			addresses = append(addresses, s.Address)
		}
	}
	return addresses
}

// follower is the reader of one slot.
type follower struct {
	slot jobs.Slot
	stop context.CancelFunc
}

// run reads what Redis remembers, then follows all slots until the broadcast
// is stopped.
func (b *broadcast) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	defer func() { _ = group.Wait() }() // its functions return nil
	defer cancel()
	b.log.Info("following broadcast")
	defer b.log.Info("no longer following broadcast")

	last, err := b.remember(ctx)
	if err != nil && ctx.Err() == nil {
		b.service.metrics.redis.Inc()
		b.log.Warn("the index can't be read from Redis; starting from the workers' memory", "err", err)
	}
	followers := make(map[int]follower)
	begin := time.NewTimer(collectFor)
	defer begin.Stop()
	first := b.first
	tick := time.NewTicker(index.Heartbeat)
	defer tick.Stop()
	var faults lineASecond
	for {
		select {
		case <-b.news:
			b.follow(ctx, &group, followers)
		case <-first:
			first = nil
			begin.Reset(burstFor)
		case <-begin.C:
			b.board.update((*fold).begin)
		case now := <-tick.C:
			b.giveUp(now)
			if b.connected.Load() == 0 && !b.board.now.Load().ended {
				if err := b.catchUp(ctx, &last); err != nil && ctx.Err() == nil {
					b.service.metrics.redis.Inc()
					faults.log(b.log, "the index can't be read from Redis", err)
				}
			}
		case <-b.stopRun:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (b *broadcast) giveUp(now time.Time) {
	b.board.update(func(f *fold) bool {
		if f.settings == nil {
			return false
		}
		for reason, n := range f.refused {
			b.service.metrics.refused.WithLabelValues(reason).Add(float64(n))
		}
		clear(f.refused)
		target := time.Duration(f.settings.TargetDuration) * time.Second
		return f.giveUp(now, target+target/2)
	})
}

// follow starts a reader for each slot that is new or has changed, and stops
// the one before it.
func (b *broadcast) follow(ctx context.Context, group *errgroup.Group, followers map[int]follower) {
	b.mu.Lock()
	slots := maps.Clone(b.slots)
	b.mu.Unlock()
	for n, f := range followers {
		if slots[n] != f.slot {
			f.stop()
			delete(followers, n)
		}
	}
	for n, slot := range slots {
		if _, ok := followers[n]; ok {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		followers[n] = follower{slot, stop}
		group.Go(func() error {
			defer stop()
			b.followSlot(ctx, slot.Address)
			return nil
		})
	}
}

// followSlot reads a worker's follow stream again and again until ctx ends.
func (b *broadcast) followSlot(ctx context.Context, address string) {
	const shortest, longest = 50 * time.Millisecond, time.Second
	backoff := shortest
	var faults lineASecond
	for {
		heard, err := b.followOnce(ctx, address)
		if ctx.Err() != nil {
			return
		}
		b.service.metrics.follows.WithLabelValues(breakReason(err)).Inc()
		if !b.board.now.Load().ended {
			faults.log(b.log.With("worker", address), "follow stream broke; connecting again", err)
		}
		if heard {
			backoff = shortest
		}
		// Another worker may have the slot already.
		select {
		case b.channel.kick <- struct{}{}:
		default:
		}
		timer := time.NewTimer(backoff)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		backoff = min(2*backoff, longest)
	}
}

func breakReason(err error) string {
	switch {
	case errors.Is(err, errQuiet):
		return "quiet"
	case errors.Is(err, errNotHere):
		return "not_here"
	case errors.Is(err, bufio.ErrTooLong):
		return "line_too_long"
	case err == nil:
		return "closed"
	}
	return "error"
}

// followOnce reads a follow stream until it breaks or goes quiet. heard tells
// whether it said anything.
func (b *broadcast) followOnce(ctx context.Context, address string) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(quietAfter, func() { cancel(errQuiet) })
	defer quiet.Stop()
	defer func() {
		if cause := context.Cause(ctx); cause != nil && err != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
	}()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+index.FollowPath(b.id), nil)
	if err != nil {
		return false, fmt.Errorf("follow: %w", err)
	}
	b.service.cfg.Secret.Authorize(req)
	resp, err := b.service.client.Do(req)
	if err != nil {
		return false, fmt.Errorf("follow: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return false, errNotHere
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("follow: status %d", resp.StatusCode)
	}
	b.open()
	defer b.closed()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 16<<10), index.MaxLine)
	for lines.Scan() {
		quiet.Reset(quietAfter)
		b.heard.Store(time.Now().UnixNano())
		entries, err := index.ParseLine(lines.Bytes())
		if err != nil {
			return heard, fmt.Errorf("follow: %w", err)
		}
		if len(entries) > 0 {
			b.board.update(func(f *fold) bool { return f.apply(entries) })
			b.arrived(ctx, entries)
		}
		heard = true
	}
	if err := lines.Err(); err != nil {
		return heard, fmt.Errorf("follow: %w", err)
	}
	return heard, nil
}

// arrived begins the playlists with the first media that a worker told of, and
// fetches new parts that viewers are about to ask for.
func (b *broadcast) arrived(ctx context.Context, entries []index.Entry) {
	for i := range entries {
		e := &entries[i]
		if e.Type == index.TypePart || e.Type == index.TypeSegment {
			b.firstOnce.Do(func() { close(b.first) })
		}
		if e.Type == index.TypePart {
			b.prefetch(ctx, e)
		}
	}
}

func (b *broadcast) open() {
	b.connected.Add(1)
	b.searched.Store(0)
	b.service.metrics.streams.Inc()
}

func (b *broadcast) closed() {
	if b.connected.Add(-1) == 0 {
		b.searched.Store(time.Now().UnixNano())
	}
	b.service.metrics.streams.Dec()
}

// remember applies the head of the index stream in Redis, where the settings
// stand, and its tail, as far back as playlists reach. It returns the last id.
func (b *broadcast) remember(ctx context.Context) (last string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*redisTimeout)
	defer cancel()
	db, key := b.service.cfg.Redis, index.StreamKey(b.id)
	head, err := db.XRangeN(ctx, key, "-", "+", 32).Result()
	if err != nil {
		return "", fmt.Errorf("read index: %w", err)
	}
	var tail []redis.XMessage
	newest, until := int64(0), "+"
	for len(tail) < maxIndex {
		page, err := db.XRevRangeN(ctx, key, until, "-", indexPage).Result()
		if err != nil {
			return "", fmt.Errorf("read index: %w", err)
		}
		tail = append(tail, page...)
		if len(page) < indexPage {
			break
		}
		if newest == 0 {
			newest = streamTime(page[0].ID)
		}
		oldest := page[len(page)-1].ID
		if newest-streamTime(oldest) > (b.service.cfg.DVRWindow + followFor).Milliseconds() {
			break
		}
		until = "(" + oldest
	}
	if len(tail) > 0 {
		last = tail[0].ID
	}
	slices.Reverse(tail)
	entries := b.parse(head)
	entries = slices.DeleteFunc(entries, func(e index.Entry) bool {
		return e.Type != index.TypeBroadcast && e.Type != index.TypeInit
	})
	entries = append(entries, b.parse(tail)...)
	b.board.update(func(f *fold) bool { return f.apply(entries) })
	return last, nil
}

// catchUp applies what came into Redis after last: the way to go on while no
// worker can be reached.
func (b *broadcast) catchUp(ctx context.Context, last *string) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	from := "-"
	if *last != "" {
		from = "(" + *last
	}
	page, err := b.service.cfg.Redis.XRangeN(ctx, index.StreamKey(b.id), from, "+", indexPage).Result()
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	if len(page) == 0 {
		return nil
	}
	*last = page[len(page)-1].ID
	entries := b.parse(page)
	b.board.update(func(f *fold) bool { return f.apply(entries) })
	return nil
}

// parse decodes entries of the Redis stream; malformed ones are counted and left out.
func (b *broadcast) parse(messages []redis.XMessage) []index.Entry {
	entries := make([]index.Entry, 0, len(messages))
	for _, m := range messages {
		doc, _ := m.Values[index.Field].(string)
		e, err := index.Parse([]byte(doc))
		if err != nil {
			b.service.metrics.refused.WithLabelValues("malformed").Inc()
			continue
		}
		entries = append(entries, e)
	}
	return entries
}

// streamTime returns the milliseconds in a Redis stream id.
func streamTime(id string) int64 {
	ms, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// lineASecond logs repeated faults once a second. The zero value is ready; it
// is safe for concurrent use.
type lineASecond struct{ last atomic.Int64 }

func (l *lineASecond) log(log *slog.Logger, msg string, err error, attrs ...any) {
	now, last := time.Now().UnixNano(), l.last.Load()
	if now-last < int64(time.Second) || !l.last.CompareAndSwap(last, now) {
		return
	}
	log.Warn(msg, append([]any{"err", err}, attrs...)...)
}
