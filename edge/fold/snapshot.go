package fold

import (
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/media"
)

// Snapshot is what is known of a broadcast at one moment. It is immutable.
type Snapshot struct {
	// Settings are nil until the broadcast entry is there.
	Settings *index.Broadcast
	// Renditions stand in the order in which they were first heard of.
	Renditions []*Rendition
	// Ended is set when no rendition will grow any more.
	Ended bool
}

// Rendition is what is known of a rendition at one moment. It is immutable.
type Rendition struct {
	playlist.Media
	// Info is what was told of it; the frame rate is the one measured, once it is.
	Info index.Rendition
	// Slid are the segments that were listed before Segments, for as long as players
	// may ask for them; their sequence numbers have no holes.
	Slid []*playlist.Segment
	// Inits are, by hash, the init sections that were told of.
	Inits map[string]Init
	// Peak and Average are in bits a second, Average 0 until measured.
	Peak, Average int

	revision uint64
}

// Init is what is known of an init section.
type Init struct {
	// Size is in bytes, 0 where unknown.
	Size int
	// Epochs are the ingest epochs under which it may lie in S3, the newest first.
	Epochs []uint64
}

// Snapshot returns what is known now. A rendition that hasn't changed since the
// snapshot before is the same value as there; where nothing has changed, it
// returns that snapshot. before is nil for the first one.
func (f *Fold) Snapshot(before *Snapshot) *Snapshot {
	if before == nil {
		before = &Snapshot{}
	}
	if f.unchanged(before) {
		return before
	}
	s := &Snapshot{Settings: f.settings, Ended: f.Ended(), Renditions: make([]*Rendition, len(f.renditions))}
	for i, r := range f.renditions {
		if i < len(before.Renditions) && before.Renditions[i].revision == r.revision {
			s.Renditions[i] = before.Renditions[i]
			continue
		}
		s.Renditions[i] = r.snapshot()
	}
	return s
}

// unchanged reports whether before shows what is to be shown now: nothing new
// before Begin, and without settings no more than the end.
func (f *Fold) unchanged(before *Snapshot) bool {
	ended := f.Ended()
	if !f.begun || f.settings == nil && !ended {
		return true
	}
	if f.settings != before.Settings || ended != before.Ended || len(f.renditions) != len(before.Renditions) {
		return false
	}
	for i, r := range f.renditions {
		if r.revision != before.Renditions[i].revision {
			return false
		}
	}
	return true
}

func (r *rendition) snapshot() *Rendition {
	s := &Rendition{Media: r.media, Info: r.info, Inits: r.inits, revision: r.revision}
	s.Slid = r.slid[:len(r.slid):len(r.slid)]
	s.Segments = s.Segments[:len(s.Segments):len(s.Segments)]
	s.Peak, s.Average = r.rates.bitrate(r.info.MaxBitrate)
	s.Info.FrameRate = r.rates.frameRate(r.info.FrameRate)
	return s
}

// Find returns the rendition of that name, nil for none.
func (s *Snapshot) Find(name string) *Rendition {
	for _, r := range s.Renditions {
		if r.Info.Name == name {
			return r
		}
	}
	return nil
}

// Lists reports whether the broadcast entry lists a rendition of that name.
// known is false while there is none.
func (s *Snapshot) Lists(name string) (listed, known bool) {
	if s.Settings == nil {
		return false, false
	}
	for i := range s.Settings.Renditions {
		if s.Settings.Renditions[i].Name == name {
			return true, true
		}
	}
	return false, true
}

// Ready reports whether a player could start with the rendition.
func (r *Rendition) Ready() bool {
	s := r.Open
	if s == nil {
		if len(r.Segments) == 0 {
			return false
		}
		s = r.Segments[len(r.Segments)-1]
	}
	return s.Init != "" && r.Info.Codec != ""
}

// Segment returns the complete segment that a names, nil unless it is listed, or was
// listed no longer ago than players may ask for it.
func (r *Rendition) Segment(a *Address) *playlist.Segment {
	s := r.Media.Find(a.Sequence)
	if n := len(r.Slid); s == nil && n > 0 && a.Sequence >= r.Slid[0].Sequence {
		if i := a.Sequence - r.Slid[0].Sequence; i < uint64(n) {
			s = r.Slid[i]
		}
	}
	if s == nil || s == r.Open || s.Gap || s.Epoch != a.Epoch || s.Profile != a.Profile {
		return nil
	}
	return s
}

