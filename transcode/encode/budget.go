package encode

import (
	"cmp"
	"runtime"
	"sync"
	"time"
)

// Budget is what the machine's cores can encode: how much is reserved, and how
// far the estimate of costs is off on this machine. Safe for concurrent use.
type Budget struct {
	cores float64

	mu       sync.Mutex
	reserved map[*encoding]float64
	ratio    float64   // measured over estimated, smoothed
	settled  time.Time // before, nothing is added
}

const (
	// smoothing is the weight of the newest measurement.
	smoothing = 0.1
	// calmTime is how long nothing is added on a machine on which a rung was late:
	// what one broadcast sheds for that isn't room for another one.
	calmTime = 30 * time.Second
	// addPause is the time between two additions: whether there is room for the
	// first one shows after a segment.
	addPause = 4 * time.Second
)

// NewBudget returns one of some cores; 0: of all that this process may use.
func NewBudget(cores float64) *Budget {
	return &Budget{cores: cmp.Or(cores, float64(runtime.GOMAXPROCS(0))), reserved: map[*encoding]float64{}, ratio: 1}
}

// Room returns the cores that are free for another broadcast's rungs.
func (b *Budget) Room() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	free := b.cores
	for _, cost := range b.reserved {
		free -= cost
	}
	return max(0, free)
}

// Scale is what an estimate is multiplied by to get what this machine needs.
func (b *Budget) Scale() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ratio
}

// reserve notes what a worker's rungs need, in place of what it needed before.
// It reports whether there is room for it; without, nothing changes.
func (b *Budget) reserve(e *encoding, cost float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fit(e, cost)
}

// force is reserve whether or not there is room.
func (b *Budget) force(e *encoding, cost float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserved[e] = cost
}

func (b *Budget) fit(e *encoding, cost float64) bool {
	free := b.cores
	for other, c := range b.reserved {
		if other != e {
			free -= c
		}
	}
	if cost > free {
		return false
	}
	b.reserved[e] = cost
	return true
}

// add is reserve for rungs that were shed: at most one broadcast's at a time, and
// none for calmTime after any rung of this machine was late.
func (b *Budget) add(e *encoding, cost float64, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.settled) || !b.fit(e, cost) {
		return false
	}
	b.settled = now.Add(addPause)
	return true
}

// fellBehind notes that a rung of this machine was late.
func (b *Budget) fellBehind(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settled = now.Add(calmTime)
}

// Release gives back what a worker had.
func (b *Budget) Release(w *Worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.reserved, w.encoding)
}

// spent notes what a process used for work estimated at some core-seconds.
func (b *Budget) spent(cpu time.Duration, estimated float64) {
	if estimated <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ratio += smoothing * (min(4, max(0.25, cpu.Seconds()/estimated)) - b.ratio)
}
