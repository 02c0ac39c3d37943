package private

import (
	"encoding/binary"
	"testing"
	"time"

	"millrace/internal/seal"
)

// A request is taken once for as long as its time would let it be taken, and
// forgotten after that.
func TestNonces(t *testing.T) {
	n := nonces{limit: maxNonces}
	now := time.UnixMilli(1_795_465_319_064)
	for _, ahead := range []time.Duration{0, -MaxSkew, MaxSkew} {
		s := seal.Signed{At: now.Add(ahead), Nonce: seal.Nonce{1}}
		if why := n.take(s, now); why != "" {
			t.Errorf("%s ahead: %s", ahead, why)
		}
		for later := time.Duration(0); later <= MaxSkew+ahead; later += time.Second {
			if why := n.take(s, now.Add(later)); why != replayed {
				t.Fatalf("%s ahead, %s later it is taken again (%q)", ahead, later, why)
			}
		}
	}
	n.take(seal.Signed{At: now.Add(5 * MaxSkew), Nonce: seal.Nonce{2}}, now.Add(5*MaxSkew))
	if n.count != 1 || len(n.taken) != 1 {
		t.Errorf("%d nonces are remembered in %d turns, want only the last one", n.count, len(n.taken))
	}
}

// The memory has a bound: what comes above it is refused, until there is room.
func TestNoncesAreBounded(t *testing.T) {
	n := nonces{limit: 100}
	now := time.UnixMilli(1_795_465_319_064)
	at := func(i uint64, now time.Time) seal.Signed {
		s := seal.Signed{At: now}
		binary.BigEndian.PutUint64(s.Nonce[:], i)
		return s
	}
	for i := range uint64(100) {
		if why := n.take(at(i, now), now); why != "" {
			t.Fatalf("number %d: %s", i, why)
		}
	}
	if why := n.take(at(100, now), now); why != crowded {
		t.Errorf("one more gave %q", why)
	}
	later := now.Add(3 * MaxSkew)
	if why := n.take(at(100, later), later); why != "" {
		t.Errorf("later: %s", why)
	}
}