// Precedes reports whether a may name a segment of the last window that this fold was
// never told of: before the first one that is listed, while playlists are shorter than that.
func (r *Rendition) Precedes(a *Address, window time.Duration) bool {
	n := len(r.Segments)
	if n == 0 || len(r.Slid) > 0 || a.Sequence >= r.Segments[0].Sequence || a.Epoch > r.Segments[0].Epoch {
		return false
	}
	listed := media.Ticks(0)
	for _, s := range r.Segments {
		listed += s.Duration
	}
	missing := media.TicksOf(window) - listed
	return missing > 0 && r.Segments[0].Sequence-a.Sequence <= uint64(missing*media.Ticks(n)/max(listed, 1))
}

// Part returns the part that a names, nil unless it exists.
func (r *Rendition) Part(a *Address) *playlist.Part {
	s := r.Media.Find(a.Sequence)
	if s == nil || a.Part >= len(s.Parts) {
		return nil
	}
	p := &s.Parts[a.Part]
	if p.Gap || p.Epoch != a.Epoch || p.Profile != a.Profile {
		return nil
	}
	return p
}

// Awaits reports whether a names the part that is expected next, or the one
// after: another edge that is a little ahead may have hinted that.
func (r *Rendition) Awaits(a *Address) bool {
	h, ok := r.Hint()
	if !ok {
		// A part hinted before a pause may come after it: the next segment's
		// first, or one of a rendition that isn't yet where the log ended.
		last, part, known := r.Last()
		return known && r.Paused && !r.Ended && (a.Sequence == last+1 && a.Part == 0 || r.Open != nil && a.Sequence == last && a.Part == part+1)
	}
	if h.Epoch != a.Epoch || h.Profile != a.Profile {
		return false
	}
	return a.Sequence == h.Sequence && (a.Part == h.Part || a.Part == h.Part+1) ||
		a.Sequence == h.Sequence+1 && a.Part == 0
}

// Listable reports whether the multivariant playlist can be shown: complete
// when every rendition is ready, playable when those that are ready make a
// picture and sound, or sound where there is no picture, in formats that every
// player can play unless no such rendition is to come.
func (s *Snapshot) Listable() (complete, playable bool) {
	if s.Settings == nil || len(s.Settings.Renditions) == 0 {
		return false, false
	}
	complete = true
	var wanted, got needs
	for i := range s.Settings.Renditions {
		info := &s.Settings.Renditions[i]
		wanted.add(info)
		if r := s.Find(info.Name); r != nil && r.Ready() {
			got.add(info)
		} else {
			complete = false
		}
	}
	return complete, wanted == got
}

// needs are the kinds of media that a playlist must offer, each with two bits:
// that there is some, and that every player can play some.
type needs uint64

func (n *needs) add(info *index.Rendition) {
	*n |= 1 << (2 * info.Kind)
	if universal(info.Codec) {
		*n |= 2 << (2 * info.Kind)
	}
}

// Segmented reports whether some, and whether every rendition that is ready has
// a complete segment.
func (s *Snapshot) Segmented() (some, every bool) {
	every = true
	for _, r := range s.Renditions {
		if !r.Ready() {
			continue
		}
		if len(r.Segments) > 0 {
			some = true
		} else {
			every = false
		}
	}
	return some, every
}

// Reports tells how far the listed renditions but the one of that name have come.
func (s *Snapshot) Reports(except string) []playlist.Report {
	if s.Settings == nil {
		return nil
	}
	reports := make([]playlist.Report, 0, len(s.Settings.Renditions))
	for _, info := range s.Settings.Renditions {
		other := s.Find(info.Name)
		if info.Name == except || other == nil {
			continue
		}
		if sequence, part, ok := other.Last(); ok {
			reports = append(reports, playlist.Report{Rendition: info.Name, Sequence: sequence, Part: part})
		}
	}
	return reports
}
