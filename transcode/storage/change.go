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

// change is one call that changes a catalogue: the catalogue itself, the grant
// that the call comes from, and what follows from it.
type change struct {
	*catalogue
	by  jobs.Epoch
	out *outcome
}

// delivery is one call that waits for its turn.
type delivery struct {
	kind index.Type // TypePart, TypeSegment, TypeGap, or "" for a skip
	part index.Entry
	data []byte
	// entry is the segment or gap.
	entry index.Entry
}

// outcome is what follows from calls on a catalogue, in order.
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

// turn returns how far the grant that calls has come with a rendition.
func (s change) turn(t *track) *turn {
	own := t.turns[s.by]
	if own == nil {
		own = newTurn(s.grants[s.by].Grant, t.turns[s.writer])
		t.turns[s.by] = own
	}
	return own
}

func (s change) announceBroadcast(b index.Broadcast) {
	b.Renditions, b.Window = slices.Clone(b.Renditions), s.limit
	e := index.Entry{Type: index.TypeBroadcast, Writer: s.writer, Broadcast: &b}
	s.settings = &e
	s.arrange()
	s.out.lines = append(s.out.lines, []index.Entry{e})
	s.record(e)
}

// arrange creates the announced tracks and puts their names first.
func (s *catalogue) arrange() {
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

func (s change) announceInit(rendition string, init *media.Init, e index.Entry) {
	t := s.track(rendition)
	e.Type, e.Writer, e.Rendition, e.Init, e.Size = index.TypeInit, s.by, rendition, init.Hash, len(init.Data)
	at := slices.IndexFunc(t.inits, func(i initSection) bool { return i.entry.Init == e.Init && i.entry.Epoch == e.Epoch })
	switch {
	case at < 0:
		t.addInit(initSection{e, init.Data})
	case t.inits[at].data == nil:
		t.inits[at] = initSection{e, init.Data}
	default:
		return
	}
	s.out.lines = append(s.out.lines, []index.Entry{e})
	s.out.stores = append(s.out.stores, object{objects.InitKey(s.broadcast, e.Epoch, rendition, e.Init), e, [][]byte{init.Data}})
}

func (s change) part(e index.Entry, data []byte) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	if len(data) == 0 {
		return fmt.Errorf("part %d of %s/%d is empty", e.Part, e.Rendition, e.Sequence)
	}
	return s.deliver(e.Rendition, e.Sequence, delivery{kind: index.TypePart, part: e, data: data})
}

// finish takes the last part, which may be empty when all are published, and
// the segment.
func (s change) finish(last index.Entry, data []byte, seg index.Entry) error {
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
	return s.deliver(seg.Rendition, seg.Sequence, delivery{kind: index.TypeSegment, part: last, data: data, entry: seg})
}

func (s change) gap(e index.Entry) error {
	return s.deliver(e.Rendition, e.Sequence, delivery{kind: index.TypeGap, entry: e})
}

func (s change) skip(rendition string, sequence uint64) error {
	return s.deliver(rendition, sequence, delivery{entry: index.Entry{Rendition: rendition, Sequence: sequence}})
}

func checkEntry(e index.Entry) error {
	if e.Rendition == "" || e.Profile == "" || e.Part < 0 || e.Part >= index.MaxParts {
		return fmt.Errorf("publish %q/%d.%d of profile %q: a name is missing or a number out of range", e.Rendition, e.Sequence, e.Part, e.Profile)
	}
	return nil
}

// deliver applies d, or holds it back while an earlier segment of its
// rendition is unfinished: within a rendition, segment N+1 is shown only after N.
func (s change) deliver(rendition string, sequence uint64, d delivery) error {
	t := s.track(rendition)
	own := s.turn(t)
	if sequence <= own.next {
		err := s.apply(t, d)
		s.release(t, own)
		return err
	}
	own.held[sequence] = append(own.held[sequence], d)
	own.heldBytes += len(d.data)
	for len(own.held) > heldSegments || own.heldBytes > heldBytes {
		s.out.late++
		s.addGap(t, s.missing(t, own.next, rendition, "the segment was not made in time"))
		s.release(t, own)
	}
	return nil
}

// release applies what waited for the calling grant's next segment.
func (s change) release(t *track, own *turn) {
	for {
		sequence := own.next
		waiting, ok := own.held[sequence]
		if !ok {
			return
		}
		delete(own.held, sequence)
		for _, d := range waiting {
			own.heldBytes -= len(d.data)
			if err := s.apply(t, d); err != nil {
				s.out.errs = append(s.out.errs, err)
			}
		}
		if own.next == sequence {
			return
		}
	}
}

