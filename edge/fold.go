package edge

import (
	"errors"
	"maps"
	"slices"
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

const (
	// maxRenditions bounds the renditions of a broadcast.
	maxRenditions = 32
	// maxDrafts bounds the unfinished segments kept for one rendition.
	maxDrafts = 2048
	// maxJump is the largest hole, in segments, that is filled with gaps; after
	// a larger one a rendition begins anew.
	maxJump = 256
	// maxInitEpochs bounds how many ingest epochs are remembered per init section.
	maxInitEpochs = 8
	// measuredSegments is how many segments make a bitrate measured.
	measuredSegments = 3
)

// fold is the state of one broadcast, made from index entries. It does no I/O;
// its caller serialises the calls. What state returns is immutable.
type fold struct {
	// window is the length of the playlists; they are never shorter than four
	// target durations.
	window media.Ticks

	settings   *index.Broadcast
	renditions map[string]*foldRendition
	// writer is the highest epoch that was heard of.
	writer jobs.Epoch
	paused bool
	// resume is the sequence that ends a pause, 0 where it isn't known.
	resume uint64
	// end is one past the last segment's sequence, noEnd while there is none.
	end uint64
	// begun is set by begin; before it nothing is shown.
	begun bool
	// refused counts entries that were refused, by reason.
	refused map[string]int
}

const noEnd = ^uint64(0)

// foldRendition is the state of one rendition.
type foldRendition struct {
	info index.Rendition
	// listed is set for renditions of the broadcast entry.
	listed bool
	// media is what playlists show.
	media playlist.Media
	// next is the sequence of the segment to complete next; valid once based.
	next  uint64
	based bool
	// drafts are the segments from next on, as far as they are known.
	drafts map[uint64]*draft
	// initEpochs are, by hash, the ingest epochs under which an init section
	// may lie in S3, the newest first.
	initEpochs   map[string][]uint64
	initsChanged bool
	// begin is the broadcast's start.
	begin time.Time
	// stalled is since when entries past a hole wait for it.
	stalled time.Time
	rate    bitrate
	changed bool
}

// draft is a segment that isn't shown complete yet.
type draft struct {
	writer  jobs.Epoch
	segment *index.Entry
	gap     *index.Entry
	// first is the entry of part 0, which carries what is known of the segment.
	first *index.Entry
	parts map[int]playlist.Part
}

// bitrate measures segments.
type bitrate struct {
	segments int
	bits     float64
	seconds  float64
	peak     float64
}

func newFold(window time.Duration) *fold {
	return &fold{
		window: media.TicksOf(window), renditions: make(map[string]*foldRendition),
		end: noEnd, refused: make(map[string]int),
	}
}

// apply takes the entries of one line, all before any is shown. It reports
// whether anything that playlists show has changed.
func (f *fold) apply(entries []index.Entry) bool {
	changed := false
	for i := range entries {
		if err := f.take(&entries[i]); err != nil {
			if !errors.Is(err, errLate) {
				f.refused[err.Error()]++
			}
			continue
		}
		changed = true
	}
	return changed && f.advance()
}

// The reasons for which an entry is refused; they are label values of a metric.
var (
	errStale     = errors.New("lower_epoch")
	errMalformed = errors.New("malformed")
	errTooMany   = errors.New("too_many")
	// errLate is the ordinary fate of what a worker repeats: it isn't counted.
	errLate = errors.New("late")
)

func (f *fold) take(e *index.Entry) error {
	if f.writer.Less(e.Writer) {
		f.writer = e.Writer
	}
	stale := e.Writer.Less(f.writer)
	switch e.Type {
	case index.TypeBroadcast:
		return f.takeBroadcast(e, stale)
	case index.TypePause:
		if stale {
			return errStale
		}
		if e.Sequence == 0 || !f.shows(e.Sequence) {
			f.resume = e.Sequence
			f.setPaused(true)
		}
		return nil
	case index.TypeEnd:
		if stale {
			return errStale
		}
		if f.end == noEnd {
			f.end = e.Sequence
		}
		return nil
	}
	if !isName(e.Rendition) || e.Init != "" && !isName(e.Init) {
		return errMalformed
	}
	r := f.renditions[e.Rendition]
	if r == nil {
		if len(f.renditions) >= maxRenditions {
			return errTooMany
		}
		r = f.addRendition(index.Rendition{Name: e.Rendition})
	}
	if e.Init != "" {
		r.noteInit(e.Init, e.Epoch)
	}
	if e.Type == index.TypeInit {
		if stale && r.info.Codec != "" {
			return errStale
		}
		if e.Codec != "" && isCodec(e.Codec) {
			r.info.Codec = e.Codec
		}
		if e.Width > 0 && e.Height > 0 {
			r.info.Width, r.info.Height = e.Width, e.Height
		}
		return nil
	}
	return f.takeMedia(r, e)
}

// takeBroadcast keeps the first settings, since a playlist's never change, and
// every rendition that was ever listed, since players load the list once.
func (f *fold) takeBroadcast(e *index.Entry, stale bool) error {
	b := e.Broadcast
	for i := range b.Renditions {
		if !isName(b.Renditions[i].Name) || !isCodec(b.Renditions[i].Codec) {
			return errMalformed
		}
	}
	if f.settings == nil {
		settings := *b
		settings.Renditions = nil
		f.settings = &settings
		for _, r := range f.renditions {
			r.media.Settings, r.begin = f.playlistSettings(), b.Started
			r.changed = true
		}
	} else if stale {
		return errStale
	}
	for _, info := range b.Renditions {
		r := f.renditions[info.Name]
		if r == nil {
			if len(f.renditions) >= maxRenditions {
				return errTooMany
			}
			r = f.addRendition(info)
		} else if codec := r.info.Codec; codec != "" && !r.listed {
			// An init section came first and knows better.
			info.Codec = codec
			if r.info.Width > 0 {
				info.Width, info.Height = r.info.Width, r.info.Height
			}
			r.info = info
		} else if !r.listed {
			r.info = info
		}
		if !r.listed {
			r.listed = true
			// Snapshots share what f.settings points to.
			settings := *f.settings
			settings.Renditions = append(slices.Clip(settings.Renditions), info)
			f.settings = &settings
			r.changed = true
		}
	}
	return nil
}

func (f *fold) playlistSettings() playlist.Settings {
	if f.settings == nil {
		return playlist.Settings{}
	}
	return playlist.Settings{
		TargetDuration: f.settings.TargetDuration,
		PartTarget:     f.settings.PartTarget,
		PartHoldBack:   f.settings.PartHoldBack,
	}
}

func (f *fold) addRendition(info index.Rendition) *foldRendition {
	r := &foldRendition{info: info, drafts: make(map[uint64]*draft), initEpochs: make(map[string][]uint64), changed: true}
	r.media.Settings = f.playlistSettings()
	if f.settings != nil {
		r.begin = f.settings.Started
	}
	r.media.Paused = f.paused
	f.renditions[info.Name] = r
	return r
}

func (f *fold) setPaused(paused bool) {
	if f.paused == paused {
		return
	}
	f.paused = paused
	for _, r := range f.renditions {
		r.media.Paused = paused
		r.changed = true
	}
}

// takeMedia notes a part, segment or gap in its draft.
func (f *fold) takeMedia(r *foldRendition, e *index.Entry) error {
	if e.Type != index.TypeGap && !isName(e.Profile) || e.Profile != "" && !isName(e.Profile) {
		return errMalformed
	}
	if f.end != noEnd && e.Sequence >= f.end {
		return errLate
	}
	if r.based && e.Sequence < r.next {
		return errLate // it is shown already, or has slid out: what is shown never changes
	}
	d := r.drafts[e.Sequence]
	if d == nil {
		if len(r.drafts) >= maxDrafts {
			return errTooMany
		}
		d = &draft{parts: make(map[int]playlist.Part)}
		r.drafts[e.Sequence] = d
	}
	if e.Writer.Less(d.writer) && !d.sameProfile(e) {
		return errStale
	}
	if d.writer.Less(e.Writer) {
		d.writer = e.Writer
	}
	// A segment told of after its PUT may come later than the pause after it.
	if f.paused && e.Sequence >= f.resume && (f.resume > 0 || e.Type == index.TypePart) {
		f.setPaused(false)
	}
	kept := *e
	switch e.Type {
	case index.TypeGap:
		if d.segment == nil && d.gap == nil {
			d.gap = &kept
		}
	case index.TypeSegment:
		if d.segment == nil {
			d.segment = &kept
		}
	case index.TypePart:
		// The same part from two writers: the first is kept. With one profile
		// their bytes are the same.
		if _, known := d.parts[e.Part]; known {
			return nil
		}
		d.parts[e.Part] = playlist.Part{
			Epoch: e.Epoch, Profile: e.Profile, Duration: e.Duration, Size: e.Size, Independent: e.Independent,
		}
		if e.Part == 0 {
			d.first = &kept
		}
	}
	return nil
}

// shows reports whether some rendition has come as far as sequence.
func (f *fold) shows(sequence uint64) bool {
	for _, r := range f.renditions {
		if last, _, ok := r.media.Last(); ok && last >= sequence {
			return true
		}
	}
	return false
}

// sameProfile reports whether e continues the draft with the same bytes that
// the draft's own writer would make.
func (d *draft) sameProfile(e *index.Entry) bool {
	if e.Type == index.TypeGap {
		return false
	}
	if d.segment != nil {
		return d.segment.Profile == e.Profile
	}
	for _, p := range d.parts {
		if p.Profile == e.Profile {
			return true
		}
	}
	return false
}

// begin shows what has been collected: of each rendition the newest run of
// segments without a hole. Entries that come after it only add to that.
func (f *fold) begin() bool {
	if f.begun {
		return false
	}
	f.begun = true
	return f.advance()
}

// base chooses a rendition's first segment among its drafts.
func (r *foldRendition) base() {
	known := slices.Sorted(maps.Keys(r.drafts))
	i := len(known) - 1
	for i >= 0 && !r.drafts[known[i]].showable() {
		i--
	}
	if i < 0 {
		return
	}
	for i > 0 && known[i-1]+1 == known[i] && r.drafts[known[i-1]].complete() {
		i--
	}
	for _, old := range known[:i] {
		delete(r.drafts, old)
	}
	r.next, r.based = known[i], true
}

func (d *draft) complete() bool { return d.segment != nil || d.gap != nil }

func (d *draft) showable() bool { return d.complete() || d.first != nil }

// advance completes segments in order, and shows the parts of the one after.
func (f *fold) advance() bool {
	if !f.begun || f.settings == nil {
		return false
	}
	changed := false
	for _, r := range f.renditions {
		if !r.based {
			r.base()
		}
		if r.based {
			r.advance()
			r.trim(max(f.window, 4*r.media.Target()))
			if f.end != noEnd && r.next >= f.end && !r.media.Ended {
				r.media.Ended, r.changed = true, true
			}
		} else if f.end != noEnd && !r.media.Ended {
			r.media.Ended, r.changed = true, true
		}
		changed = changed || r.changed
	}
	return changed
}

func (r *foldRendition) advance() {
	for {
		d := r.drafts[r.next]
		if d == nil {
			return
		}
		if !d.complete() {
			r.showParts(d)
			return
		}
		r.complete(d)
	}
}

// showParts makes the draft's parts up to the first missing one the open segment.
func (r *foldRendition) showParts(d *draft) {
	if d.first == nil {
		return
	}
	shown := 0
	var parts []playlist.Part
	if r.media.Open != nil {
		parts = r.media.Open.Parts
		shown = len(parts)
	}
	for {
		p, ok := d.parts[len(parts)]
		if !ok {
			break
		}
		parts = append(parts, p)
	}
	if len(parts) == shown {
		return
	}
	var open playlist.Segment
	if r.media.Open != nil {
		open = *r.media.Open
	} else {
		open = r.head(d.first)
	}
	open.Parts = parts
	r.media.Open, r.changed = &open, true
}

// head starts a segment from the first entry that told of it. What the entry
// leaves out follows from the segment before.
func (r *foldRendition) head(e *index.Entry) playlist.Segment {
	s := playlist.Segment{
		Sequence: r.next, Epoch: e.Epoch, Profile: e.Profile, Init: e.Init,
		Time: e.Time, Discontinuity: e.Discontinuity,
	}
	if n := len(r.media.Segments); n > 0 {
		before := r.media.Segments[n-1]
		s.Discontinuity = max(s.Discontinuity, before.Discontinuity)
		s.Breaks = int(min(s.Discontinuity-before.Discontinuity, maxJump))
		if end := before.Time.Add(before.Duration.Duration()); s.Time.IsZero() {
			s.Time = end
		}
		if s.Init == "" {
			s.Init = before.Init
		}
	} else if s.Time.IsZero() {
		s.Time = r.begin
	}
	return s
}

// complete moves the draft with the number next to the complete segments.
func (r *foldRendition) complete(d *draft) {
	// A segment's last part and its EXTINF appear in one step.
	r.showParts(d)
	e := d.segment
	if e == nil {
		e = d.gap
	}
	var s playlist.Segment
	if r.media.Open != nil {
		s = *r.media.Open
	} else {
		s = r.head(e)
	}
	s.Duration = e.Duration
	var sum media.Ticks
	size := 0
	for _, p := range s.Parts {
		sum += p.Duration
		size += p.Size
	}
	if d.segment != nil {
		s.Epoch, s.Profile, s.Size = e.Epoch, e.Profile, e.Size
		if e.Init != "" {
			s.Init = e.Init
		}
		if e.Parts > 0 && e.Parts != len(s.Parts) {
			s.Parts = nil // some were never heard of: list none rather than a part of them
		} else if s.Size == 0 {
			s.Size = size
		}
		if s.Duration == 0 {
			s.Duration = sum
		}
		r.rate.add(s.Size, s.Duration, r.media.Target())
	} else {
		r.completeGap(&s, sum)
	}
	r.media.Segments = append(r.media.Segments, &s)
	r.media.Open = nil
	delete(r.drafts, r.next)
	r.next++
	r.stalled = time.Time{}
	r.changed = true
}

// completeGap fills a missing segment with missing parts, so that the position
// of the last part is always known.
func (r *foldRendition) completeGap(s *playlist.Segment, sum media.Ticks) {
	s.Gap = true
	if s.Profile == "" {
		s.Profile = "gap"
	}
	if s.Duration == 0 {
		s.Duration = r.media.Target()
		if n := len(r.media.Segments); n > 0 {
			s.Duration = r.media.Segments[n-1].Duration
		}
	}
	s.Duration = max(s.Duration, sum)
	s.Parts = slices.Clip(s.Parts)
	for left := s.Duration - sum; left > 0 && len(s.Parts) < index.MaxParts; {
		d := min(left, r.media.PartTarget)
		s.Parts = append(s.Parts, playlist.Part{Epoch: s.Epoch, Profile: s.Profile, Duration: d, Gap: true})
		left -= d
	}
}

// trim drops the oldest segments beyond the window.
func (r *foldRendition) trim(window media.Ticks) {
	var total media.Ticks
	for _, s := range r.media.Segments {
		total += s.Duration
	}
	n := 0
	for n < len(r.media.Segments) && total-r.media.Segments[n].Duration >= window {
		total -= r.media.Segments[n].Duration
		n++
	}
	if n > 0 {
		r.media.Segments = r.media.Segments[n:]
		r.changed = true
	}
}

// giveUp turns holes into gaps that later segments have waited for longer than
// patience, so that a lost entry can't stop a rendition for good. It reports
// whether anything has changed.
func (f *fold) giveUp(now time.Time, patience time.Duration) bool {
	if !f.begun || f.settings == nil {
		return false
	}
	for _, r := range f.renditions {
		after, ok := r.afterHole(f.end)
		switch {
		case !ok:
			r.stalled = time.Time{}
		case r.stalled.IsZero():
			r.stalled = now
		case now.Sub(r.stalled) >= patience:
			r.fill(after)
		}
	}
	return f.advance()
}

// afterHole returns the first segment known past the one that is due, or the
// broadcast's end.
func (r *foldRendition) afterHole(end uint64) (uint64, bool) {
	if !r.based || r.media.Ended {
		return 0, false
	}
	first, ok := end, end != noEnd && end > r.next
	for sequence, d := range r.drafts {
		if sequence > r.next && sequence < first && d.showable() {
			first, ok = sequence, true
		}
	}
	return first, ok
}

// fill makes gaps of all segments before after.
func (r *foldRendition) fill(after uint64) {
	if after-r.next > maxJump {
		// Too much is missing to say anything of it.
		for sequence := range r.drafts {
			if sequence < after {
				delete(r.drafts, sequence)
			}
		}
		r.media.Segments, r.media.Open, r.next, r.changed = nil, nil, after, true
		return
	}
	// Where the time after the hole is known, the gaps share what lies between.
	var each media.Ticks
	if d, n := r.drafts[after], len(r.media.Segments); d != nil && n > 0 && r.media.Open == nil {
		e := d.segment
		if e == nil {
			e = d.first
		}
		last := r.media.Segments[n-1]
		if e != nil && !e.Time.IsZero() {
			hole := e.Time.Sub(last.Time.Add(last.Duration.Duration()))
			each = min(media.TicksOf(max(hole, 0))/media.Ticks(after-r.next), r.media.Target())
		}
	}
	for sequence := r.next; sequence < after; sequence++ {
		d := r.drafts[sequence]
		if d == nil {
			d = &draft{}
			r.drafts[sequence] = d
		}
		if !d.complete() {
			d.gap = &index.Entry{Type: index.TypeGap, Rendition: r.info.Name, Sequence: sequence, Duration: each}
		}
	}
}

// finish ends the broadcast without an end entry: what is open is completed as
// it stands, what has a hole before it is dropped.
func (f *fold) finish() bool {
	f.begun = true
	changed := f.advance()
	f.end = 0
	for _, r := range f.renditions {
		if r.media.Ended {
			continue
		}
		if open := r.media.Open; open != nil {
			s := *open
			for _, p := range s.Parts {
				s.Duration += p.Duration
				s.Size += p.Size
			}
			r.media.Segments = append(r.media.Segments, &s)
			r.media.Open = nil
			r.next++
		}
		clear(r.drafts)
		r.media.Ended, r.changed, changed = true, true, true
	}
	return changed
}

// ended reports whether nothing will be added to any rendition.
func (f *fold) ended() bool {
	if f.end == noEnd {
		return false
	}
	for _, r := range f.renditions {
		if !r.media.Ended {
			return false
		}
	}
	return true
}

func (r *foldRendition) noteInit(hash string, epoch uint64) {
	epochs, known := r.initEpochs[hash]
	if known && (epoch == 0 || slices.Contains(epochs, epoch)) || !known && len(r.initEpochs) >= maxDrafts {
		return
	}
	if epoch != 0 {
		epochs = append([]uint64{epoch}, epochs...)
	}
	r.initEpochs[hash] = epochs[:min(len(epochs), maxInitEpochs)]
	r.initsChanged = true
}

func (b *bitrate) add(size int, d, target media.Ticks) {
	if size <= 0 || d <= 0 {
		return
	}
	bits, seconds := float64(size)*8, d.Seconds()
	b.bits += bits
	b.seconds += seconds
	// The peak is that of segments of at least half a target duration
	// (RFC 8216bis, 4.1); it only rises, so that it doesn't swing.
	if 2*d >= target {
		b.segments++
		b.peak = max(b.peak, bits/seconds)
	}
}

// measured returns the peak and the average in bits a second; until enough is
// known, the cap and no average.
func (b *bitrate) measured(maxBitrate int) (peak, average int) {
	if b.segments < measuredSegments {
		return maxBitrate + maxBitrate/5, 0
	}
	return int(b.peak) + 1, int(b.bits / b.seconds)
}

// isName reports whether s can stand between dots in an address.
func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isCodec reports whether s can stand in a CODECS attribute.
func isCodec(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == ',' {
			return false
		}
	}
	return len(s) <= 64
}
