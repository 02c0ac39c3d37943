// Package rate bounds how often, or how much of, something may happen.
package rate

import "time"

// Bucket bounds a rate: it takes what is put in, and drains evenly. The zero
// value is empty. It isn't safe for concurrent use.
type Bucket struct {
	level float64
	at    time.Time // when level was true
}

// Limit is a bucket's measure.
type Limit struct {
	// PerSecond is how much drains in a second.
	PerSecond float64
	// Size is how much the bucket holds.
	Size float64
}

// Take puts n into the bucket if it has room for that, and reports whether it had.
func (b *Bucket) Take(n float64, l Limit, now time.Time) bool {
	b.drain(l, now)
	if b.level+n > l.Size {
		return false
	}
	b.level += n
	return true
}

// Return takes n out again that was put in for nothing.
func (b *Bucket) Return(n float64) { b.level = max(0, b.level-n) }

// Add puts n into the bucket, which has happened already, and reports whether
// the bucket runs over.
func (b *Bucket) Add(n float64, l Limit, now time.Time) (over bool) {
	b.drain(l, now)
	b.level += n
	return b.level > l.Size
}

// Empty reports whether nothing is left in the bucket by now.
func (b *Bucket) Empty(l Limit, now time.Time) bool {
	return b.level <= l.PerSecond*now.Sub(b.at).Seconds()
}

func (b *Bucket) drain(l Limit, now time.Time) {
	b.level = max(0, b.level-l.PerSecond*now.Sub(b.at).Seconds())
	b.at = now
}
