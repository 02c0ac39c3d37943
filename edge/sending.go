package edge

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

// errCutOff ends an answer whose room is needed.
var errCutOff = errors.New("the answer is cut off: its reader is slow, and its room is needed")

// freshFor is how long no answer is cut off: most readers have taken theirs by then, and who hasn't is slow. It is
// less than a request waits for room.
const freshFor = time.Second

// delivery is an object on its way to a viewer. It holds the object in the cache.
type delivery struct {
	caller *caller
	writer http.ResponseWriter
	began  time.Time

	// Guarded by the cache's mu: the object, the answers before and after this one that hold
	// it too, whether it was cut off, and the bytes that were fetched for it.
	entry      *cached
	prev, next *delivery
	cut        bool
	fetched    int64

	// mu guards the fields below: whether nothing is written any more, and whether it was ended.
	mu          sync.Mutex
	over, ended bool
}

// hold has an answer hold an entry, or names the bound that it has to wait for: too much is
// held for its caller already. It needs the cache's mu.
func (c *cache) hold(e *cached, a *delivery) (bound string) {
	if a == nil {
		return ""
	}
	if k := a.caller; k != nil && e.first == nil && k.held > 0 && k.held+e.cost() > c.share() {
		return "address_bytes"
	}
	c.link(e, a)
	return ""
}

// link has an answer hold an entry. Each entry is charged to the caller of the oldest
// answer: others have it for nothing, however many they are. It needs the cache's mu.
func (c *cache) link(e *cached, a *delivery) {
	if !e.busy() {
		c.sending += e.cost()
	} else if e.first == nil {
		c.leaving -= e.cost()
	}
	a.entry, a.prev = e, e.last
	if e.last != nil {
		e.last.next = a
	} else {
		e.first = a
		a.charge(e.cost())
	}
	e.last = a
}

// unlink is link's opposite, but the entry stays busy for an answer that is cut off. It
// needs the cache's mu.
func (c *cache) unlink(e *cached, a *delivery) {
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		e.first = a.next
		a.charge(-e.cost())
		if a.next != nil {
			a.next.charge(e.cost())
		}
	}
	if a.next != nil {
		a.next.prev = a.prev
	} else {
		e.last = a.prev
	}
	a.prev, a.next = nil, nil
}

// charge counts bytes as held for the answer's caller.
func (a *delivery) charge(n int64) {
	if a.caller != nil {
		a.caller.held += n
	}
}

// release lets go of what an answer holds, sent bytes of which were taken. Nothing may be
// written after it.
func (c *cache) release(a *delivery, sent int64) {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	e := a.entry
	if e == nil {
		return
	}
	a.entry = nil
	if a.fetched > 0 && a.caller != nil && 2*sent < a.fetched {
		// Half of it is enough: players break off when they change the quality.
		a.caller.wasted(a.fetched, 1-2*float64(sent)/float64(a.fetched))
	}
	if a.cut {
		e.cut--
	} else {
		c.unlink(e, a)
	}
	if e.busy() {
		if e.first == nil && !a.cut {
			c.leaving += e.cost()
		}
		return
	}
	c.sending -= e.cost()
	if a.cut {
		c.leaving -= e.cost()
	}
	c.wake()
}

// wake wakes one who waits for room, and shows what is held. It needs mu.
func (c *cache) wake() {
	c.gauge()
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

// cutOff chooses answers to end so that there is room for n more bytes: the oldest ones of
// whoever has most held for him, and of those again, until it is enough. The caller ends
// them. It needs mu.
func (c *cache) cutOff(n int64) []*delivery {
	var ended []*delivery
	for c.size+n-c.leaving > c.limit {
		a := c.greediest(time.Now())
		if a == nil {
			break
		}
		e := a.entry
		c.unlink(e, a)
		a.cut = true
		e.cut++
		if e.first == nil {
			c.leaving += e.cost()
		}
		c.metrics.rejected.WithLabelValues("slow_reader").Inc()
		ended = append(ended, a)
	}
	return ended
}

// greediest returns the oldest answer among those of the caller for whom most is held, nil
// where nothing is being sent but what is fresh. It needs mu.
func (c *cache) greediest(now time.Time) *delivery {
	var worst *delivery
	for el := c.recent.Front(); el != nil; el = el.Next() {
		a := el.Value.(*cached).first
		if a != nil && now.Sub(a.began) >= freshFor && (worst == nil || a.worse(worst)) {
			worst = a
		}
	}
	return worst
}

func (a *delivery) worse(b *delivery) bool {
	if x, y := a.bytesHeld(), b.bytesHeld(); x != y {
		return x > y
	}
	return a.began.Before(b.began)
}

// bytesHeld is what is held for the answer's caller. It needs the cache's mu.
func (a *delivery) bytesHeld() int64 {
	if a.caller == nil {
		return a.entry.cost()
	}
	return a.caller.held
}

// end breaks an answer off.
func (a *delivery) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if !a.over {
		// A writer without deadlines ends with its next piece.
		_ = http.NewResponseController(a.writer).SetWriteDeadline(time.Unix(1, 0))
	}
}

// wasEnded reports whether the answer was broken off.
func (a *delivery) wasEnded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended
}
