package room

import (
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

// leanLog is how many entries a log keeps at least, even if all logs together hold too much.
const leanLog = 16

// log is the newest entries of a room with the frames made of them. Entries are numbered from 0 on
// in the order in which they came; the number of the next one is the head.
type log struct {
	maxEntries int
	maxBytes   int
	compare    func(a, b string) int
	total      *budget // of all logs of the hub

	head atomic.Uint64

	mu     sync.Mutex
	base   string // the id before the oldest entry's
	lines  []line
	bytes  int
	recent [4]batch // the batches made last, for the next connection at the same place
	turn   int
}

// line is an entry with what was made of it.
type line struct {
	Entry
	frames [maxFormats][]byte
	made   uint32 // bit i: frames[i] is made
	bytes  int
}

// batch is the frames of consecutive entries in one format, as one piece.
type batch struct {
	format   *Format
	from, to uint64
	bytes    []byte
	count    int      // entries that have frames
	ends     []int    // where each entry's frames end in bytes
	origins  []uint64 // of entries that came from a connection; only if format.SkipOwn
}

// append puts an entry behind all others.
func (l *log) append(e Entry) {
	if e.Size == 0 {
		e.Size = 512
	}
	l.mu.Lock()
	l.lines = append(l.lines, line{Entry: e})
	l.grow(&l.lines[len(l.lines)-1], e.Size)
	l.head.Add(1)
	l.trim()
	l.mu.Unlock()
}

// reset forgets all entries, and one that nobody got: what comes next follows the entry with the id base.
func (l *log) reset(base string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.lines) > 0 {
		l.drop()
	}
	l.base = base
	l.head.Add(1) // everybody is behind by what was lost
	l.recent = [len(l.recent)]batch{}
}

func (l *log) grow(n *line, bytes int) {
	n.bytes += bytes
	l.bytes += bytes
	l.total.add(bytes)
}

// trim keeps the log within its bounds, and the logs of the hub within theirs.
func (l *log) trim() {
	for len(l.lines) > l.maxEntries || len(l.lines) > 1 && l.bytes > l.maxBytes || len(l.lines) > leanLog && l.total.over() {
		l.drop()
	}
}

func (l *log) drop() {
	l.base = l.lines[0].ID
	l.bytes -= l.lines[0].bytes
	l.total.add(-l.lines[0].bytes)
	l.lines[0] = line{}
	l.lines = l.lines[1:]
}

// first is the number of the oldest entry. The caller holds mu.
func (l *log) first() uint64 { return l.head.Load() - uint64(len(l.lines)) }

// end is the newest entry's id, or that before the log's beginning if it is empty, and the number of the next entry.
func (l *log) end() (newest string, head uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		return l.base, l.head.Load()
	}
	return l.lines[len(l.lines)-1].ID, l.head.Load()
}

// find returns the number of the entry from which on a reader reads.
func (l *log) find(from From) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head := l.head.Load()
	n := len(l.lines)
	switch {
	case from.after != "":
		if l.compare(from.after, l.base) < 0 {
			return 0, ErrGone
		}
		i := sort.Search(n, func(i int) bool { return l.compare(l.lines[i].ID, from.after) > 0 })
		return head - uint64(n-i), nil
	default:
		return head - uint64(min(from.last, n)), nil
	}
}

// take returns the frames of the entries from a number on, as many as make up max bytes, at
// least one entry. If the log no longer holds that entry, ok is false.
func (l *log) take(f *Format, from uint64, maxBytes int) (b *batch, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from < l.first() {
		return nil, false
	}
	head := l.head.Load()
	for i := range l.recent {
		if r := &l.recent[i]; r.format == f && r.from == from && (r.to == head || len(r.bytes) >= maxBytes) {
			return r.copy(), true
		}
	}
	made := l.make(f, from, head, maxBytes)
	l.recent[l.turn] = made
	l.turn = (l.turn + 1) % len(l.recent)
	return made.copy(), true
}

// until is the part of a batch that has to be written when n bytes of it were: up to the end of the entry that is next or
// half written.
func (b *batch) until(n int) *batch {
	if n == len(b.bytes) {
		return b
	}
	i := sort.SearchInts(b.ends, n+1)
	c := *b
	c.bytes, c.ends, c.to, c.count = b.bytes[:b.ends[i]], b.ends[:i+1], b.from+uint64(i)+1, min(b.count, i+1)
	return &c
}

func (b *batch) copy() *batch { c := *b; return &c }

// make puts a batch together.
func (l *log) make(f *Format, from, to uint64, maxBytes int) batch {
	b := batch{format: f, from: from, to: from}
	i := len(l.lines) - int(to-from)
	size := 0
	last := i
	for ; last < len(l.lines) && (last == i || size < maxBytes); last++ {
		size += len(l.frames(&l.lines[last], f))
	}
	if last == i+1 {
		b.bytes = l.lines[i].frames[f.index] // one entry needs no copy
	} else {
		b.bytes = make([]byte, 0, size)
	}
	b.ends = make([]int, 0, last-i)
	end := 0
	for _, n := range l.lines[i:last] {
		p := n.frames[f.index]
		if last > i+1 {
			b.bytes = append(b.bytes, p...)
		}
		end += len(p)
		b.ends = append(b.ends, end)
		if len(p) > 0 {
			b.count++
		}
		if f.SkipOwn && n.Origin != 0 {
			b.origins = append(b.origins, n.Origin)
		}
	}
	b.to = from + uint64(last-i)
	return b
}

// frames returns a line's frames in a format, made if they aren't yet.
func (l *log) frames(n *line, f *Format) []byte {
	if n.made&(1<<f.index) == 0 {
		n.made |= 1 << f.index
		if n.Encode != nil && f.Each == nil {
			n.frames[f.index] = n.Encode(f)
			l.grow(n, len(n.frames[f.index]))
		}
	}
	return n.frames[f.index]
}

// own makes the batch anew for one connection, without what came from it, or by Format.Each; nil if the log no longer
// holds it.
func (l *log) own(c *Conn, b *batch) *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.from < l.first() {
		return nil
	}
	own := &batch{format: b.format, from: b.from, to: b.to}
	i := len(l.lines) - int(l.head.Load()-b.from)
	for k := range l.lines[i : i+int(b.to-b.from)] {
		n := &l.lines[i+k]
		var p []byte
		switch {
		case b.format.SkipOwn && n.Origin == c.id:
		case b.format.Each != nil:
			p = b.format.Each(c, n.Entry)
		default:
			p = l.frames(n, b.format)
		}
		if len(p) > 0 {
			own.count++
		}
		own.bytes = append(own.bytes, p...)
		own.ends = append(own.ends, len(own.bytes))
	}
	return own
}

// budget counts bytes that many share.
type budget struct {
	used atomic.Int64
	max  int64
}

func (b *budget) add(n int)  { b.used.Add(int64(n)) }
func (b *budget) over() bool { return b.used.Load() > b.max }

// compareIDs orders ids of Redis streams ("1700000000000-0"): numbers without leading zeros.
func compareIDs(a, b string) int {
	aTime, aSeq, _ := strings.Cut(a, "-")
	bTime, bSeq, _ := strings.Cut(b, "-")
	if c := compareNumbers(aTime, bTime); c != 0 {
		return c
	}
	return compareNumbers(aSeq, bSeq)
}

func compareNumbers(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
