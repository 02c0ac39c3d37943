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
// oldest items go first. One copy of each item, as FLV, serves all readers.
// It is safe for one writer and any number of readers.
type Log struct {
	maxBytes int

	mu       sync.Mutex
	items    []item
	first    uint64 // number of items[0]
	bytes    int
	marks    []markAt
	settings []byte // the newest settings tag
	// What is in force at the end of the log.
	videoConfig, audioConfig []byte
	ended                    bool
	changed                  chan struct{} // closed at each append
}

type item struct {
	flv  []byte
	kind media.Kind // 0 for marks, settings and configurations
	at   media.Ticks
}

// markAt is where a reader of a segment starts.
type markAt struct {
	mark relay.Mark
	// number is that of the mark's item; lead that of the first item which a
	// reader of this segment needs: sound of it that came before its mark.
	number, lead uint64
	// The configurations in force at lead.
	videoConfig, audioConfig []byte
}

// NewLog makes a log of at most maxBytes; 0: 64 MiB.
func NewLog(maxBytes int) *Log {
	if maxBytes == 0 {
		maxBytes = defaultLogBytes
	}
	return &Log{maxBytes: maxBytes, changed: make(chan struct{})}
}

// Append adds an entry. It copies the payload into the item's FLV tag.
func (l *Log) Append(e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var it item
	var err error
	switch {
	case e.Mark != nil:
		it.at = e.Mark.Start
		it.flv, err = relay.AppendMark(nil, *e.Mark)
		l.noteMark(*e.Mark)
		l.ended = l.ended || e.Mark.Kind == relay.End
	case e.Settings != nil:
		it.at = l.lastAt()
		it.flv, err = relay.AppendSettings(nil, it.at, *e.Settings)
		l.settings = it.flv
	case e.Video != nil:
		it.at = l.lastAt()
		it.flv = media.AppendVideoConfigTag(nil, uint32(it.at.Milliseconds()), e.Video.Record)
		l.videoConfig = it.flv
	case e.Audio != nil:
		it.at = l.lastAt()
		it.flv = media.AppendAudioTag(nil, uint32(it.at.Milliseconds()), true, e.Audio.ASC)
		l.audioConfig = it.flv
	default:
		u := e.Unit
		it.kind, it.at = u.Kind, u.DTS
		ms := uint32(u.DTS.Milliseconds())
		if u.Kind == media.Video {
			it.flv = media.AppendVideoTag(make([]byte, 0, len(u.Payload)+20), ms, u)
		} else {
			it.flv = media.AppendAudioTag(make([]byte, 0, len(u.Payload)+17), ms, false, u.Payload)
		}
	}
	if err != nil {
		return err
	}
	l.items = append(l.items, it)
	l.bytes += len(it.flv)
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
	at := markAt{mark: m, number: l.first + uint64(len(l.items)), videoConfig: l.videoConfig, audioConfig: l.audioConfig}
	at.lead = at.number
	// A discontinuity has no sound before it, and its configurations stand
	// right before its mark: a reader gets them as the ones in force.
	begin := at.number
	for i := len(l.marks) - 1; i >= 0 && l.marks[i].mark.Discontinuity == m.Discontinuity; i-- {
		begin = l.marks[i].number
	}
	for n := at.number; n > max(begin, l.first); n-- {
		if it := &l.items[n-1-l.first]; it.kind == media.Audio {
			if it.at < m.Start-media.TicksPerMillisecond {
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
		l.bytes -= len(l.items[n].flv)
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
// set, the newest segment that begins with an IDR. It returns what must be
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
	for _, tag := range [][]byte{l.settings, want.videoConfig, want.audioConfig} {
		if tag != nil {
			preamble = append(preamble, tag)
		}
	}
	return preamble, want.lead, oldest, true
}

// origin returns where a reader of the i-th mark's segment starts: at the IDR
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
		tags = append(tags, l.items[i].flv)
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
