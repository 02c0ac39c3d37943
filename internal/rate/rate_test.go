package rate

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	var b Bucket
	limit := Limit{PerSecond: 2, Size: 10}
	now := time.Unix(1000, 0)
	for i := range 10 {
		if !b.Take(1, limit, now) {
			t.Errorf("%d don't fit into 10", i+1)
		}
	}
	if b.Take(1, limit, now) || !b.Take(2, limit, now.Add(time.Second)) || b.Take(1, limit, now.Add(time.Second)) {
		t.Error("after a second there must be room for 2, and no more")
	}
	if b.Empty(limit, now.Add(5*time.Second)) || !b.Empty(limit, now.Add(6*time.Second)) {
		t.Error("10 drain in 5 s")
	}
	b.Return(10)
	if !b.Take(10, limit, now.Add(time.Second)) || b.Take(1, limit, now.Add(time.Second)) {
		t.Error("what was taken out again has room once more")
	}
	if now = now.Add(time.Hour); !b.Add(11, limit, now) || b.Take(1, limit, now) {
		t.Error("what was added without asking runs over")
	}
}