func (s change) apply(t *track, d delivery) error {
	switch d.kind {
	case index.TypePart:
		_, line, err := s.addPart(t, d.part, d.data)
		if err != nil {
			return fmt.Errorf("publish part %s/%d.%d: %w", d.part.Rendition, d.part.Sequence, d.part.Part, err)
		}
		if line != nil {
			s.out.lines = append(s.out.lines, line)
		}
	case index.TypeSegment:
		if err := s.addSegment(t, d); err != nil {
			return fmt.Errorf("finish segment %s/%d: %w", d.entry.Rendition, d.entry.Sequence, err)
		}
	case index.TypeGap:
		if s.addGap(t, d.entry) {
			s.out.gaps++
		}
	default:
		t.noteSafe(d.entry.Sequence)
		s.turn(t).advance(d.entry.Sequence)
	}
	return nil
}

// addPart appends a part to its segment. The line is nil when it was there.
func (s change) addPart(t *track, e index.Entry, data []byte) (*segment, []index.Entry, error) {
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
func (s change) version(t *track, e index.Entry) (*segment, error) {
	at, _ := slices.BinarySearchFunc(t.segments, e.Sequence, func(g *segment, n uint64) int {
		if g.sequence < n {
			return -1
		}
		return 1
	})
	for ; at < len(t.segments) && t.segments[at].sequence == e.Sequence; at++ {
		g := t.segments[at]
		if g.epoch == e.Epoch && g.profile == e.Profile {
			if g.writer.Less(s.by) {
				g.writer = s.by
			}
			return g, nil
		}
		if !g.writer.Less(s.by) {
			return nil, errVersion
		}
	}
	switch r := t.find(e.Sequence); {
	case r == nil:
	case r.Type == index.TypeGap && !r.Writer.Less(s.by):
		return nil, errGap
	case r.Type == index.TypeSegment && !sameVersion(*r, e) && s.by.Less(r.Writer):
		return nil, errVersion
	}
	if e.Part > 0 {
		return nil, errOrder
	}
	g := &segment{sequence: e.Sequence, epoch: e.Epoch, profile: e.Profile, writer: s.by}
	t.segments = slices.Insert(t.segments, at, g)
	return g, nil
}

// addSegment completes a segment. Its last part and its entry share a line, so
// that no reader sees all parts of a segment that isn't listed.
func (s change) addSegment(t *track, d delivery) error {
	var line []index.Entry
	var seg *segment
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
	s.out.lines = append(s.out.lines, append(line, e))
	s.out.stores = append(s.out.stores, object{
		objects.SegmentKey(s.broadcast, e.Epoch, e.Rendition, e.Sequence, e.Profile), e, slices.Clone(seg.data),
	})
	s.resume(e.Sequence)
	s.prune(t)
	s.evict()
	return nil
}

// addGap declares a segment missing, unless it is complete, a gap already, or
// in the hands of a newer grant.
func (s change) addGap(t *track, e index.Entry) bool {
	s.turn(t).advance(e.Sequence)
	if r := t.find(e.Sequence); r != nil && (r.Type == index.TypeSegment || !r.Writer.Less(s.by)) {
		return false
	}
	if slices.ContainsFunc(t.segments, func(g *segment) bool { return g.sequence == e.Sequence && s.by.Less(g.writer) }) {
		return false
	}
	t.segments = slices.DeleteFunc(t.segments, func(g *segment) bool {
		if g.sequence != e.Sequence {
			return false
		}
		s.bytes -= g.size
		return true
	})
	s.declareGap(t, e)
	s.prune(t)
	return true
}

func (s change) declareGap(t *track, e index.Entry) {
	e.Type, e.Writer, e.Part, e.Size = index.TypeGap, s.by, 0, 0
	e.Reason = shorten(e.Reason)
	t.addRecord(e)
	t.noteSafe(e.Sequence)
	s.out.lines = append(s.out.lines, []index.Entry{e})
	s.record(e)
}

// missing describes a segment of which nothing but its number is known.
func (s *catalogue) missing(t *track, sequence uint64, rendition, reason string) index.Entry {
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
func (s *catalogue) resume(sequence uint64) {
	if s.pausing != nil && sequence >= s.pausing.Sequence {
		s.pausing = nil
	}
}

// pause announces that the publisher is away. The resuming segment's number may
// be told later than the pause, not taken back.
func (s change) pause(sequence uint64, reason string) {
	if s.pausing != nil && s.pausing.Sequence >= sequence {
		return
	}
	s.pausing = &index.Entry{Type: index.TypePause, Writer: s.writer, Sequence: sequence, Reason: shorten(reason)}
	s.out.lines = append(s.out.lines, []index.Entry{*s.pausing})
	s.record(*s.pausing)
}

func (s change) end(sequence uint64, reason string) {
	if s.over != nil {
		return
	}
	s.over = &index.Entry{Type: index.TypeEnd, Writer: s.writer, Sequence: sequence, Reason: shorten(reason)}
	s.out.lines = append(s.out.lines, []index.Entry{*s.over})
	s.record(*s.over)
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
