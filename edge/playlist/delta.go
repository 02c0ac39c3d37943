package playlist

import (
	"strconv"

	"millrace/internal/media"
)

// Skip is the value of the _HLS_skip directive.
type Skip uint8

// The delta updates that a client can ask for (RFC 8216bis, 6.2.5.1).
const (
	// SkipNone asks for the whole playlist.
	SkipNone Skip = iota
	// SkipYes asks for the older segments to be left out.
	SkipYes
	// SkipV2 asks for older date ranges to be left out too. Millrace has none.
	SkipV2
	// Flavours is how many kinds of rendering there are.
	Flavours
)

// skipTargets is CAN-SKIP-UNTIL in target durations: the least that is allowed.
const skipTargets = 6

// skippable returns how many segments EXT-X-SKIP stands for: those further
// from the end of the last segment than the skip boundary. 0 means that the
// whole playlist is rendered.
func (m *Media) skippable(skip Skip) int {
	// A Server MUST ignore the _HLS_skip directive if the Playlist contains an
	// EXT-X-ENDLIST tag.
	if skip == SkipNone || m.Ended {
		return 0
	}
	boundary := skipTargets * m.Target()
	var after media.Ticks
	i := len(m.Segments)
	for i > 0 && after <= boundary {
		i--
		after += m.Segments[i].Duration
	}
	return i
}

// version is the EXT-X-VERSION that the tags need: 9 for EXT-X-SKIP, 10 for
// one with RECENTLY-REMOVED-DATERANGES (RFC 8216bis, 8).
func version(skip Skip, skipped int) int {
	if skip == SkipV2 && skipped > 0 {
		return 10
	}
	return 9
}

func appendSkip(b []byte, skip Skip, skipped int) []byte {
	if skipped == 0 {
		return b
	}
	b = append(b, "#EXT-X-SKIP:SKIPPED-SEGMENTS="...)
	b = strconv.AppendInt(b, int64(skipped), 10)
	// RECENTLY-REMOVED-DATERANGES is REQUIRED if the Client requested an
	// update that skips EXT-X-DATERANGE tags; it MAY be empty (4.4.5.2).
	if skip == SkipV2 {
		b = append(b, `,RECENTLY-REMOVED-DATERANGES=""`...)
	}
	return append(b, '\n')
}
