package storage

import (
	"maps"
	"slices"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

// track is one rendition on a catalogue.
type track struct {
	// turns tell by grant how far its publication has come.
	turns map[jobs.Epoch]*turn
	// segments are those in memory, by sequence.
	segments []*segment
	// records are the complete segments and gaps, by sequence.
	records []index.Entry
	inits   []initSection
}

// turn is how far one grant's publication has come with a rendition.
type turn struct {
	// next is the first segment that isn't finished.
	next uint64
	// held are calls about segments after next, by sequence.
	held      map[uint64][]delivery
	heldBytes int
	// safe is the first segment not in S3; safeAhead are those after it that are.
	safe      uint64
	safeAhead map[uint64]struct{}
}

// newTurn begins at a grant's marks, with what another turn knows to be safe.
func newTurn(g jobs.Grant, from *turn) *turn {
	t := &turn{next: g.Live, safe: g.Backfill, held: map[uint64][]delivery{}, safeAhead: map[uint64]struct{}{}}
	if from != nil {
		t.safeAhead = maps.Clone(from.safeAhead)
		t.raiseSafe(max(g.Backfill, from.safe))
	}
	return t
}

// dropHeld lets go of what waits from a segment on.
func (t *turn) dropHeld(from uint64) {
	for sequence, waiting := range t.held {
		if sequence < from {
			continue
		}
		for _, d := range waiting {
			t.heldBytes -= len(d.data)
		}
		delete(t.held, sequence)
	}
}

// segment is one version of a segment in memory, complete or not.
type segment struct {
	sequence, epoch uint64
	profile         string
	writer          jobs.Epoch
	parts           []index.Entry
	data            [][]byte
	size            int
	done, safe      bool
	duration        media.Ticks
}

// initSection is an announced init section; its data is nil when it is only
// known from an earlier worker.
type initSection struct {
	entry index.Entry
	data  []byte
}

func (t *track) addInit(i initSection) {
	if len(t.inits) >= maxInits {
		t.inits = slices.Delete(t.inits, 0, 1)
	}
	t.inits = append(t.inits, i)
}

// recent returns the newest version of each segment in memory that lies within
// span of the newest one, unfinished ones included.
func (t *track) recent(span media.Ticks) []*segment {
	var found []*segment
	var total media.Ticks
	for _, g := range slices.Backward(t.segments) {
		if total >= span {
			break
		}
		if r := t.find(g.sequence); r != nil && (r.Type == index.TypeGap || r.Profile != g.profile || r.Epoch != g.epoch) && g.writer.Less(r.Writer) {
			continue
		}
		if n := len(found); n > 0 && found[n-1].sequence == g.sequence {
			if found[n-1].writer.Less(g.writer) {
				found[n-1] = g
			}
			continue
		}
		found = append(found, g)
		total += g.duration
	}
	slices.Reverse(found)
	return found
}

// lookup returns a version of a segment in memory, or nil.
func (t *track) lookup(sequence, epoch uint64, profile string) *segment {
	for _, g := range slices.Backward(t.segments) {
		if g.sequence == sequence && g.epoch == epoch && g.profile == profile {
			return g
		}
		if g.sequence < sequence {
			break
		}
	}
	return nil
}

// find returns the record of a sequence, or nil. It is valid until the next change.
func (t *track) find(sequence uint64) *index.Entry {
	at, ok := t.position(sequence)
	if !ok {
		return nil
	}
	return &t.records[at]
}

func (t *track) position(sequence uint64) (int, bool) {
	return slices.BinarySearchFunc(t.records, sequence, func(r index.Entry, n uint64) int {
		switch {
		case r.Sequence < n:
			return -1
		case r.Sequence > n:
			return 1
		}
		return 0
	})
}

// addRecord inserts e, or puts it in the place of the one of its sequence.
func (t *track) addRecord(e index.Entry) {
	at, ok := t.position(e.Sequence)
	if ok {
		t.records[at] = e
		return
	}
	t.records = slices.Insert(t.records, at, e)
}

// advance moves on when sequence was the first unfinished one.
func (t *turn) advance(sequence uint64) {
	if sequence == t.next {
		t.next++
	}
}

// noteSafe notes that sequence needs no upload any more.
func (t *track) noteSafe(sequence uint64) {
	for _, w := range t.turns {
		w.noteSafe(sequence)
	}
}

func (t *turn) noteSafe(sequence uint64) {
	if sequence < t.safe {
		return
	}
	t.safeAhead[sequence] = struct{}{}
	if len(t.safeAhead) > maxSettled {
		// One that nobody makes any more must not hold up all others.
		t.safe++
	}
	t.raiseSafe(t.safe)
}

// isSafe reports whether a segment needs no upload any more.
func (t *turn) isSafe(sequence uint64) bool {
	_, ok := t.safeAhead[sequence]
	return ok || sequence < t.safe
}

// raiseSafe sets safe to at least to, and past what is safeAhead there.
func (t *turn) raiseSafe(to uint64) {
	for t.safe < to && len(t.safeAhead) > 0 {
		delete(t.safeAhead, t.safe)
		t.safe++
	}
	t.safe = max(t.safe, to)
	for {
		if _, ok := t.safeAhead[t.safe]; !ok {
			return
		}
		delete(t.safeAhead, t.safe)
		t.safe++
	}
}
