package encode

import (
	"cmp"
	"runtime"
	"sync"
	"time"
)

// Need is what rungs take.
type Need struct {
	// Cores are those that are busy with them at real time.
	Cores float64
	// Memory is that of their processes, in bytes.
	Memory int64
}

// Budget is what the machine can encode: how much is reserved of its cores and its
// memory, and how far the estimate of costs is off on this machine. Safe for concurrent use.
type Budget struct {
	most Need

	mu       sync.Mutex
	reserved map[*encoding]Need
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
	// memoryShare is what of the machine's memory encoding may take: the rest is for logs,
	// caches and the system.
	memoryShare = 0.75
	// leastMemory is what a further broadcast needs at least, in bytes.
	leastMemory = 128 << 20
)

// NewBudget returns one of some cores, 0: of all that this process may use, and of some
// memory, in bytes, 0: three quarters of what there is.
func NewBudget(cores float64, memory int64) *Budget {
	if memory == 0 {
		memory = int64(memoryShare * float64(machineMemory()))
	}
	return &Budget{most: Need{cmp.Or(cores, float64(runtime.GOMAXPROCS(0))), memory}, reserved: map[*encoding]Need{}, ratio: 1}
}

// free is what others than e don't have. The caller holds mu.
func (b *Budget) free(e *encoding) Need {
	free := b.most
	for other, n := range b.reserved {
		if other != e {
			free.Cores -= n.Cores
			free.Memory -= n.Memory
		}
	}
	return free
}

// Room returns the cores that are free for another broadcast's rungs; none where there is
// no memory for them.
func (b *Budget) Room() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	free := b.free(nil)
	if free.Memory < leastMemory {
		return 0
	}
	return max(0, free.Cores)
}

// MemoryRoom returns the bytes of memory that are free for another broadcast's rungs.
func (b *Budget) MemoryRoom() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return float64(max(0, b.free(nil).Memory))
}

// Scale is what an estimate is multiplied by to get what this machine needs.
func (b *Budget) Scale() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ratio
}

// reserve notes what a worker's rungs need, in place of what it needed before.
// It reports whether there is room for it; without, nothing changes.
func (b *Budget) reserve(e *encoding, n Need) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fit(e, n)
}

// force is reserve whether or not there is room.
func (b *Budget) force(e *encoding, n Need) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserved[e] = n
}

// forceCores is force if there is memory for it, and reports whether there is: what lacks
// cores is late, what lacks memory harms others.
func (b *Budget) forceCores(e *encoding, n Need) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n.Memory > b.free(e).Memory {
		return false
	}
	b.reserved[e] = n
	return true
}

func (b *Budget) fit(e *encoding, n Need) bool {
	free := b.free(e)
	if n.Cores > free.Cores || n.Memory > 0 && n.Memory > free.Memory {
		return false
	}
	b.reserved[e] = n
	return true
}

// add is reserve for rungs that were shed: at most one broadcast's at a time, and
// none for calmTime after any rung of this machine was late.
func (b *Budget) add(e *encoding, n Need, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.settled) || !b.fit(e, n) {
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
