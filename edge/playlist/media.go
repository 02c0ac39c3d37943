// Package playlist renders HLS playlists from what is known of a broadcast
// (RFC 8216bis). It does no I/O and keeps no state: the same values always
// give the same bytes.
package playlist

import (
	"time"

	"millrace/internal/media"
)

// NoPart stands for "the whole segment" where a part's number is expected.
const NoPart = -1

// Part is one EXT-X-PART.
type Part struct {
	// Epoch and Profile are part of the resource's name.
	Epoch   uint64
	Profile string
	// Duration is at most the part target.
	Duration media.Ticks
	// Size is in bytes, 0 where unknown.
	Size int
	// Independent is set when decoding can start at the first frame.
	Independent bool
	// Gap is set when the part is missing for good.
	Gap bool
}

// Segment is one media segment. A segment in a [Media] is never changed.
type Segment struct {
	Sequence uint64
	// Epoch and Profile are part of the resource's name.
	Epoch   uint64
	Profile string
	// Init is the hash of the init section that it needs.
	Init     string
	Duration media.Ticks
	// Size is in bytes, 0 where unknown.
	Size int
	// Frames is how many pictures it has, 0 where unknown.
	Frames int
	// Time is its program date-time.
	Time time.Time
	// Discontinuity is its discontinuity sequence number, Breaks how much that
	// is above the number of the segment before it: so many EXT-X-DISCONTINUITY
	// tags stand in front.
	Discontinuity uint64
	Breaks        int
	// Gap is set when the segment is missing for good.
	Gap bool
	// Parts are all parts of a complete segment, or none where they aren't
	// known; those that exist of an unfinished one.
	Parts []Part
}

// Settings are the same in all media playlists of a broadcast and never change.
type Settings struct {
	// TargetDuration is in seconds.
	TargetDuration int
	// PartTarget is the longest part.
	PartTarget media.Ticks
	// PartHoldBack is how far from the end a low-latency player stays.
	PartHoldBack media.Ticks
}

// Target is the target duration as media time.
func (s Settings) Target() media.Ticks { return media.Ticks(s.TargetDuration) * media.VideoTimescale }

// Media is what a media playlist shows at one moment. It is immutable.
type Media struct {
	Settings
	// Segments are complete; their sequence numbers have no holes.
	Segments []*Segment
	// Open is the unfinished segment, which follows Segments and has at least
	// one part; nil when there is none.
	Open *Segment
	// Paused is set while no part is to be expected.
	Paused bool
	// Ended is set when nothing will be added.
	Ended bool
}

// Last returns the position of the newest part, or of the newest segment, then
// with NoPart, where that segment's parts aren't known. ok is false for an
// empty playlist.
func (m *Media) Last() (sequence uint64, part int, ok bool) {
	if m.Open != nil {
		return m.Open.Sequence, len(m.Open.Parts) - 1, true
	}
	if n := len(m.Segments); n > 0 {
		s := m.Segments[n-1]
		return s.Sequence, len(s.Parts) - 1, true
	}
	return 0, NoPart, false
}

// Find returns a segment by its sequence number, or nil.
func (m *Media) Find(sequence uint64) *Segment {
	if m.Open != nil && m.Open.Sequence == sequence {
		return m.Open
	}
	if len(m.Segments) == 0 || sequence < m.Segments[0].Sequence {
		return nil
	}
	if i := sequence - m.Segments[0].Sequence; i < uint64(len(m.Segments)) {
		return m.Segments[i]
	}
	return nil
}

// next is the sequence number after the last complete segment.
func (m *Media) next() uint64 {
	if n := len(m.Segments); n > 0 {
		return m.Segments[n-1].Sequence + 1
	}
	if m.Open != nil {
		return m.Open.Sequence
	}
	return 0
}

// Has reports whether the playlist contains what a blocking request with
// _HLS_msn=sequence waits for, or with _HLS_part=part unless that is NoPart
// (RFC 8216bis, 6.2.5.2).
func (m *Media) Has(sequence uint64, part int) bool {
	if len(m.Segments) == 0 && m.Open == nil {
		return false
	}
	next := m.next()
	if part == NoPart {
		return sequence < next
	}
	if sequence < next {
		// If the Client requests a Part Index greater than that of the final
		// Partial Segment of the Parent Segment, the Server MUST treat the
		// request as one for Part Index 0 of the following Parent Segment.
		if s := m.Find(sequence); sequence+1 < next || s == nil || len(s.Parts) == 0 || part < len(s.Parts) {
			return true
		}
		return m.Open != nil
	}
	return m.Open != nil && (sequence < m.Open.Sequence || sequence == m.Open.Sequence && part < len(m.Open.Parts))
}

// TooFar reports whether a blocking request is for something so far ahead that
// it is answered with 400 (RFC 8216bis, 6.2.5.2).
func (m *Media) TooFar(sequence uint64, part int) bool {
	// If the _HLS_msn is greater than the Media Sequence Number of the last
	// Media Segment in the current Playlist plus two ... the server SHOULD
	// immediately return Bad Request. The last one is next-1.
	next := m.next()
	if sequence > next+1 {
		return true
	}
	if part == NoPart || sequence < next {
		return false
	}
	known := 0
	if m.Open != nil && m.Open.Sequence == sequence {
		known = len(m.Open.Parts)
	}
	// The Advance Part Limit is three divided by the Part Target Duration if
	// the Part Target Duration is less than one second, or three otherwise.
	limit := 3
	if m.PartTarget > 0 && m.PartTarget < media.VideoTimescale {
		limit = int((3*media.VideoTimescale + m.PartTarget - 1) / m.PartTarget)
	}
	return part > known-1+limit
}

// Hint is the name of the part that is expected next.
type Hint struct {
	Sequence uint64
	Part     int
	Epoch    uint64
	Profile  string
}

// Hint returns what EXT-X-PRELOAD-HINT names. ok is false at the end, in a
// pause and where no part is known to guess from.
func (m *Media) Hint() (h Hint, ok bool) {
	// A Playlist containing an EXT-X-ENDLIST tag MUST NOT contain an
	// EXT-X-PRELOAD-HINT tag (4.4.5.3).
	if m.Ended || m.Paused {
		return Hint{}, false
	}
	s := m.Open
	if s == nil {
		if len(m.Segments) == 0 {
			return Hint{}, false
		}
		s = m.Segments[len(m.Segments)-1]
	}
	if len(s.Parts) == 0 {
		return Hint{}, false
	}
	last := s.Parts[len(s.Parts)-1]
	if last.Gap {
		return Hint{}, false
	}
	h = Hint{Sequence: s.Sequence, Part: len(s.Parts), Epoch: last.Epoch, Profile: last.Profile}
	if m.Open == nil {
		h.Sequence, h.Part = s.Sequence+1, 0
	}
	return h, true
}

// Report tells how far another rendition's playlist has come.
type Report struct {
	Rendition string
	Sequence  uint64
	// Part is NoPart where the rendition's newest segment has no known parts.
	Part int
}
