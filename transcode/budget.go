package transcode

import (
	"runtime"
	"sync"
	"time"
)

// budget is what the machine's cores can encode: how much is reserved, and how
// far the estimate of costs is off on this machine. Safe for concurrent use.
type budget struct {
	cores float64

	mu       sync.Mutex
	reserved map[*worker]float64
	ratio    float64 // measured over estimated, smoothed
}

// smoothing is the weight of the newest measurement.
const smoothing = 0.1

func newBudget() *budget {
	return &budget{cores: float64(runtime.GOMAXPROCS(0)), reserved: map[*worker]float64{}, ratio: 1}
}

// room returns the cores that are free for another broadcast's rungs.
func (b *budget) room() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	free := b.cores
	for _, cost := range b.reserved {
		free -= cost
	}
	return max(0, free)
}

// scale is what an estimate is multiplied by to get what this machine needs.
func (b *budget) scale() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ratio
}

// reserve notes what a worker's rungs need, in place of what it needed before.
// It reports whether there is room for it; without, nothing changes.
func (b *budget) reserve(w *worker, cost float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	free := b.cores
	for other, c := range b.reserved {
		if other != w {
			free -= c
		}
	}
	if cost > free {
		return false
	}
	b.reserved[w] = cost
	return true
}

// release gives back what a worker had.
func (b *budget) release(w *worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.reserved, w)
}

// spent notes what a process used for work estimated at some core-seconds.
func (b *budget) spent(cpu time.Duration, estimated float64) {
	if estimated <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ratio += smoothing * (min(4, max(0.25, cpu.Seconds()/estimated)) - b.ratio)
}
