// Package credentials is the contract by which api tells ingest who may
// publish: hashes of stream keys in Redis. Ingest needs no SQL, and a Redis
// that leaks gives nobody a key.
package credentials

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// keysHash maps hash of stream key -> Channel as JSON.
	keysHash = "millrace:stream-keys"
	// quotasHash maps channel -> Quota, of those that have one of their own.
	quotasHash = "millrace:quotas"
	// namesSet has the names of all channels.
	namesSet = "millrace:channels"
)

// ErrUnknownKey means that no channel has this stream key.
var ErrUnknownKey = errors.New("unknown stream key")

// StreamKey is a channel's publishing secret. It prints as "[redacted]".
type StreamKey string

// NewStreamKey makes a key with 160 random bits.
func NewStreamKey() StreamKey {
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return StreamKey("live_" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])))
}

// Typed returns the key that somebody typed or pasted: no key has capital letters or white space.
func Typed(text string) StreamKey {
	return StreamKey(strings.ToLower(strings.Join(strings.Fields(text), "")))
}

// Hash is what may be stored: SHA-256 is enough for a secret of 160 random bits.
func (k StreamKey) Hash() string {
	sum := sha256.Sum256([]byte(k))
	return hex.EncodeToString(sum[:])
}

// String hides the key.
func (StreamKey) String() string { return "[redacted]" }

// GoString hides the key.
func (StreamKey) GoString() string { return "[redacted]" }

// LogValue hides the key.
func (StreamKey) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// Reveal returns the key itself, for the one moment when its owner is shown it.
func (k StreamKey) Reveal() string { return string(k) }

// Channel is a channel with the hash of its stream key, and what ingest must
// know to carry its broadcasts.
type Channel struct {
	Name    string `json:"name"`
	KeyHash string `json:"-"`
	// Grace is how long a broadcast waits for its publisher; 0: what the ingest
	// is configured with.
	Grace time.Duration `json:"grace,omitempty"`
	// Redundancy is how many workers make each broadcast at a time, 1 or 2; 0:
	// what the ingest is configured with.
	Redundancy int `json:"redundancy,omitempty"`
	// Quota bounds what is stored of the channel, in bytes; 0: what transcode is
	// configured with, below 0: nothing bounds it. Lookup doesn't tell it.
	Quota int64 `json:"-"`
}

// Lookup returns the channel whose stream key this is, or [ErrUnknownKey].
// Keys are found by their hash, so nothing can be learned from the time it takes.
func Lookup(ctx context.Context, db redis.UniversalClient, key StreamKey) (Channel, error) {
	hash := key.Hash()
	doc, err := db.HGet(ctx, keysHash, hash).Bytes()
	if errors.Is(err, redis.Nil) {
		return Channel{}, ErrUnknownKey
	}
	c := Channel{KeyHash: hash}
	if err == nil {
		err = json.Unmarshal(doc, &c)
	}
	if err != nil {
		return Channel{}, fmt.Errorf("look up stream key: %w", err)
	}
	return c, nil
}

// Quotas returns what is to be stored at most, in bytes, of each channel that has
// a bound of its own; below 0: nothing bounds it.
func Quotas(ctx context.Context, db redis.UniversalClient) (map[string]int64, error) {
	all, err := db.HGetAll(ctx, quotasHash).Result()
	if err != nil {
		return nil, fmt.Errorf("read quotas: %w", err)
	}
	quotas := make(map[string]int64, len(all))
	for channel, text := range all {
		if quotas[channel], err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, fmt.Errorf("read quota of channel %s: %w", channel, err)
		}
	}
	return quotas, nil
}

// Replace makes channels the whole truth: keys of other channels, and earlier
// keys of these, stop working.
func Replace(ctx context.Context, db redis.UniversalClient, channels []Channel) error {
	_, err := db.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Del(ctx, keysHash, quotasHash, namesSet)
		for _, c := range channels {
			doc, err := json.Marshal(c)
			if err != nil {
				return err
			}
			p.HSet(ctx, keysHash, c.KeyHash, doc)
			p.SAdd(ctx, namesSet, c.Name)
			if c.Quota != 0 {
				p.HSet(ctx, quotasHash, c.Name, c.Quota)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("publish %d stream keys to Redis: %w", len(channels), err)
	}
	return nil
}

// Exists reports whether there is a channel of this name.
func Exists(ctx context.Context, db redis.UniversalClient, channel string) (bool, error) {
	there, err := db.SIsMember(ctx, namesSet, channel).Result()
	if err != nil {
		return false, fmt.Errorf("look up channel %s: %w", channel, err)
	}
	return there, nil
}
