package timeline

import (
	"sync"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// The log's bounds.
const (
	logDuration = 40 * media.VideoTimescale
	// defaultLogBytes bounds one broadcast's log.
	defaultLogBytes = 64 << 20
)

// Log is the ordered record of a broadcast, bounded in seconds and bytes: the
// oldest items go first. One copy of each item, as the relay sends it, serves all readers.
// It is safe for one writer and any number of readers.
type Log struct {
	maxBytes int

	mu       sync.Mutex
	items    []item
	first    uint64 // number of items[0]
	bytes    int
	marks    []markAt
	settings []byte // the newest settings
	force    codecs // at the end of the log
	ended    bool
	changed  chan struct{} // closed at each append
}

// item is an entry as the relay sends it.
type item struct {
	data  []byte
	track media.Kind // 0 of marks, settings and codecs
	at    media.Ticks
}

// codecs are the codecs in force somewhere in the log, as the relay sends them;
// nil where a track has none yet.
type codecs struct{ video, audio []byte }

// markAt is where a reader of a segment starts.
type markAt struct {
	mark relay.Mark
	// number is that of the mark's item; lead that of the first item which a
	// reader of this segment needs: sound of it that came before its mark.
	number, lead uint64
	force        codecs // at lead
}

// NewLog makes a log of at most maxBytes; 0: 64 MiB.
func NewLog(maxBytes int) *Log {
	if maxBytes == 0 {
		maxBytes = defaultLogBytes
	}
	return &Log{maxBytes: maxBytes, changed: make(chan struct{})}
}

// Append adds an entry. It copies the payload.
func (l *Log) Append(e relay.Entry) error {
	var room []byte
	if e.Unit != nil {
		room = make([]byte, 0, relay.Size(e.Unit))
	}
	data, err := e.Append(room)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	it := item{data: data, at: l.lastAt()}
	switch {
	case e.Mark != nil:
		it.at = e.Mark.Start
		l.noteMark(*e.Mark)
		l.ended = l.ended || e.Mark.Kind == relay.End
	case e.Settings != nil:
		l.settings = data
	case e.Codec != nil && e.Codec.Kind() == media.Video:
		l.force.video = data
	case e.Codec != nil:
		l.force.audio = data
	default:
		it.track, it.at = e.Unit.Track, e.Unit.DTS
	}
	l.items = append(l.items, it)
	l.bytes += len(data)
	l.trim()
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// Close says that nothing follows.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Log) lastAt() media.Ticks {
	if len(l.items) == 0 {
		return timelineStart
	}
	return l.items[len(l.items)-1].at
}

func (l *Log) noteMark(m relay.Mark) {
	at := markAt{mark: m, number: l.first + uint64(len(l.items)), force: l.force}
	at.lead = at.number
	// A discontinuity has no sound before it, and its codecs stand
	// right before its mark: a reader gets them as the ones in force.
	begin := at.number
	for i := len(l.marks) - 1; i >= 0 && l.marks[i].mark.Discontinuity == m.Discontinuity; i-- {
		begin = l.marks[i].number
	}
	for n := at.number; n > max(begin, l.first); n-- {
		if it := &l.items[n-1-l.first]; it.track == media.Audio {
			if it.at < m.Start {
				break
			}
			at.lead = n - 1
		}
	}
	l.marks = append(l.marks, at)
}

func (l *Log) trim() {
	newest := l.lastAt()
	n := 0
	for n < len(l.items)-1 && (l.bytes > l.maxBytes || newest-l.items[n].at > logDuration) {
		l.bytes -= len(l.items[n].data)
		l.items[n] = item{}
		n++
	}
	l.first += uint64(n)
	l.items = l.items[n:]
	k := 0
	for k < len(l.marks)-1 && l.marks[k].lead < l.first {
		k++
	}
	l.marks = l.marks[k:]
}

// From finds where a reader begins that wants segment from, or, with newest
// set, the newest segment that begins with a keyframe. It returns what must be
// sent before the first item. ok is false when the log doesn't reach back that
// far: oldest is then the first segment that it has.
func (l *Log) From(from uint64, newest bool) (preamble [][]byte, number, oldest uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.marks) == 0 { // nothing was published yet: all that will be is wanted
		return nil, l.first, 0, true
	}
	oldest = l.oldestLocked()
	var want *markAt
	for i := range l.marks {
		m := l.origin(i)
		if m == nil || newest && want != nil && !l.marks[i].mark.Independent() {
			continue
		}
		if !newest && l.marks[i].mark.Sequence > from {
			break
		}
		want = m
	}
	if want == nil {
		return nil, 0, oldest, false
	}
	for _, tag := range [][]byte{l.settings, want.force.video, want.force.audio} {
		if tag != nil {
			preamble = append(preamble, tag)
		}
	}
	return preamble, want.lead, oldest, true
}

// origin returns where a reader of the i-th mark's segment starts: at the keyframe
// that it is decoded from. nil: the log no longer has that. The caller holds mu.
func (l *Log) origin(i int) *markAt {
	want := l.marks[i].mark
	for ; i >= 0 && l.marks[i].lead >= l.first; i-- {
		if m := &l.marks[i]; m.mark.Sequence == want.DecodeFrom && m.mark.Kind == want.Kind {
			return m
		}
	}
	return nil
}

// MaxBatch bounds what one read returns, in items.
const MaxBatch = 128

// Read returns the tags from item number on, and a channel that is closed when
// there are more. lost reports that the log no longer has that item; ended that
// nothing follows.
func (l *Log) Read(number uint64, buf [][]byte) (tags [][]byte, changed <-chan struct{}, lost, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number < l.first {
		return nil, nil, true, false
	}
	tags = buf[:0]
	for i := number - l.first; i < uint64(len(l.items)) && len(tags) < MaxBatch; i++ {
		tags = append(tags, l.items[i].data)
	}
	return tags, l.changed, false, l.ended && len(tags) == 0
}

// Size returns the bytes held.
func (l *Log) Size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// Oldest returns the first segment that the log can still give whole, or the
// next one if there is none.
func (l *Log) Oldest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.oldestLocked()
}

func (l *Log) oldestLocked() uint64 {
	for i := range l.marks {
		if l.origin(i) != nil {
			return l.marks[i].mark.Sequence
		}
	}
	if n := len(l.marks); n > 0 {
		return l.marks[n-1].mark.Sequence + 1
	}
	return 0
}
