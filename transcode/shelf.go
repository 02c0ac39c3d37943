package transcode

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
	// errFenced means that a later grant of the same broadcast has taken over.
	errFenced = errors.New("a later grant has taken over")
)

// shelf is what this worker holds of one broadcast: its newest media, what is
// known to exist, and which segments are safe. It is a pure state machine: what
// follows from a call is put into the outcome. Not safe for concurrent use.
type shelf struct {
	broadcast string
	// span and maxBytes bound the media, dvr what is told to new readers.
	span, dvr media.Ticks
	maxBytes  int

	writer         jobs.Epoch
	live, backfill uint64
	settings       *index.Entry
	pausing, over  *index.Entry
	tracks         map[string]*shelfTrack
	// names are the tracks in the order of the settings, then of appearance.
	names     []string
	bytes     int
	thumbnail []byte
	// recorded counts entries for Redis since the settings were among them.
	recorded int
}

// shelfTrack is one rendition on a shelf.
type shelfTrack struct {
	// next is the first segment that isn't finished.
	next uint64
	// held are calls about segments after next, by sequence.
	held      map[uint64][]delivery
	heldBytes int
	// safe is the first segment not in S3; settled are those after it that are.
	safe    uint64
	settled map[uint64]struct{}
	// segments are those in memory, by sequence.
	segments []*shelved
	// records are the complete segments and gaps, by sequence.
	records []index.Entry
	inits   []initSection
}

// shelved is one version of a segment in memory, complete or not.
type shelved struct {
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
	// late counts segments that were given up, evicted those that left memory
	// before they were safe.
	late, evicted int
}

// object is something on its way to S3.
type object struct {
	key   string
	entry index.Entry
	data  [][]byte
}

func newShelf(broadcast string, span, dvr media.Ticks, maxBytes int) *shelf {
	return &shelf{broadcast: broadcast, span: span, dvr: dvr, maxBytes: maxBytes, tracks: map[string]*shelfTrack{}}
}

// reopen starts or continues the shelf under a grant.
func (s *shelf) reopen(g jobs.Grant) {
	s.writer, s.live, s.backfill = g.Epoch, g.Live, g.Backfill
	s.over = nil
	for _, t := range s.tracks {
		t.next = max(t.next, g.Live)
		t.held, t.heldBytes = map[uint64][]delivery{}, 0
		t.raiseSafe(g.Backfill)
	}
}

