package ingest

import "time"

// bucket bounds a rate: it takes what is put in, and drains evenly. Not safe for concurrent use.
type bucket struct {
	level float64
	at    time.Time // when level was true
}

// put puts n in, and reports whether the bucket runs over: then, with refuse set, n stays outside.
// It drains at rate a second and holds size.
func (b *bucket) put(n, rate, size float64, refuse bool, now time.Time) (over bool) {
	b.level = max(0, b.level-rate*now.Sub(b.at).Seconds())
	b.at = now
	over = b.level+n > size
	if !over || !refuse {
		b.level += n
	}
	return over
}

// empty reports whether nothing would be left in the bucket by now.
func (b *bucket) empty(rate float64, now time.Time) bool {
	return b.level <= rate*now.Sub(b.at).Seconds()
}
