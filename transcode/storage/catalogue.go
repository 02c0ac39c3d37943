package storage

import (
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

// The bounds of a catalogue that nobody needs to change.
const (
	// heldSegments is how many segments of a rendition wait for an earlier one.
	heldSegments = 8
	// heldBytes bounds them together, per rendition.
	heldBytes = 64 << 20
	// maxInits is how many init sections of a rendition are kept.
	maxInits = 64
	// maxSettled bounds the segments counted ahead of one that isn't safe.
	maxSettled = 4096
	// maxReason bounds the reason in an entry, in bytes.
	maxReason = 300
	// recentTargets is how many target durations of parts a new reader is told.
	recentTargets = 3
	// defaultTarget stands for the target duration before it is announced.
	defaultTarget = 4 * media.VideoTimescale
	// lineEntries bounds one line of what exists; an entry is below 1 KiB.
	lineEntries = 1000
)

// catalogue is what this worker holds of one broadcast: its newest media, what is
// known to exist, and which segments are safe. It is a pure state machine: what
// follows from a call is put into the outcome. Not safe for concurrent use.
type catalogue struct {
	broadcast string
	// span and maxBytes bound the media, dvr what is told to new readers.
	span, dvr media.Ticks
	maxBytes  int
	// limit, above 0, takes dvr's place while there is no room for as much.
	limit media.Ticks
	// left is the first segment that hasn't left the DVR window.
	left uint64

	// writer is the newest grant's epoch, live its live mark.
	writer jobs.Epoch
	live   uint64
	// grants are those that may still publish, and the newest one.
	grants        map[jobs.Epoch]*grantState
	settings      *index.Entry
	pausing, over *index.Entry
	tracks        map[string]*track
	// names are the tracks in the order of the settings, then of appearance.
	names     []string
	bytes     int
	thumbnail []byte
	// recorded counts entries for Redis since the settings were among them.
	recorded int
}

// grantState is a grant with a publication of its own.
type grantState struct {
	jobs.Grant
	closed bool
}

// object is something on its way to S3.
type object struct {
	key   string
	entry index.Entry
	data  [][]byte
}

func newCatalogue(broadcast string, span, dvr media.Ticks, maxBytes int) *catalogue {
	return &catalogue{
		broadcast: broadcast, span: span, dvr: dvr, maxBytes: maxBytes, tracks: map[string]*track{},
		grants: map[jobs.Epoch]*grantState{{}: {}},
	}
}

// reopen starts or continues the catalogue under a grant. Older grants go on, with
// segments before its live mark; one that comes later than a newer one does no more.
func (s *catalogue) reopen(g jobs.Grant) {
	s.grants[g.Epoch] = &grantState{Grant: g}
	if g.Epoch.Less(s.writer) {
		return
	}
	before := s.writer
	s.writer, s.live, s.over = g.Epoch, g.Live, nil
	for _, t := range s.tracks {
		from := t.turns[before]
		next := newTurn(g, from)
		next.next = max(next.next, from.next)
		t.turns[g.Epoch] = next
		for _, old := range t.turns {
			old.dropHeld(g.Live)
		}
	}
	for epoch, old := range s.grants {
		if old.closed || epoch == (jobs.Epoch{}) {
			s.forgetGrant(epoch)
		}
	}
}

// closeGrant says that a grant publishes no more.
func (s *catalogue) closeGrant(epoch jobs.Epoch) {
	if g := s.grants[epoch]; g != nil {
		g.closed = true
	}
}

// forgetGrant lets go of an older grant's state.
func (s *catalogue) forgetGrant(epoch jobs.Epoch) {
	if epoch == s.writer {
		return
	}
	delete(s.grants, epoch)
	for _, t := range s.tracks {
		delete(t.turns, epoch)
	}
}

// mayPublish reports whether a grant may publish media of a segment: the newest
// one any, an older one what comes before the newest one's live mark.
func (s *catalogue) mayPublish(epoch jobs.Epoch, sequence uint64) bool {
	return !epoch.Less(s.writer) || sequence < s.live
}

func (s *catalogue) track(name string) *track {
	t := s.tracks[name]
	if t == nil {
		t = &track{turns: map[jobs.Epoch]*turn{s.writer: newTurn(s.grants[s.writer].Grant, nil)}}
		s.tracks[name] = t
		s.names = append(s.names, name)
	}
	return t
}
