package storage

import (
	"fmt"
	"sync"
	"syscall"
)

// The floor where none is configured: disks below 40 GB keep a twentieth free, larger ones 2 GB.
const (
	defaultFloor      = 2e9
	defaultFloorShare = 20
)

// DefaultFloor is how much of a disk stays free where nothing else is configured:
// a twentieth, 2 GB at most. What else lies on it (Redis, the database, the system)
// goes on with that; a laptop with 8 GB free has 6 GB for media.
func DefaultFloor(total int64) int64 { return min(total/defaultFloorShare, defaultFloor) }

// diskSpace tells how many bytes are free, for this user, and how many there are on
// the disk that holds a directory.
func diskSpace(dir string) (free, total int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// room is what is free on the disk that holds a directory. It is safe for
// concurrent use.
type room struct {
	dir string
	// space tells what is free, floor what has to stay so; both in bytes.
	space func(dir string) (free, total int64, err error)
	floor func(total int64) int64

	mu sync.Mutex // guards what follows
	// known is set once the disk was looked at.
	known       bool
	free, least int64
	// exhausted is set while less than the floor is free, and nothing is left to delete.
	exhausted bool
}

// look finds out what is free, and how much is to be at least.
func (r *room) look() (free, least int64, err error) {
	free, total, err := r.space(r.dir)
	if err != nil {
		return 0, 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.free, r.least = true, free, r.floor(total)
	if free >= r.least {
		r.exhausted = false
	}
	return free, r.least, nil
}

// wanting is how many bytes are to be deleted: none while the floor is free, else
// a tenth of it more than what lacks, so that it isn't reached again at once.
func (r *room) wanting() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.free >= r.least {
		return 0
	}
	return r.least + r.least/10 - r.free
}

// ample reports whether so much is free that more may be kept.
func (r *room) ample() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.free >= r.least+r.least/4
}

// exhaust notes that nothing is left to delete, if less than the floor is free.
func (r *room) exhaust() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exhausted = r.free < r.least
}

// short reports whether nothing more may be written: when nothing is left to
// delete, and when deleting doesn't keep up.
func (r *room) short() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known && (r.exhausted || r.free < r.least/2)
}

// check says in words what is wrong, nil when nothing is.
func (r *room) check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.known || r.free >= r.least:
		return nil
	case r.exhausted:
		return fmt.Errorf("%d MB are free on the disk of %s, --min-free keeps %d MB, and nothing is left to delete: new media isn't stored; make room",
			r.free/1e6, r.dir, r.least/1e6)
	}
	return fmt.Errorf("%d MB are free on the disk of %s, --min-free keeps %d MB: the oldest media is being deleted", r.free/1e6, r.dir, r.least/1e6)
}
