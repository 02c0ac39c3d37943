// Package credentials is the contract by which api tells ingest who may
// publish: the channels, with the hashes of their stream keys, in Redis. Ingest
// needs no SQL, and a Redis that leaks gives nobody a key.
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
	"net/url"
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
	// channelsHash maps name -> the same, and versionField, which is no name, -> the
	// catalogue's version.
	channelsHash = "millrace:channels"
	versionField = "*"
)

// BarredFor is for how long nobody may publish to a channel whose publisher was
// kicked: encoders that reconnect by themselves begin with pauses of a few
// seconds, and would have a broadcast again before anybody has looked.
const BarredFor = 30 * time.Second

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
	KeyHash string `json:"key"`
	// Version is the catalogue's that this is from.
	Version int64 `json:"version"`
	// Created tells the channel from an earlier one of the same name that was
	// deleted; in milliseconds since 1970.
	Created int64 `json:"created"`
	// Disabled: nobody may publish to it.
	Disabled bool `json:"disabled,omitempty"`
	// Kicked is the version with which its publisher was kicked: whoever was
	// admitted before it is meant. 0: nobody was.
	Kicked int64 `json:"kicked,omitempty"`
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

// Catalogue is all channels as they were at one moment.
type Catalogue struct {
	// Version is higher after each change to any channel; 0 is no version. By it
	// nobody takes an older state for the newer one: Redis may have gone back in
	// time, or been asked before the change.
	Version  int64
	Channels []Channel
}

// Lookup returns the channel whose stream key this is, or [ErrUnknownKey].
// Keys are found by their hash, so nothing can be learned from the time it takes.
func Lookup(ctx context.Context, db redis.UniversalClient, key StreamKey) (Channel, error) {
	doc, err := db.HGet(ctx, keysHash, key.Hash()).Bytes()
	if errors.Is(err, redis.Nil) {
		return Channel{}, ErrUnknownKey
	}
	var c Channel
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

// Read returns those of the channels that there are, with the catalogue's
// version. Version 0 means that Redis has no catalogue, as after it lost its
// memory: then nothing is known of any channel.
func Read(ctx context.Context, db redis.UniversalClient, names []string) (Catalogue, error) {
	values, err := db.HMGet(ctx, channelsHash, append([]string{versionField}, names...)...).Result()
	if err != nil {
		return Catalogue{}, fmt.Errorf("read %d channels: %w", len(names), err)
	}
	var c Catalogue
	version, ok := values[0].(string)
	if !ok {
		return c, nil
	}
	if c.Version, err = strconv.ParseInt(version, 10, 64); err != nil {
		return Catalogue{}, fmt.Errorf("read the catalogue's version: %w", err)
	}
	for i, v := range values[1:] {
		doc, ok := v.(string)
		if !ok {
			continue
		}
		var one Channel
		if err := json.Unmarshal([]byte(doc), &one); err != nil {
			return Catalogue{}, fmt.Errorf("read channel %s: %w", names[i], err)
		}
		c.Channels = append(c.Channels, one)
	}
	return c, nil
}

// Replace makes a catalogue the whole truth: keys of other channels, and earlier
// keys of these, stop working.
func Replace(ctx context.Context, db redis.UniversalClient, all Catalogue) error {
	_, err := db.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Del(ctx, keysHash, channelsHash, quotasHash)
		p.HSet(ctx, channelsHash, versionField, all.Version)
		for _, c := range all.Channels {
			c.Version = all.Version
			doc, err := json.Marshal(c)
			if err != nil {
				return err
			}
			p.HSet(ctx, keysHash, c.KeyHash, doc)
			if c.Quota != 0 {
				p.HSet(ctx, quotasHash, c.Name, c.Quota)
			}
			p.HSet(ctx, channelsHash, c.Name, doc)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("publish %d stream keys to Redis: %w", len(all.Channels), err)
	}
	return nil
}

// Exists reports whether there is a channel of this name.
func Exists(ctx context.Context, db redis.UniversalClient, channel string) (bool, error) {
	there, err := db.HExists(ctx, channelsHash, channel).Result()
	if err != nil {
		return false, fmt.Errorf("look up channel %s: %w", channel, err)
	}
	return there, nil
}

// Query says which channel and stream key are meant, for one ingest to tell another.
func (c Channel) Query() string {
	return url.Values{
		"key": {c.KeyHash}, "created": {strconv.FormatInt(c.Created, 10)}, "version": {strconv.FormatInt(c.Version, 10)},
	}.Encode()
}

// FromQuery reads what Query writes. Of what makes no sense the version is 0.
func FromQuery(q url.Values) Channel {
	created, err := strconv.ParseInt(q.Get("created"), 10, 64)
	if err != nil {
		return Channel{}
	}
	version, err := strconv.ParseInt(q.Get("version"), 10, 64)
	if err != nil || version < 0 {
		return Channel{}
	}
	return Channel{KeyHash: q.Get("key"), Created: created, Version: version}
}

// Bar lets nobody publish to a channel for [BarredFor].
func Bar(ctx context.Context, db redis.UniversalClient, channel string) error {
	if err := db.Set(ctx, barKey(channel), 1, BarredFor).Err(); err != nil {
		return fmt.Errorf("bar channel %s: %w", channel, err)
	}
	return nil
}

// Barred returns for how long nobody may publish to a channel yet; 0: anybody
// with its key may.
func Barred(ctx context.Context, db redis.UniversalClient, channel string) (time.Duration, error) {
	left, err := db.PTTL(ctx, barKey(channel)).Result()
	if err != nil {
		return 0, fmt.Errorf("look whether channel %s is barred: %w", channel, err)
	}
	return max(0, left), nil // it is negative where there is no bar
}

func barKey(channel string) string { return "millrace:channel:{" + channel + "}:barred" }
