package edge

import (
	"maps"
	"slices"
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/media"
)

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
	// lost are listed segments of which a worker told later that it couldn't
	// store them.
	lost map[uint64]bool
	// initEpochs are, by hash, the ingest epochs under which an init section
	// may lie in S3, the newest first.
	initEpochs   map[string][]uint64
	initsChanged bool
	// begin is the broadcast's start.
	begin time.Time
	// stalled is since when entries past a hole wait for it, lagging since when
	// a rival version waits to go on with the open segment.
	stalled, lagging time.Time
	rate             bitrate
	changed          bool
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
	for i > 0 && r.joins(known[i-1], known[i]) {
		i--
	}
	for _, old := range known[:i] {
		delete(r.drafts, old)
	}
	r.next, r.based = known[i], true
}

// joins reports whether what comes before a draft can be listed with it.
func (r *foldRendition) joins(before, after uint64) bool {
	a, b := r.drafts[before], r.drafts[after]
	if before+1 == after && a.complete() {
		return true
	}
	return a.showable() && a.epoch() != 0 && a.epoch() < b.epoch() && after-before <= maxJump
}

// orphaned reports whether what is shown last is from an ingest that the given
// one, by its epoch, has taken over from.
func (r *foldRendition) orphaned(ingest uint64) bool {
	now := uint64(0)
	if r.media.Open != nil {
		now = r.media.Open.Epoch
	} else {
		for i := len(r.media.Segments) - 1; i >= 0 && now == 0; i-- {
			now = r.media.Segments[i].Epoch
		}
	}
	return now != 0 && ingest > now
}

// closeShort completes the open segment with the parts that it has; where
// holds denies that they can be had, as a gap.
func (r *foldRendition) closeShort(holds func(string, *playlist.Segment) bool) {
	if r.media.Open == nil {
		return
	}
	s := *r.media.Open
	for _, p := range s.Parts {
		s.Duration += p.Duration
		s.Size += p.Size
	}
	s.Gap = holds != nil && !holds(r.info.Name, &s)
	r.finishOpen(&s)
}

func (r *foldRendition) advance() {
	for {
		d := r.drafts[r.next]
		if d == nil {
			return
		}
		if r.media.Open == nil {
			d.favoured = d.whole(nil) // then no other one is waited for
		}
		// A segment's last part and its EXTINF appear in one step.
		r.showParts(d)
		e := d.completion(r.media.Open)
		if e == nil {
			return
		}
		r.complete(e)
	}
}

// showParts makes the draft's parts up to the first missing one the open segment.
func (r *foldRendition) showParts(d *draft) {
	v := d.pick(r.media.Open)
	if v == nil || r.media.Open == nil && v.first == nil {
		return
	}
	shown := 0
	var parts []playlist.Part
	if r.media.Open != nil {
		parts = r.media.Open.Parts
		shown = len(parts)
	}
	for {
		p, ok := v.parts[len(parts)]
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
		open = r.head(v.first)
	}
	open.Parts = parts
	r.media.Open, r.changed = &open, true
	r.lagging = time.Time{}
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

// complete makes what is due a complete segment, or with a gap entry a gap.
func (r *foldRendition) complete(e *index.Entry) {
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
	if e.Type == index.TypeSegment {
		s.Epoch, s.Profile, s.Size = e.Epoch, e.Profile, e.Size
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
	r.finishOpen(&s)
}

// finishOpen lists what was due as s.
func (r *foldRendition) finishOpen(s *playlist.Segment) {
	r.media.Segments = append(r.media.Segments, s)
	r.media.Open = nil
	delete(r.drafts, r.next)
	r.next++
	r.stalled, r.lagging = time.Time{}, time.Time{}
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
		delete(r.lost, r.media.Segments[n].Sequence)
		n++
	}
	if n > 0 {
		r.media.Segments = r.media.Segments[n:]
		r.changed = true
	}
}

// noteLost remembers a gap entry that is about what is listed.
func (r *foldRendition) noteLost(e *index.Entry) {
	s := r.media.Find(e.Sequence)
	if e.Type == index.TypeGap && s != nil && !s.Gap && s.Epoch == e.Epoch && s.Profile == e.Profile {
		r.lost[e.Sequence] = true
	}
}

// vanish lists a segment as a gap that is lost indeed. A Server MUST NOT change
// what is listed (6.2.1), but listed media MUST be there too, and a player can
// look for another rendition instead of asking for what it can't get.
func (r *foldRendition) vanish(a *address) bool {
	if !r.lost[a.sequence] {
		return false
	}
	at := a.sequence - r.media.Segments[0].Sequence
	s := *r.media.Segments[at]
	if s.Epoch != a.epoch || s.Profile != a.profile {
		return false
	}
	delete(r.lost, a.sequence)
	s.Gap, s.Parts = true, slices.Clone(s.Parts)
	for i := range s.Parts {
		s.Parts[i].Gap = true
	}
	// Snapshots share the segments.
	r.media.Segments = slices.Clone(r.media.Segments)
	r.media.Segments[at] = &s
	r.changed = true
	return true
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

// decide ends the wait for the version that is in charge of the open segment
// where another one has had for a while what comes next.
func (r *foldRendition) decide(now time.Time) {
	d := r.drafts[r.next]
	v, mixes := d.rival(r.media.Open)
	switch {
	case v == nil:
		r.lagging = time.Time{}
	case r.lagging.IsZero():
		r.lagging = now
	case now.Sub(r.lagging) >= lagPatience:
		if mixes {
			d.settle(r.media.Open, 0)
		} else {
			d.favoured = v
		}
		r.advance()
	}
}

// fill completes all segments before after: what another ingest's death left
// open as it stands, the rest as gaps.
func (r *foldRendition) fill(after, ingest uint64, holds func(string, *playlist.Segment) bool) {
	if after-r.next > maxJump {
		// Too much is missing to say anything of it.
		for sequence := range r.drafts {
			if sequence < after {
				delete(r.drafts, sequence)
			}
		}
		clear(r.lost)
		r.media.Segments, r.media.Open, r.next, r.changed = nil, nil, after, true
		return
	}
	var each media.Ticks
	orphaned := r.orphaned(ingest)
	if orphaned {
		r.closeShort(holds)
		each = r.media.PartTarget // numbers that were never used: no time to lose on them
	}
	// Where the time after the hole is known, the gaps share what lies between.
	if d, n := r.drafts[after], len(r.media.Segments); !orphaned && d != nil && n > 0 && r.media.Open == nil {
		last := r.media.Segments[n-1]
		if e := d.told(); e != nil && !e.Time.IsZero() {
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
		var open *playlist.Segment
		if sequence == r.next {
			open = r.media.Open
		}
		d.settle(open, each)
	}
}

// noteInit remembers the ingest epoch under which an init section may lie in S3.
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