func (s *shelf) track(name string) *shelfTrack {
	t := s.tracks[name]
	if t == nil {
		t = &shelfTrack{next: s.live, safe: s.backfill, held: map[uint64][]delivery{}, settled: map[uint64]struct{}{}}
		s.tracks[name] = t
		s.names = append(s.names, name)
	}
	return t
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
	e.Type, e.Writer, e.Rendition, e.Init, e.Size = index.TypeInit, s.writer, rendition, init.Hash, len(init.Data)
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

func (t *shelfTrack) addInit(i initSection) {
	if len(t.inits) >= maxInits {
		t.inits = slices.Delete(t.inits, 0, 1)
	}
	t.inits = append(t.inits, i)
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
	if sequence <= t.next {
		err := s.apply(t, d, out)
		s.release(t, out)
		return err
	}
	t.held[sequence] = append(t.held[sequence], d)
	t.heldBytes += len(d.data)
	for len(t.held) > heldSegments || t.heldBytes > heldBytes {
		out.late++
		s.addGap(t, s.missing(t, rendition, "the segment was not made in time"), out)
		s.release(t, out)
	}
	return nil
}

// release applies what waited for t.next.
func (s *shelf) release(t *shelfTrack, out *outcome) {
	for {
		turn := t.next
		waiting, ok := t.held[turn]
		if !ok {
			return
		}
		delete(t.held, turn)
		for _, d := range waiting {
			t.heldBytes -= len(d.data)
			if err := s.apply(t, d, out); err != nil {
				out.errs = append(out.errs, err)
			}
		}
		if t.next == turn {
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
		s.addGap(t, d.entry, out)
	default:
		t.settle(d.entry.Sequence)
		t.advance(d.entry.Sequence)
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
	e.Type, e.Writer, e.Size = index.TypePart, s.writer, len(data)
	seg.parts = append(seg.parts, e)
	seg.data = append(seg.data, data)
	seg.size += len(data)
	s.bytes += len(data)
	s.pausing = nil
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
			g.writer = s.writer
			return g, nil
		}
		if !g.writer.Less(s.writer) {
			return nil, errVersion
		}
	}
	if r := t.find(e.Sequence); r != nil && r.Type == index.TypeGap && !r.Writer.Less(s.writer) {
		return nil, errGap
	}
	if e.Part > 0 {
		return nil, errOrder
	}
	g := &shelved{sequence: e.Sequence, epoch: e.Epoch, profile: e.Profile, writer: s.writer}
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
	if seg.done {
		return nil
	}
	e := d.entry
	e.Type, e.Writer, e.Part, e.Parts, e.Size = index.TypeSegment, s.writer, 0, len(seg.parts), seg.size
	seg.done, seg.duration = true, e.Duration
	t.addRecord(e)
	out.lines = append(out.lines, append(line, e))
	out.stores = append(out.stores, object{
		objects.SegmentKey(s.broadcast, e.Epoch, e.Rendition, e.Sequence, e.Profile), e, slices.Clone(seg.data),
	})
	s.pausing = nil
	t.advance(e.Sequence)
	s.prune(t)
	s.evict(out)
	return nil
}

// addGap declares a segment missing, unless it is complete.
func (s *shelf) addGap(t *shelfTrack, e index.Entry, out *outcome) {
	if r := t.find(e.Sequence); r != nil && (r.Type == index.TypeSegment || !r.Writer.Less(s.writer)) {
		t.advance(e.Sequence)
		return
	}
	t.segments = slices.DeleteFunc(t.segments, func(g *shelved) bool {
		if g.sequence != e.Sequence {
			return false
		}
		s.bytes -= g.size
		return true
	})
	s.declareGap(t, e, out)
	t.advance(e.Sequence)
	s.prune(t)
}

func (s *shelf) declareGap(t *shelfTrack, e index.Entry, out *outcome) {
	e.Type, e.Writer, e.Part, e.Size = index.TypeGap, s.writer, 0, 0
	e.Reason = shorten(e.Reason)
	t.addRecord(e)
	t.settle(e.Sequence)
	out.lines = append(out.lines, []index.Entry{e})
	s.record(e, out)
}

// missing describes t.next, of which nothing but its number is known.
func (s *shelf) missing(t *shelfTrack, rendition, reason string) index.Entry {
	e := index.Entry{Rendition: rendition, Sequence: t.next, Reason: reason, Duration: s.target() / 2}
	if n := len(t.records); n > 0 {
		r := t.records[n-1]
		e.Duration, e.Epoch, e.Discontinuity = r.Duration, r.Epoch, r.Discontinuity
		if !r.Time.IsZero() {
			e.Time = r.Time.Add(r.Duration.Duration() * time.Duration(t.next-r.Sequence))
		}
	}
	return e
}

func (s *shelf) pause(reason string, out *outcome) {
	if s.pausing != nil {
		return
	}
	s.pausing = &index.Entry{Type: index.TypePause, Writer: s.writer, Reason: shorten(reason)}
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

// uploaded notes that an object is in S3. Only now do the readers of Redis
// learn of it.
func (s *shelf) uploaded(e index.Entry, out *outcome) {
	s.stored(e)
	s.record(e, out)
	s.evict(out)
}

// stored notes that S3 has something under the object's key.
func (s *shelf) stored(e index.Entry) {
	if e.Type != index.TypeSegment {
		return
	}
	t := s.track(e.Rendition)
	if r := t.find(e.Sequence); r == nil || sameVersion(*r, e) {
		t.settle(e.Sequence)
	}
	if g := t.lookup(e.Sequence, e.Epoch, e.Profile); g != nil {
		g.safe = true
	}
}

// lost declares a gap for a segment that was dropped on its way to S3.
func (s *shelf) lost(e index.Entry, reason string, out *outcome) {
	if e.Type != index.TypeSegment {
		return
	}
	t := s.track(e.Rendition)
	if g := t.lookup(e.Sequence, e.Epoch, e.Profile); g != nil {
		g.safe = true // nothing will make it safer
	}
	if r := t.find(e.Sequence); r != nil && (r.Type == index.TypeGap || !sameVersion(*r, e)) {
		return
	}
	e.Reason = reason
	s.declareGap(t, e, out)
	s.prune(t)
	s.evict(out)
}

// restore takes what earlier workers have written to Redis.
func (s *shelf) restore(entries []index.Entry, out *outcome) {
	var news []index.Entry
	for _, e := range entries {
		switch e.Type {
		case index.TypeBroadcast:
			if s.settings == nil {
				s.settings = &e
				s.arrange()
				news = append(news, e)
			}
		case index.TypeInit:
			t := s.track(e.Rendition)
			if !slices.ContainsFunc(t.inits, func(i initSection) bool { return i.entry.Init == e.Init && i.entry.Epoch == e.Epoch }) {
				t.addInit(initSection{entry: e})
				news = append(news, e)
			}
		case index.TypeSegment, index.TypeGap:
			t := s.track(e.Rendition)
			if r := t.find(e.Sequence); r != nil && !r.Writer.Less(e.Writer) {
				if sameVersion(*r, e) && r.Type == e.Type {
					t.settle(e.Sequence)
				}
				continue
			}
			t.addRecord(e)
			t.settle(e.Sequence)
			if g := t.lookup(e.Sequence, e.Epoch, e.Profile); g != nil && e.Type == index.TypeSegment {
				g.safe = true
			}
			news = append(news, e)
		}
	}
	for _, t := range s.tracks {
		s.prune(t)
	}
	for chunk := range slices.Chunk(news, lineEntries) {
		out.lines = append(out.lines, chunk)
	}
}

// safe is the first segment that isn't in S3 in every rendition.
func (s *shelf) safe() uint64 {
	return s.least(s.backfill, func(t *shelfTrack) uint64 { return t.safe })
}

// finished is the first segment that isn't complete in every rendition.
func (s *shelf) finished() uint64 {
	return s.least(s.live, func(t *shelfTrack) uint64 { return t.next })
}

func (s *shelf) least(none uint64, of func(*shelfTrack) uint64) uint64 {
	if len(s.tracks) == 0 {
		return none
	}
	least := ^uint64(0)
	for _, t := range s.tracks {
		least = min(least, of(t))
	}
	return least
}

// snapshot returns what a new reader is told, as lines.
func (s *shelf) snapshot() [][]index.Entry {
	type placed struct {
		index.Entry
		track, kind int
	}
	var head []index.Entry
	var body []placed
	if s.settings != nil {
		head = append(head, *s.settings)
	}
	for n, name := range s.names {
		t := s.tracks[name]
		for _, i := range t.inits {
			head = append(head, i.entry)
		}
		for _, r := range t.records {
			body = append(body, placed{r, n, 1})
		}
		for _, g := range t.recent(recentTargets * s.target()) {
			for _, p := range g.parts {
				body = append(body, placed{p, n, 0})
			}
		}
	}
	slices.SortStableFunc(body, func(a, b placed) int {
		switch {
		case a.Sequence != b.Sequence && a.Sequence < b.Sequence:
			return -1
		case a.Sequence != b.Sequence:
			return 1
		case a.track != b.track:
			return a.track - b.track
		}
		return a.kind - b.kind
	})
	all := head
	for _, p := range body {
		all = append(all, p.Entry)
	}
	for _, e := range []*index.Entry{s.pausing, s.over} {
		if e != nil {
			all = append(all, *e)
		}
	}
	return slices.Collect(slices.Chunk(all, lineEntries))
}

// recent returns the newest version of each segment in memory that lies within
// span of the newest one, unfinished ones included.
func (t *shelfTrack) recent(span media.Ticks) []*shelved {
	var found []*shelved
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

// record puts e on the way to Redis. The stream is trimmed from its beginning,
// so the settings and init sections are repeated before they are trimmed.
func (s *shelf) record(e index.Entry, out *outcome) {
	out.records = append(out.records, e)
	if s.recorded++; s.recorded < s.indexLength()/2 || s.settings == nil {
		return
	}
	s.recorded = 0
	out.records = append(out.records, *s.settings)
	for _, n := range s.names {
		for _, i := range s.tracks[n].inits {
			out.records = append(out.records, i.entry)
		}
	}
}

// indexLength is how many entries of the broadcast Redis keeps: the DVR
// window's segments of 2 s or more, and a third for all else.
func (s *shelf) indexLength() int {
	segments := int(s.dvr/(2*media.VideoTimescale)) + 30
	return 100 + segments*max(2, len(s.tracks))*4/3
}

// target is the target duration.
func (s *shelf) target() media.Ticks {
	if s.settings == nil {
		return defaultTarget
	}
	return media.Ticks(s.settings.Broadcast.TargetDuration) * media.VideoTimescale
}

// prune forgets records before the DVR window.
func (s *shelf) prune(t *shelfTrack) {
	keep := s.dvr + recentTargets*s.target()
	var total media.Ticks
	for i, r := range slices.Backward(t.records) {
		if total >= keep {
			t.records = slices.Delete(t.records, 0, i+1)
			return
		}
		total += r.Duration
	}
}

// evict lets go of media: what is old and safe, and beyond the bound in bytes
// the oldest complete segments whether safe or not.
func (s *shelf) evict(out *outcome) {
	span := max(s.span, (recentTargets+1)*s.target())
	for _, t := range s.tracks {
		var total media.Ticks
		old := map[*shelved]bool{}
		for _, g := range slices.Backward(t.segments) {
			if total >= span && (g.safe || s.abandoned(g)) {
				old[g] = true
			}
			total += g.duration
		}
		t.segments = slices.DeleteFunc(t.segments, func(g *shelved) bool {
			if old[g] {
				s.bytes -= g.size
			}
			return old[g]
		})
	}
	for s.bytes > s.maxBytes {
		var oldest *shelfTrack
		for _, t := range s.tracks {
			if len(t.segments) > 1 && (t.segments[0].done || s.abandoned(t.segments[0])) && (oldest == nil || t.segments[0].sequence < oldest.segments[0].sequence) {
				oldest = t
			}
		}
		if oldest == nil {
			return
		}
		g := oldest.segments[0]
		if !g.safe {
			out.evicted++
		}
		s.bytes -= g.size
		oldest.segments = slices.Delete(oldest.segments, 0, 1)
	}
}

// abandoned reports whether an earlier grant began g and nobody went on with it.
func (s *shelf) abandoned(g *shelved) bool { return !g.done && g.writer.Less(s.writer) }

// lookup returns a version of a segment in memory, or nil.
func (t *shelfTrack) lookup(sequence, epoch uint64, profile string) *shelved {
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
func (t *shelfTrack) find(sequence uint64) *index.Entry {
	at, ok := t.position(sequence)
	if !ok {
		return nil
	}
	return &t.records[at]
}

func (t *shelfTrack) position(sequence uint64) (int, bool) {
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
func (t *shelfTrack) addRecord(e index.Entry) {
	at, ok := t.position(e.Sequence)
	if ok {
		t.records[at] = e
		return
	}
	t.records = slices.Insert(t.records, at, e)
}

// advance moves on when sequence was the first unfinished one.
func (t *shelfTrack) advance(sequence uint64) {
	if sequence == t.next {
		t.next++
	}
}

// settle notes that sequence needs no upload any more.
func (t *shelfTrack) settle(sequence uint64) {
	if sequence < t.safe {
		return
	}
	t.settled[sequence] = struct{}{}
	if len(t.settled) > maxSettled {
		// One that nobody makes any more must not hold up all others.
		t.safe++
	}
	t.raiseSafe(t.safe)
}

// raiseSafe sets safe to at least to, and past what is settled there.
func (t *shelfTrack) raiseSafe(to uint64) {
	for t.safe < to && len(t.settled) > 0 {
		delete(t.settled, t.safe)
		t.safe++
	}
	t.safe = max(t.safe, to)
	for {
		if _, ok := t.settled[t.safe]; !ok {
			return
		}
		delete(t.settled, t.safe)
		t.safe++
	}
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
