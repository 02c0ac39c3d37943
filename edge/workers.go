package edge

import (
	"maps"
	"slices"
	"sync"
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/jobs"
)

const (
	// maxTold bounds the pieces of media of which a worker is remembered that told
	// of them.
	maxTold = 4096
	// slowFor is how long a worker that let a fetch wait is asked last.
	slowFor = 2 * time.Second
	// maxLeft bounds the former workers that are remembered.
	maxLeft = 8
)

// worker has a slot.
type worker struct {
	address string // base URL, verified
	epoch   jobs.Epoch
}

// workers says whom to ask for media of one broadcast. It is safe for
// concurrent use.
type workers struct {
	// mu guards the fields below.
	mu    sync.Mutex
	slots map[int]worker
	// former are workers that had slots before and are still listened to.
	former []string
	// told is, by piece, the worker that told of it last; order holds its keys,
	// the oldest first.
	told  map[piece]string
	order []piece
	// slow is, by worker, when it let a fetch wait.
	slow map[string]time.Time
}

// piece names a part, or with playlist.NoPart a segment.
type piece struct {
	rendition string
	sequence  uint64
	part      int
}

func newWorkers() workers {
	return workers{told: make(map[piece]string), slow: make(map[string]time.Time)}
}

// set takes the slots and reports whether they have changed.
func (w *workers) set(slots map[int]worker) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if maps.Equal(w.slots, slots) {
		return false
	}
	for _, s := range w.slots {
		if !slices.Contains(w.former, s.address) {
			w.former = append(w.former, s.address)
		}
	}
	w.former = w.former[max(0, len(w.former)-maxLeft):]
	w.slots = slots
	return true
}

// left forgets a worker that had a slot.
func (w *workers) left(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.former = slices.DeleteFunc(w.former, func(a string) bool { return a == address })
}

// slotted returns the workers that have slots, with their newest epoch.
func (w *workers) slotted() map[string]jobs.Epoch {
	w.mu.Lock()
	defer w.mu.Unlock()
	epochs := make(map[string]jobs.Epoch, len(w.slots))
	for _, s := range w.slots {
		if old, known := epochs[s.address]; !known || old.Less(s.epoch) {
			epochs[s.address] = s.epoch
		}
	}
	return epochs
}

// note remembers the worker that told of media.
func (w *workers) note(entries []index.Entry, address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		p := piece{e.Rendition, e.Sequence, e.Part}
		switch e.Type {
		case index.TypePart:
		case index.TypeSegment:
			p.part = playlist.NoPart
		default:
			continue
		}
		if _, known := w.told[p]; !known {
			if len(w.order) >= maxTold {
				delete(w.told, w.order[0])
				w.order = w.order[1:]
			}
			w.order = append(w.order, p)
		}
		w.told[p] = address
	}
}

// stalled notes that a worker let a fetch wait.
func (w *workers) stalled(address string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a, at := range w.slow {
		if now.Sub(at) >= slowFor {
			delete(w.slow, a)
		}
	}
	w.slow[address] = now
}

// of returns the base URLs of the workers in the order in which to ask them for
// a piece: first the worker that told of it, then those in slots, the newest
// grant first, then the former ones; slow workers come last.
func (w *workers) of(p piece, now time.Time) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := slices.SortedFunc(maps.Values(w.slots), func(x, y worker) int {
		if y.epoch.Less(x.epoch) {
			return -1
		}
		return 1
	})
	addresses := make([]string, 0, len(held)+len(w.former))
	for _, s := range held {
		if !slices.Contains(addresses, s.address) {
			addresses = append(addresses, s.address)
		}
	}
	for _, a := range w.former {
		if !slices.Contains(addresses, a) {
			addresses = append(addresses, a)
		}
	}
	rank := func(a string) int {
		n := 1
		if w.told[p] == a {
			n = 0
		}
		if at, ok := w.slow[a]; ok && now.Sub(at) < slowFor {
			n += 2
		}
		return n
	}
	slices.SortStableFunc(addresses, func(x, y string) int { return rank(x) - rank(y) })
	return addresses
}
