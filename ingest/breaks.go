package ingest

import (
	"crypto/sha256"
	"sync"
	"time"

	"millrace/ingest/front"
	"millrace/internal/media"
	"millrace/internal/rate"
)

const (
	// A channel may begin so many segments out of turn at once, and one each breakEvery,
	// which is as often as segments begin anyway. Who reconnects 10 times a minute on a
	// bad line is far below that.
	maxBreaks  = 20
	breakEvery = 2 * time.Second
	// maxSettings bounds, for each broadcast, the configurations that differ, in bytes,
	// with settingsHead for each: some hundred ordinary ones. Workers store an init
	// section of each, and edges keep it.
	maxSettings  = 1 << 20
	settingsHead = 1 << 10
	// sweptBreaks is how many channels are remembered before those are forgotten of
	// which nothing is left to remember.
	sweptBreaks = 1024
)

// breaksLimit bounds what begins a segment out of turn.
var breaksLimit = rate.Limit{PerSecond: 1 / breakEvery.Seconds(), Size: maxBreaks}

var (
	refusalReconnects = &front.Refusal{
		Kind: front.Failed, Reason: front.Breaks,
		Text: "This channel was connected to again and again: wait 10 seconds and connect once more; if it goes on, look at the network, and restart the encoder.",
	}
	refusalBreaks = &front.Refusal{
		Kind: front.Failed, Reason: front.Breaks,
		Text: "Settings or timestamps change again and again: restart the encoder.",
	}
	refusalSettings = &front.Refusal{
		Kind: front.Failed, Reason: front.Settings,
		Text: "This broadcast has seen too many different settings: keep the encoder's settings as they are, and begin another broadcast when this one has ended.",
	}
)

// breaks counts, for each channel, what begins a segment out of turn: publishers that
// come, other settings, timestamps that jump. It goes across connections and broadcasts.
// Safe for concurrent use; the zero value is ready.
type breaks struct {
	mu       sync.Mutex
	channels map[string]*rate.Bucket
}

// take counts one more, and reports whether the channel may have it.
func (b *breaks) take(channel string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket := b.channels[channel]
	if bucket == nil {
		if len(b.channels) >= sweptBreaks {
			for name, old := range b.channels {
				if old.Empty(breaksLimit, now) {
					delete(b.channels, name)
				}
			}
		}
		if b.channels == nil {
			b.channels = map[string]*rate.Bucket{}
		}
		bucket = &rate.Bucket{}
		b.channels[channel] = bucket
	}
	return bucket.Take(1, breaksLimit, now)
}

// settings are the configurations that a broadcast has seen. The zero value has seen none.
type settings struct {
	seen  map[[sha256.Size]byte]struct{}
	bytes int
}

// add notes a configuration, and reports whether there is room for it.
func (s *settings) add(c *media.Codec) bool {
	key := sha256.Sum256(append([]byte(c.Format), c.Record...))
	if _, known := s.seen[key]; known {
		return true
	}
	size := settingsHead + len(c.Record)
	if s.bytes+size > maxSettings {
		return false
	}
	if s.seen == nil {
		s.seen = map[[sha256.Size]byte]struct{}{}
	}
	s.seen[key], s.bytes = struct{}{}, s.bytes+size
	return true
}
