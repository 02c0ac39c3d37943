package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/objects"
)

// The bounds of a shelf that nobody needs to change.
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

// The errors of publishing. The caller's media is refused; nothing was announced.
var (
	// errDiffers means that the part exists with other bytes: a segment
	// wasn't made from its slice of the log alone.
	errDiffers = errors.New("it was published with other bytes")
	// errOrder means that parts are missing before it, or come after the end of their segment.
	errOrder = errors.New("it is out of order")
	// errGap means that its segment was declared missing.
	errGap = errors.New("its segment was declared missing")
	// errVersion means that this worker has published the segment under another epoch or profile.
	errVersion = errors.New("its segment was published under another epoch or profile")
	// ErrFenced means that a later grant of the same broadcast has taken over.
	ErrFenced = errors.New("a later grant has taken over")
)

// shelf is what this worker holds of one broadcast: its newest media, what is
// known to exist, and which segments are safe. It is a pure state machine: what
// follows from a call is put into the outcome. Not safe for concurrent use.
type shelf struct {
	broadcast string
	// span and maxBytes bound the media, dvr what is told to new readers.
	span, dvr media.Ticks
	maxBytes  int

	// writer is the newest grant's epoch, live its live mark; speaker is the
	// grant that the call under way comes from.
	writer, speaker jobs.Epoch
	live            uint64
	// grants are those that may still publish, and the newest one.
	grants        map[jobs.Epoch]*shelfGrant
	settings      *index.Entry
	pausing, over *index.Entry
	tracks        map[string]*shelfTrack
	// names are the tracks in the order of the settings, then of appearance.
	names     []string
	bytes     int
	thumbnail []byte
	// recorded counts entries for Redis since the settings were among them.
	recorded int
}

// shelfGrant is a grant with a publication of its own.
type shelfGrant struct {
	jobs.Grant
	closed bool
}

// delivery is one call that waits for its turn.
type delivery struct {
	kind index.Type // TypePart, TypeSegment, TypeGap, or "" for a skip
	part index.Entry
	data []byte
	// entry is the segment or gap.
	entry index.Entry
}

// outcome is what follows from calls on a shelf, in order.
type outcome struct {
	// lines go to the readers of the follow stream.
	lines [][]index.Entry
	// stores go to S3.
	stores []object
	// records go to Redis.
	records []index.Entry
	// errs are of deliveries that had waited for their turn.
	errs []error
	// gaps counts segments that the caller declared missing, late those that
	// were given up, evicted those that left memory before they were safe.
	gaps, late, evicted int
}

// object is something on its way to S3.
type object struct {
	key   string
	entry index.Entry
	data  [][]byte
}

func newShelf(broadcast string, span, dvr media.Ticks, maxBytes int) *shelf {
	return &shelf{
		broadcast: broadcast, span: span, dvr: dvr, maxBytes: maxBytes, tracks: map[string]*shelfTrack{},
		grants: map[jobs.Epoch]*shelfGrant{{}: {}},
	}
}

