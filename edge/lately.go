package edge

import "time"

// lately remembers up to a number of things for a moment each; where there are
// more, the oldest is forgotten. It isn't safe for concurrent use.
type lately[K comparable, V any] struct {
	known map[K]passing[V]
	// order holds the keys in a ring that next goes round.
	order []K
	next  int
}

type passing[V any] struct {
	value V
	until time.Time
	// at is the key's place in the ring.
	at int
}

// newLately returns one with room for size things.
func newLately[K comparable, V any](size int) *lately[K, V] {
	return &lately[K, V]{known: make(map[K]passing[V]), order: make([]K, size)}
}

// put remembers a value until then.
func (l *lately[K, V]) put(key K, value V, until time.Time) {
	if old := l.order[l.next]; len(l.known) > 0 {
		if p, ok := l.known[old]; ok && p.at == l.next {
			delete(l.known, old)
		}
	}
	l.order[l.next] = key
	l.known[key] = passing[V]{value, until, l.next}
	l.next = (l.next + 1) % len(l.order)
}

// get returns what is remembered of key.
func (l *lately[K, V]) get(key K, now time.Time) (value V, ok bool) {
	p, ok := l.known[key]
	if !ok || now.After(p.until) {
		return value, false
	}
	return p.value, true
}
