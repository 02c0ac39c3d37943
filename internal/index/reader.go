package index

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// headEntries is how many of the oldest entries Head looks at: the settings
	// and init sections stand there.
	headEntries = 32
	// pageEntries is how many entries are read at once by who needs only some.
	pageEntries = 1000
)

// Reader reads the index of one broadcast from Redis. It is for one goroutine at
// a time.
type Reader struct {
	DB        redis.UniversalClient
	Broadcast string
	// Malformed is told of each entry that can't be decoded, by its id in the
	// stream; it is left out. nil: nobody is told.
	Malformed func(id string, err error)

	last string // the id of the newest entry read
}

// Head returns what the oldest entries say of the broadcast as a whole: its
// settings, and init sections. A stream that was trimmed may begin without them;
// they are repeated further on.
func (r *Reader) Head(ctx context.Context) ([]Entry, error) {
	page, err := r.DB.XRangeN(ctx, StreamKey(r.Broadcast), "-", "+", headEntries).Result()
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return slices.DeleteFunc(r.decode(page), func(e Entry) bool {
		return e.Type != TypeBroadcast && e.Type != TypeInit
	}), nil
}

// Tail returns the newest entries, the oldest of them first: those that were
// written less than back before the newest one, and some more; with back 0 all.
// Of more than most entries it returns the newest ones, or some more.
func (r *Reader) Tail(ctx context.Context, back time.Duration, most int) ([]Entry, error) {
	size := pageEntries
	if back == 0 {
		size = most
	}
	var tail []redis.XMessage
	for until := "+"; len(tail) < most; {
		page, err := r.DB.XRevRangeN(ctx, StreamKey(r.Broadcast), until, "-", int64(size)).Result()
		if err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		tail = append(tail, page...)
		if len(page) < size {
			break
		}
		oldest := page[len(page)-1].ID
		if back > 0 && written(tail[0].ID)-written(oldest) > back {
			break
		}
		until = "(" + oldest
	}
	if len(tail) > 0 {
		r.last = tail[0].ID
	}
	slices.Reverse(tail)
	return r.decode(tail), nil
}

// Next returns what was written after all that Tail and Next have returned, up to
// a bound; nothing when there is nothing.
func (r *Reader) Next(ctx context.Context) ([]Entry, error) {
	from := "-"
	if r.last != "" {
		from = "(" + r.last
	}
	page, err := r.DB.XRangeN(ctx, StreamKey(r.Broadcast), from, "+", pageEntries).Result()
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	if len(page) > 0 {
		r.last = page[len(page)-1].ID
	}
	return r.decode(page), nil
}

func (r *Reader) decode(messages []redis.XMessage) []Entry {
	entries := make([]Entry, 0, len(messages))
	for _, m := range messages {
		doc, _ := m.Values[Field].(string)
		e, err := Parse([]byte(doc))
		if err != nil {
			if r.Malformed != nil {
				r.Malformed(m.ID, err)
			}
			continue
		}
		entries = append(entries, e)
	}
	return entries
}

// written returns when an entry was written, by Redis' clock since 1970; 0 for an
// id that isn't one.
func written(id string) time.Duration {
	ms, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}
