package private

import (
	"sync"
	"time"

	"millrace/internal/seal"
)

const (
	// MaxSkew is how far a request's time may be from this machine's clock.
	MaxSkew = 30 * time.Second
	// maxNonces bounds the nonces that are remembered, some 30 MB. They are kept for
	// a minute: that is 17,000 requests a second, more media than a network carries.
	maxNonces = 1 << 20
)

// nonces remembers which requests were taken, for as long as their time would let
// them be taken again. It is safe for concurrent use.
type nonces struct {
	limit int

	mu sync.Mutex // guards what follows
	// taken holds the nonces by their request's time, divided by MaxSkew.
	taken map[int64]map[seal.Nonce]struct{}
	count int
}

// take notes a request whose time is within MaxSkew of now. It returns why the
// request must be refused, or "".
func (n *nonces) take(s seal.Signed, now time.Time) reason {
	turn := func(t time.Time) int64 { return t.UnixMilli() / MaxSkew.Milliseconds() }
	n.mu.Lock()
	defer n.mu.Unlock()
	oldest := turn(now.Add(-MaxSkew))
	for at, nonces := range n.taken {
		if at < oldest {
			n.count -= len(nonces)
			delete(n.taken, at)
		}
	}
	at := turn(s.At)
	if n.taken[at] == nil {
		if n.taken == nil {
			n.taken = map[int64]map[seal.Nonce]struct{}{}
		}
		n.taken[at] = map[seal.Nonce]struct{}{}
	}
	if _, known := n.taken[at][s.Nonce]; known {
		return replayed
	}
	if n.count >= n.limit {
		return crowded
	}
	n.taken[at][s.Nonce] = struct{}{}
	n.count++
	return ""
}
