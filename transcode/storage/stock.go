package storage

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/objects"
)

// stock is what S3 has of one broadcast.
type stock struct {
	// segments stand by sequence, those of all renditions together.
	segments []piece
	// inits are init sections.
	inits []objects.Object
	// bytes is the size of both.
	bytes int64
}

// piece is a segment of one rendition in S3.
type piece struct {
	sequence uint64
	key      string
	size     int64
}

// survey lists what a bucket has of a broadcast.
func survey(ctx context.Context, bucket *objects.Bucket, broadcast string) (*stock, error) {
	st := new(stock)
	err := bucket.Survey(ctx, objects.Prefix(broadcast), func(found []objects.Object) error {
		for _, o := range found {
			st.bytes += o.Size
			if sequence, ok := objects.Sequence(o.Key); ok {
				st.segments = append(st.segments, piece{sequence, o.Key, o.Size})
			} else {
				st.inits = append(st.inits, o)
			}
		}
		return nil
	})
	slices.SortFunc(st.segments, func(a, b piece) int { return cmp.Compare(a.sequence, b.sequence) })
	return st, err
}

// before is the size of the segments before a sequence.
func (st *stock) before(sequence uint64) (bytes int64) {
	for _, p := range st.segments {
		if p.sequence >= sequence {
			break
		}
		bytes += p.size
	}
	return bytes
}

// take takes out the oldest segments before a sequence until enough bytes are
// together, always those of all renditions, and returns them.
func (st *stock) take(before uint64, enough int64) (taken []piece, bytes int64) {
	n := 0
	for ; n < len(st.segments); n++ {
		p := st.segments[n]
		if p.sequence >= before || bytes >= enough && (n == 0 || p.sequence != st.segments[n-1].sequence) {
			break
		}
		bytes += p.size
	}
	taken, st.segments = st.segments[:n:n], st.segments[n:]
	st.bytes -= bytes
	return taken, bytes
}

// takeInits takes out the init sections that were stored before a time and that
// nobody uses.
func (st *stock) takeInits(stored time.Time, used map[string]bool) (taken []piece, bytes int64) {
	st.inits = slices.DeleteFunc(st.inits, func(o objects.Object) bool {
		if hash := initOf(o.Key); hash == "" || used[hash] || !o.Stored.Before(stored) {
			return false
		}
		taken = append(taken, piece{key: o.Key, size: o.Size})
		bytes += o.Size
		return true
	})
	st.bytes -= bytes
	return taken, bytes
}

// initOf returns the hash of the init section that a key names, or "".
func initOf(key string) string {
	name := key[strings.LastIndexByte(key, '/')+1:]
	hash, ok := strings.CutPrefix(strings.TrimSuffix(name, ".mp4"), "init-")
	if !ok {
		return ""
	}
	return hash
}

// holdingsKey is a hash in Redis: broadcast -> holding as JSON.
const holdingsKey = "millrace:holdings"

// holding is what S3 has of one broadcast, as its worker last saw it.
type holding struct {
	Channel string `json:"channel"`
	Bytes   int64  `json:"bytes"`
	// Seen is when, in Unix milliseconds.
	Seen int64 `json:"seen"`
}

// readHoldings returns what is known of all broadcasts.
func readHoldings(ctx context.Context, db redis.UniversalClient) (map[string]holding, error) {
	all, err := db.HGetAll(ctx, holdingsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read what is stored: %w", err)
	}
	held := make(map[string]holding, len(all))
	for broadcast, doc := range all {
		var h holding
		if err := json.Unmarshal([]byte(doc), &h); err != nil {
			return nil, fmt.Errorf("read what is stored of broadcast %s: %w", broadcast, err)
		}
		held[broadcast] = h
	}
	return held, nil
}

func writeHolding(ctx context.Context, db redis.UniversalClient, broadcast string, h holding) error {
	doc, err := json.Marshal(h)
	if err == nil {
		err = db.HSet(ctx, holdingsKey, broadcast, doc).Err()
	}
	if err != nil {
		return fmt.Errorf("note what is stored of broadcast %s: %w", broadcast, err)
	}
	return nil
}
