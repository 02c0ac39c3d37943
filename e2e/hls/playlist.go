package hls

import (
	"time"
)

// MediaPlaylist is a parsed media playlist that obeys RFC 8216bis as far as one
// playlist alone can show it.
type MediaPlaylist struct {
	Version        int
	TargetDuration int
	// ServerControl and PartInf are the tags' attributes as they stand.
	ServerControl, PartInf string
	CanSkipUntil           float64
	PartHoldBack           float64
	PartTarget             float64
	MediaSequence          uint64
	DiscontinuitySequence  uint64
	// Skipped is how many segments EXT-X-SKIP stands for.
	Skipped int
	// Segments follow the skipped ones; only the last may be open.
	Segments []ListedSegment
	// Hint is the URI of the preload hint, empty without one.
	Hint    string
	Reports []RenditionReport
	Ended   bool
}

// ListedSegment is a segment of a playlist.
type ListedSegment struct {
	Sequence uint64
	// Discontinuity is its discontinuity sequence number, Breaks the number of
	// EXT-X-DISCONTINUITY tags before it.
	Discontinuity uint64
	Breaks        int
	// Map is the URI of the init section in force.
	Map      string
	Time     time.Time
	Gap      bool
	Duration float64
	// URI is empty while the segment is open.
	URI   string
	Parts []ListedPart
}

// Open reports whether the segment isn't finished.
func (s *ListedSegment) Open() bool { return s.URI == "" }

// ListedPart is an EXT-X-PART.
type ListedPart struct {
	URI         string
	Duration    float64
	Independent bool
	Gap         bool
}

// RenditionReport is an EXT-X-RENDITION-REPORT. Part is -1 without LAST-PART.
type RenditionReport struct {
	URI      string
	Sequence uint64
	Part     int
}

// last is the position of the newest segment or, with its number, part; part is
// -1 for a segment without parts.
func (m *MediaPlaylist) last() (sequence uint64, part int) {
	if len(m.Segments) == 0 {
		return 0, -1
	}
	s := &m.Segments[len(m.Segments)-1]
	return s.Sequence, len(s.Parts) - 1
}

// Next is the position that a low-latency player asks for next.
func (m *MediaPlaylist) Next() (sequence uint64, part int) {
	if len(m.Segments) == 0 {
		return m.MediaSequence, 0
	}
	s := &m.Segments[len(m.Segments)-1]
	if s.Open() {
		return s.Sequence, len(s.Parts)
	}
	return s.Sequence + 1, 0
}

// has reports whether a position is listed.
func (m *MediaPlaylist) has(sequence uint64, part int) bool {
	last, parts := m.last()
	if len(m.Segments) == 0 || sequence > last {
		return false
	}
	if sequence < last {
		return true
	}
	return part <= parts || !m.Segments[len(m.Segments)-1].Open() && parts < 0
}

// Find returns a listed segment, or nil.
func (m *MediaPlaylist) Find(sequence uint64) *ListedSegment {
	for i := range m.Segments {
		if m.Segments[i].Sequence == sequence {
			return &m.Segments[i]
		}
	}
	return nil
}

// paused reports whether the publisher is away: no part can be promised then.
// The grace period before the end of each broadcast is such a time.
func (m *MediaPlaylist) paused() bool { return m.Hint == "" && !m.Ended && len(m.Segments) > 0 }
