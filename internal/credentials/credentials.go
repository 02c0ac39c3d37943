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
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// keysHash maps hash of stream key -> Channel as JSON.
const keysHash = "millrace:stream-keys"

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

// Replace makes channels the whole truth: keys of other channels, and earlier
// keys of these, stop working.
func Replace(ctx context.Context, db redis.UniversalClient, channels []Channel) error {
	_, err := db.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Del(ctx, keysHash)
		for _, c := range channels {
			doc, err := json.Marshal(c)
			if err != nil {
				return err
			}
			p.HSet(ctx, keysHash, c.KeyHash, doc)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("publish %d stream keys to Redis: %w", len(channels), err)
	}
	return nil
}
