package storage

import (
	"cmp"
	"slices"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

// uploaded notes that an object is in S3. Only now do the readers of Redis
// learn of it.
func (s change) uploaded(e index.Entry) {
	s.stored(e)
	s.record(e)
	s.evict()
}

// stored notes that S3 has something under the object's key.
func (s *catalogue) stored(e index.Entry) {
	if e.Type != index.TypeSegment {
		return
	}
	t := s.track(e.Rendition)
	if r := t.find(e.Sequence); r == nil || sameVersion(*r, e) {
		t.noteSafe(e.Sequence)
	}
	if g := t.lookup(e.Sequence, e.Epoch, e.Profile); g != nil {
		g.safe = true
	}
}

// lost declares a gap for a segment that was dropped on its way to S3.
func (s change) lost(e index.Entry, reason string) {
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
	s.declareGap(t, e)
	s.prune(t)
	s.evict()
}

// restore takes what earlier workers have written to Redis.
func (s change) restore(entries []index.Entry) {
	var news []index.Entry
	for _, e := range entries {
		switch e.Type {
		case index.TypeBroadcast:
			if s.settings == nil {
				s.settings, s.limit = &e, e.Broadcast.Window
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
					t.noteSafe(e.Sequence)
				}
				continue
			}
			t.addRecord(e)
			t.noteSafe(e.Sequence)
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
		s.out.lines = append(s.out.lines, chunk)
	}
}

// safe is the first segment that isn't in S3 in every rendition of a grant's.
func (s *catalogue) safe(g jobs.Grant) uint64 {
	return s.least(g.Epoch, g.Backfill, func(t *turn) uint64 { return t.safe })
}

// finished is the first segment that isn't complete in every rendition of a grant's.
func (s *catalogue) finished(g jobs.Grant) uint64 {
	return s.least(g.Epoch, g.Live, func(t *turn) uint64 { return t.next })
}

func (s *catalogue) least(epoch jobs.Epoch, none uint64, of func(*turn) uint64) uint64 {
	least, any := ^uint64(0), false
	for _, t := range s.tracks {
		if own := t.turns[epoch]; own != nil {
			least, any = min(least, of(own)), true
		}
	}
	if !any {
		return none
	}
	return least
}

// snapshot returns what a new reader is told, as lines.
func (s *catalogue) snapshot() [][]index.Entry {
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

// record puts e on the way to Redis. The stream is trimmed from its beginning,
// so the settings and init sections are repeated before they are trimmed.
func (s change) record(e index.Entry) {
	s.out.records = append(s.out.records, e)
	if s.recorded++; s.recorded < s.indexLength()/2 || s.settings == nil {
		return
	}
	s.recorded = 0
	s.out.records = append(s.out.records, *s.settings)
	for _, n := range s.names {
		for _, i := range s.tracks[n].inits {
			s.out.records = append(s.out.records, i.entry)
		}
	}
}

// recordAgain puts all that Redis should have of the broadcast on the way to it
// once more; of the segments the newest.
func (s change) recordAgain() {
	s.recorded = 0
	if s.settings != nil {
		s.out.records = append(s.out.records, *s.settings)
	}
	var media []index.Entry
	for _, n := range s.names {
		t := s.tracks[n]
		for _, i := range t.inits {
			s.out.records = append(s.out.records, i.entry)
		}
		for _, r := range t.records {
			if r.Type == index.TypeGap || t.turns[s.writer].isSafe(r.Sequence) {
				media = append(media, r)
			}
		}
	}
	slices.SortStableFunc(media, func(a, b index.Entry) int { return cmp.Compare(a.Sequence, b.Sequence) })
	s.out.records = append(s.out.records, media[max(0, len(media)-maxRewrite):]...)
	for _, e := range []*index.Entry{s.pausing, s.over} {
		if e != nil {
			s.out.records = append(s.out.records, *e)
		}
	}
}

// indexLength is how many entries of the broadcast Redis keeps: the DVR
// window's segments of 2 s or more, and a third for all else; twice that, since
// two workers may write it, or one again what Redis had lost.
func (s *catalogue) indexLength() int {
	segments := int(s.window()/(2*media.VideoTimescale)) + 30
	return 100 + segments*max(2, len(s.tracks))*8/3
}

// target is the target duration.
func (s *catalogue) target() media.Ticks {
	if s.settings == nil {
		return defaultTarget
	}
	return media.Ticks(s.settings.Broadcast.TargetDuration) * media.VideoTimescale
}

// window is how far back a new reader is told what exists.
func (s *catalogue) window() media.Ticks { return cmp.Or(s.limit, s.dvr) }

// limitWindow has playlists reach back less than the DVR window; 0: as far as that again.
func (s change) limitWindow(limit media.Ticks) {
	if s.settings == nil || limit == s.limit {
		return
	}
	s.limit = limit
	s.announceBroadcast(*s.settings.Broadcast)
	for _, t := range s.tracks {
		s.prune(t)
	}
}

// usedInits are the hashes of the init sections that are announced, or that a
// segment needs that is.
func (s *catalogue) usedInits() map[string]bool {
	used := map[string]bool{}
	for _, t := range s.tracks {
		for _, i := range t.inits {
			used[i.entry.Init] = true
		}
		for _, r := range t.records {
			used[r.Init] = true
		}
	}
	return used
}

// prune forgets records before the DVR window.
func (s *catalogue) prune(t *track) {
	keep := s.window() + recentTargets*s.target()
	var total media.Ticks
	for i, r := range slices.Backward(t.records) {
		if total >= keep {
			s.left = max(s.left, r.Sequence+1)
			t.records = slices.Delete(t.records, 0, i+1)
			return
		}
		total += r.Duration
	}
}

// evict lets go of media: what is old and safe, and beyond the bound in bytes
// the oldest complete segments whether safe or not.
func (s change) evict() {
	span := max(s.span, (recentTargets+1)*s.target())
	for _, t := range s.tracks {
		var total media.Ticks
		old := map[*segment]bool{}
		for _, g := range slices.Backward(t.segments) {
			if total >= span && (g.safe || s.abandoned(g)) {
				old[g] = true
			}
			total += g.duration
		}
		t.segments = slices.DeleteFunc(t.segments, func(g *segment) bool {
			if old[g] {
				s.bytes -= g.size
			}
			return old[g]
		})
	}
	for s.bytes > s.maxBytes {
		var oldest *track
		at := 0
		for _, t := range s.tracks {
			n := t.oldest(s.catalogue)
			if n >= 0 && (oldest == nil || t.segments[n].sequence < oldest.segments[at].sequence) {
				oldest, at = t, n
			}
		}
		if oldest == nil {
			return
		}
		g := oldest.segments[at]
		if !g.safe {
			s.out.evicted++
		}
		s.bytes -= g.size
		oldest.segments = slices.Delete(oldest.segments, at, at+1)
	}
}

// oldest is the place of the first segment that nobody adds to, the newest one
// excepted, or -1.
func (t *track) oldest(s *catalogue) int {
	return slices.IndexFunc(t.segments[:max(0, len(t.segments)-1)], func(g *segment) bool { return g.done || s.abandoned(g) })
}

// abandoned reports whether an earlier grant began g, and nobody goes on with it.
func (s *catalogue) abandoned(g *segment) bool {
	if g.done || !g.writer.Less(s.writer) {
		return false
	}
	by := s.grants[g.writer]
	return by == nil || by.closed
}
