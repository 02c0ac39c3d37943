package fold

import (
	"slices"
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/media"
)

// orphaned reports whether the newest media that is listed came from an earlier
// ingest than the one of the given epoch, which has taken over.
func (r *rendition) orphaned(ingest uint64) bool {
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

// closeShort completes the open segment with the parts that it has; where they
// can't be served, as a gap.
func (r *rendition) closeShort(served bool) {
	if r.media.Open == nil {
		return
	}
	s := *r.media.Open
	for _, p := range s.Parts {
		s.Duration += p.Duration
		s.Size += p.Size
	}
	s.Gap = !served
	r.list(&s)
}

// completeGap makes s a gap, whose parts that are listed last as long as sum. It
// fills s up with missing parts, so that the position of the last part is always
// known.
func (r *rendition) completeGap(s *playlist.Segment, sum media.Ticks) {
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

// afterHole returns the first segment known past the one that is due, or the
// broadcast's end.
func (r *rendition) afterHole(end uint64) (uint64, bool) {
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

// endLag ends the wait for the version that is in charge of the open segment
// where another version has had what comes next for lagPatience.
func (r *rendition) endLag(now time.Time) {
	d := r.drafts[r.next]
	v, mixes := d.rival(r.media.Open)
	switch {
	case v == nil:
		r.lagging = time.Time{}
	case r.lagging.IsZero():
		r.lagging = now
	case now.Sub(r.lagging) >= lagPatience:
		if mixes {
			d.giveUp(r.media.Open, 0)
		} else {
			d.favoured = v
		}
		r.advance()
	}
}

// fill completes all segments before after as far as they are known, and the
// rest as gaps. What an ingest left open before another one took over is asked
// about first, and nothing is filled.
func (r *rendition) fill(after, ingest uint64) {
	if after-r.next > maxJump {
		// Too much is missing to say anything of it.
		for sequence := range r.drafts {
			if sequence < after {
				delete(r.drafts, sequence)
			}
		}
		clear(r.lost)
		for _, s := range r.media.Segments {
			r.keepSlid(s)
		}
		r.media.Segments, r.media.Open, r.next = nil, nil, after
		r.touch()
		return
	}
	orphaned := r.orphaned(ingest)
	if orphaned && r.media.Open != nil {
		r.asking = r.media.Open
		return
	}
	var each media.Ticks
	if orphaned {
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
		d.giveUp(open, each)
	}
}