// reopen starts or continues the shelf under a grant. Older grants go on, with
// segments before its live mark; one that comes later than a newer one does no more.
func (s *shelf) reopen(g jobs.Grant) {
	s.grants[g.Epoch] = &shelfGrant{Grant: g}
	s.speaker = g.Epoch
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
func (s *shelf) closeGrant(epoch jobs.Epoch) {
	if g := s.grants[epoch]; g != nil {
		g.closed = true
	}
}

// forgetGrant lets go of an older grant's state.
func (s *shelf) forgetGrant(epoch jobs.Epoch) {
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
func (s *shelf) mayPublish(epoch jobs.Epoch, sequence uint64) bool {
	return !epoch.Less(s.writer) || sequence < s.live
}

func (s *shelf) track(name string) *shelfTrack {
	t := s.tracks[name]
	if t == nil {
		t = &shelfTrack{turns: map[jobs.Epoch]*turn{s.writer: newTurn(s.grants[s.writer].Grant, nil)}}
		s.tracks[name] = t
		s.names = append(s.names, name)
	}
	return t
}

// turn is how far the speaker has come with a rendition.
func (s *shelf) turn(t *shelfTrack) *turn {
	own := t.turns[s.speaker]
	if own == nil {
		own = newTurn(s.grants[s.speaker].Grant, t.turns[s.writer])
		t.turns[s.speaker] = own
	}
	return own
}

func (s *shelf) announceBroadcast(b index.Broadcast, out *outcome) {
	b.Renditions = slices.Clone(b.Renditions)
	e := index.Entry{Type: index.TypeBroadcast, Writer: s.writer, Broadcast: &b}
	s.settings = &e
	s.arrange()
	out.lines = append(out.lines, []index.Entry{e})
	s.record(e, out)
}

// arrange creates the announced tracks and puts their names first.
func (s *shelf) arrange() {
	var names []string
	for _, r := range s.settings.Broadcast.Renditions {
		s.track(r.Name)
		names = append(names, r.Name)
	}
	for _, n := range s.names {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	s.names = names
}

func (s *shelf) announceInit(rendition string, init *media.Init, e index.Entry, out *outcome) {
	t := s.track(rendition)
	e.Type, e.Writer, e.Rendition, e.Init, e.Size = index.TypeInit, s.speaker, rendition, init.Hash, len(init.Data)
	at := slices.IndexFunc(t.inits, func(i initSection) bool { return i.entry.Init == e.Init && i.entry.Epoch == e.Epoch })
	switch {
	case at < 0:
		t.addInit(initSection{e, init.Data})
	case t.inits[at].data == nil:
		t.inits[at] = initSection{e, init.Data}
	default:
		return
	}
	out.lines = append(out.lines, []index.Entry{e})
	out.stores = append(out.stores, object{objects.InitKey(s.broadcast, e.Epoch, rendition, e.Init), e, [][]byte{init.Data}})
}

func (s *shelf) part(e index.Entry, data []byte, out *outcome) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	if len(data) == 0 {
		return fmt.Errorf("part %d of %s/%d is empty", e.Part, e.Rendition, e.Sequence)
	}
	return s.deliver(e.Rendition, e.Sequence, delivery{kind: index.TypePart, part: e, data: data}, out)
}

// finish takes the last part, which may be empty when all are published, and
// the segment.
func (s *shelf) finish(last index.Entry, data []byte, seg index.Entry, out *outcome) error {
	if err := checkEntry(seg); err != nil {
		return err
	}
	if len(data) > 0 {
		if err := checkEntry(last); err != nil {
			return err
		}
		if last.Rendition != seg.Rendition || last.Sequence != seg.Sequence || last.Epoch != seg.Epoch || last.Profile != seg.Profile {
			return fmt.Errorf("finish segment %s/%d: its last part is named otherwise", seg.Rendition, seg.Sequence)
		}
	}
	return s.deliver(seg.Rendition, seg.Sequence, delivery{kind: index.TypeSegment, part: last, data: data, entry: seg}, out)
}

func (s *shelf) gap(e index.Entry, out *outcome) error {
	return s.deliver(e.Rendition, e.Sequence, delivery{kind: index.TypeGap, entry: e}, out)
}

func (s *shelf) skip(rendition string, sequence uint64, out *outcome) error {
	return s.deliver(rendition, sequence, delivery{entry: index.Entry{Rendition: rendition, Sequence: sequence}}, out)
}

func checkEntry(e index.Entry) error {
	if e.Rendition == "" || e.Profile == "" || e.Part < 0 || e.Part >= index.MaxParts {
		return fmt.Errorf("publish %q/%d.%d of profile %q: a name is missing or a number out of range", e.Rendition, e.Sequence, e.Part, e.Profile)
	}
	return nil
}

// deliver applies d, or holds it back while an earlier segment of its
// rendition is unfinished: within a rendition, segment N+1 is shown only after N.
func (s *shelf) deliver(rendition string, sequence uint64, d delivery, out *outcome) error {
	t := s.track(rendition)
	own := s.turn(t)
	if sequence <= own.next {
		err := s.apply(t, d, out)
		s.release(t, own, out)
		return err
	}
	own.held[sequence] = append(own.held[sequence], d)
	own.heldBytes += len(d.data)
	for len(own.held) > heldSegments || own.heldBytes > heldBytes {
		out.late++
		s.addGap(t, s.missing(t, own.next, rendition, "the segment was not made in time"), out)
		s.release(t, own, out)
	}
	return nil
}

// release applies what waited for the speaker's next segment.
func (s *shelf) release(t *shelfTrack, own *turn, out *outcome) {
	for {
		sequence := own.next
		waiting, ok := own.held[sequence]
		if !ok {
			return
		}
		delete(own.held, sequence)
		for _, d := range waiting {
			own.heldBytes -= len(d.data)
			if err := s.apply(t, d, out); err != nil {
				out.errs = append(out.errs, err)
			}
		}
		if own.next == sequence {
			return
		}
	}
}

func (s *shelf) apply(t *shelfTrack, d delivery, out *outcome) error {
	switch d.kind {
	case index.TypePart:
		_, line, err := s.addPart(t, d.part, d.data)
		if err != nil {
			return fmt.Errorf("publish part %s/%d.%d: %w", d.part.Rendition, d.part.Sequence, d.part.Part, err)
		}
		if line != nil {
			out.lines = append(out.lines, line)
		}
	case index.TypeSegment:
		if err := s.addSegment(t, d, out); err != nil {
			return fmt.Errorf("finish segment %s/%d: %w", d.entry.Rendition, d.entry.Sequence, err)
		}
	case index.TypeGap:
		if s.addGap(t, d.entry, out) {
			out.gaps++
		}
	default:
		t.settle(d.entry.Sequence)
		s.turn(t).advance(d.entry.Sequence)
	}
	return nil
}

// addPart appends a part to its segment. The line is nil when it was there.
func (s *shelf) addPart(t *shelfTrack, e index.Entry, data []byte) (*shelved, []index.Entry, error) {
	seg, err := s.version(t, e)
	if err != nil {
		return nil, nil, err
	}
	if e.Part < len(seg.parts) {
		if !bytes.Equal(seg.data[e.Part], data) {
			return nil, nil, errDiffers
		}
		return seg, nil, nil
	}
	if seg.done || e.Part > len(seg.parts) {
		return nil, nil, errOrder
	}
	e.Type, e.Writer, e.Size = index.TypePart, seg.writer, len(data)
	seg.parts = append(seg.parts, e)
	seg.data = append(seg.data, data)
	seg.size += len(data)
	s.bytes += len(data)
	s.resume(e.Sequence)
	return seg, []index.Entry{e}, nil
}

// version finds or begins the segment that e belongs to.
func (s *shelf) version(t *shelfTrack, e index.Entry) (*shelved, error) {
	at, _ := slices.BinarySearchFunc(t.segments, e.Sequence, func(g *shelved, n uint64) int {
		if g.sequence < n {
			return -1
		}
		return 1
	})
	for ; at < len(t.segments) && t.segments[at].sequence == e.Sequence; at++ {
		g := t.segments[at]
		if g.epoch == e.Epoch && g.profile == e.Profile {
			if g.writer.Less(s.speaker) {
				g.writer = s.speaker
			}
			return g, nil
		}
		if !g.writer.Less(s.speaker) {
			return nil, errVersion
		}
	}
	switch r := t.find(e.Sequence); {
	case r == nil:
	case r.Type == index.TypeGap && !r.Writer.Less(s.speaker):
		return nil, errGap
	case r.Type == index.TypeSegment && !sameVersion(*r, e) && s.speaker.Less(r.Writer):
		return nil, errVersion
	}
	if e.Part > 0 {
		return nil, errOrder
	}
	g := &shelved{sequence: e.Sequence, epoch: e.Epoch, profile: e.Profile, writer: s.speaker}
	t.segments = slices.Insert(t.segments, at, g)
	return g, nil
}

// addSegment completes a segment. Its last part and its entry share a line, so
// that no reader sees all parts of a segment that isn't listed.
func (s *shelf) addSegment(t *shelfTrack, d delivery, out *outcome) error {
	var line []index.Entry
	var seg *shelved
	var err error
	if len(d.data) > 0 {
		if seg, line, err = s.addPart(t, d.part, d.data); err != nil {
			return err
		}
	} else if seg = t.lookup(d.entry.Sequence, d.entry.Epoch, d.entry.Profile); seg == nil {
		return errOrder
	}
	if d.entry.Parts != 0 && d.entry.Parts != len(seg.parts) {
		return fmt.Errorf("it has %d parts, %d were announced: %w", len(seg.parts), d.entry.Parts, errOrder)
	}
	s.turn(t).advance(d.entry.Sequence)
	if seg.done {
		return nil
	}
	e := d.entry
	e.Type, e.Writer, e.Part, e.Parts, e.Size = index.TypeSegment, seg.writer, 0, len(seg.parts), seg.size
	seg.done, seg.duration = true, e.Duration
	t.addRecord(e)
	out.lines = append(out.lines, append(line, e))
	out.stores = append(out.stores, object{
		objects.SegmentKey(s.broadcast, e.Epoch, e.Rendition, e.Sequence, e.Profile), e, slices.Clone(seg.data),
	})
	s.resume(e.Sequence)
	s.prune(t)
	s.evict(out)
	return nil
}

// addGap declares a segment missing, unless it is complete, a gap already, or
// in the hands of a newer grant.
func (s *shelf) addGap(t *shelfTrack, e index.Entry, out *outcome) bool {
	s.turn(t).advance(e.Sequence)
	if r := t.find(e.Sequence); r != nil && (r.Type == index.TypeSegment || !r.Writer.Less(s.speaker)) {
		return false
	}
	if slices.ContainsFunc(t.segments, func(g *shelved) bool { return g.sequence == e.Sequence && s.speaker.Less(g.writer) }) {
		return false
	}
	t.segments = slices.DeleteFunc(t.segments, func(g *shelved) bool {
		if g.sequence != e.Sequence {
			return false
		}
		s.bytes -= g.size
		return true
	})
	s.declareGap(t, e, out)
	s.prune(t)
	return true
}

func (s *shelf) declareGap(t *shelfTrack, e index.Entry, out *outcome) {
	e.Type, e.Writer, e.Part, e.Size = index.TypeGap, s.speaker, 0, 0
	e.Reason = shorten(e.Reason)
	t.addRecord(e)
	t.settle(e.Sequence)
	out.lines = append(out.lines, []index.Entry{e})
	s.record(e, out)
}

// missing describes a segment of which nothing but its number is known.
func (s *shelf) missing(t *shelfTrack, sequence uint64, rendition, reason string) index.Entry {
	e := index.Entry{Rendition: rendition, Sequence: sequence, Reason: reason, Duration: s.target() / 2}
	if n := len(t.records); n > 0 {
		r := t.records[n-1]
		e.Duration, e.Epoch, e.Discontinuity = r.Duration, r.Epoch, r.Discontinuity
		if !r.Time.IsZero() {
			e.Time = r.Time.Add(r.Duration.Duration() * time.Duration(int64(sequence-r.Sequence)))
		}
	}
	return e
}

// resume ends a pause when media of the segment that it waits for comes; what
// is still made of the ones before it doesn't.
func (s *shelf) resume(sequence uint64) {
	if s.pausing != nil && sequence >= s.pausing.Sequence {
		s.pausing = nil
	}
}

// pause announces that the publisher is away. The resuming segment's number may
// be told later than the pause, not taken back.
func (s *shelf) pause(sequence uint64, reason string, out *outcome) {
	if s.pausing != nil && s.pausing.Sequence >= sequence {
		return
	}
	s.pausing = &index.Entry{Type: index.TypePause, Writer: s.writer, Sequence: sequence, Reason: shorten(reason)}
	out.lines = append(out.lines, []index.Entry{*s.pausing})
	s.record(*s.pausing, out)
}

func (s *shelf) end(sequence uint64, reason string, out *outcome) {
	if s.over != nil {
		return
	}
	s.over = &index.Entry{Type: index.TypeEnd, Writer: s.writer, Sequence: sequence, Reason: shorten(reason)}
	out.lines = append(out.lines, []index.Entry{*s.over})
	s.record(*s.over, out)
}

func sameVersion(a, b index.Entry) bool {
	return a.Sequence == b.Sequence && a.Epoch == b.Epoch && a.Profile == b.Profile
}

// shorten bounds a reason.
func shorten(reason string) string {
	if len(reason) > maxReason {
		return strings.ToValidUTF8(reason[:maxReason], "")
	}
	return reason
}
