package playlist

import (
	"strconv"

	"millrace/internal/media"
)

// Append appends the rendered playlist to b.
func (m *Media) Append(b []byte, skip Skip, reports []Report) []byte {
	skipped := m.skippable(skip)
	b = m.appendHeader(b, version(skip, skipped))
	first := m.Open
	if len(m.Segments) > 0 {
		first = m.Segments[0]
	}
	if first == nil {
		return append(b, "0\n"...)
	}
	b = strconv.AppendUint(b, first.Sequence, 10)
	// The first segment keeps its EXT-X-DISCONTINUITY tags as long as it is
	// listed, so they don't count here.
	if before := first.Discontinuity - uint64(first.Breaks); before > 0 {
		b = append(b, "\n#EXT-X-DISCONTINUITY-SEQUENCE:"...)
		b = strconv.AppendUint(b, before, 10)
	}
	b = append(b, '\n')
	b = appendSkip(b, skip, skipped)
	b = m.appendSegments(b, skipped)
	if m.Ended {
		b = append(b, "#EXT-X-ENDLIST\n"...)
	} else if h, ok := m.Hint(); ok {
		b = append(b, `#EXT-X-PRELOAD-HINT:TYPE=PART,URI="`...)
		b = AppendURI(b, h.Epoch, h.Sequence, h.Part, h.Profile)
		b = append(b, "\"\n"...)
	}
	for i := range reports {
		b = appendReport(b, &reports[i])
	}
	return b
}

// appendHeader appends what stands in front of the first segment's sequence number.
func (m *Media) appendHeader(b []byte, version int) []byte {
	target := m.Target()
	b = append(b, "#EXTM3U\n#EXT-X-VERSION:"...)
	b = strconv.AppendInt(b, int64(version), 10)
	b = append(b, "\n#EXT-X-TARGETDURATION:"...)
	b = strconv.AppendInt(b, int64(m.TargetDuration), 10)
	// HOLD-BACK MUST be at least three times the Target Duration,
	// CAN-SKIP-UNTIL at least six times (4.4.3.8).
	b = append(b, "\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL="...)
	b = appendSeconds(b, skipTargets*target, false)
	b = append(b, ",HOLD-BACK="...)
	b = appendSeconds(b, 3*target, false)
	b = append(b, ",PART-HOLD-BACK="...)
	// PART-HOLD-BACK MUST be at least twice the Part Target Duration.
	b = appendSeconds(b, max(m.PartHoldBack, 2*m.PartTarget), true)
	b = append(b, "\n#EXT-X-PART-INF:PART-TARGET="...)
	b = appendSeconds(b, m.PartTarget, true)
	return append(b, "\n#EXT-X-MEDIA-SEQUENCE:"...)
}

// appendSegments appends the segments behind those skipped, and the parts of the
// open one.
func (m *Media) appendSegments(b []byte, skipped int) []byte {
	// EXT-X-PART tags SHOULD be removed from the Playlist after they are
	// greater than three Target Durations from the end of the Playlist (6.2.2).
	partsFrom := m.partsFrom(3 * m.Target())
	init := ""
	if skipped > 0 {
		init = m.Segments[skipped-1].Init
	}
	for i := skipped; i < len(m.Segments); i++ {
		s := m.Segments[i]
		b = m.appendHead(b, s, &init)
		if i >= partsFrom {
			b = m.appendParts(b, s)
		}
		if s.Gap {
			b = append(b, "#EXT-X-GAP\n"...)
		}
		b = append(b, "#EXTINF:"...)
		b = appendSeconds(b, s.Duration, false)
		b = append(b, ",\n"...)
		b = AppendURI(b, s.Epoch, s.Sequence, NoPart, s.Profile)
		b = append(b, '\n')
	}
	if m.Open != nil {
		b = m.appendHead(b, m.Open, &init)
		b = m.appendParts(b, m.Open)
	}
	return b
}

func appendReport(b []byte, r *Report) []byte {
	b = append(b, `#EXT-X-RENDITION-REPORT:URI="../`...)
	b = append(b, r.Rendition...)
	b = append(b, `/index.m3u8",LAST-MSN=`...)
	b = strconv.AppendUint(b, r.Sequence, 10)
	if r.Part != NoPart {
		b = append(b, ",LAST-PART="...)
		b = strconv.AppendInt(b, int64(r.Part), 10)
	}
	return append(b, '\n')
}

// appendHead appends what MUST appear before the first EXT-X-PART tag of a
// segment: EXT-X-DISCONTINUITY, EXT-X-MAP, EXT-X-PROGRAM-DATE-TIME (4.4.4.9).
func (m *Media) appendHead(b []byte, s *Segment, init *string) []byte {
	for range s.Breaks {
		b = append(b, "#EXT-X-DISCONTINUITY\n"...)
	}
	// A gap may not know its init section; the one in force stays.
	if s.Init != *init && s.Init != "" {
		*init = s.Init
		b = append(b, `#EXT-X-MAP:URI="init-`...)
		b = append(b, s.Init...)
		b = append(b, ".mp4\"\n"...)
	}
	b = append(b, "#EXT-X-PROGRAM-DATE-TIME:"...)
	b = s.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	return append(b, '\n')
}

func (m *Media) appendParts(b []byte, s *Segment) []byte {
	for i := range s.Parts {
		p := &s.Parts[i]
		b = append(b, "#EXT-X-PART:DURATION="...)
		// The duration of a Partial Segment MUST be less than or equal to the
		// Part Target Duration (4.4.4.9); AVPlayer stops for good otherwise.
		b = appendSeconds(b, min(p.Duration, m.PartTarget), false)
		b = append(b, `,URI="`...)
		b = AppendURI(b, p.Epoch, s.Sequence, i, p.Profile)
		b = append(b, '"')
		if p.Independent {
			b = append(b, ",INDEPENDENT=YES"...)
		}
		if p.Gap {
			b = append(b, ",GAP=YES"...)
		}
		b = append(b, '\n')
	}
	return b
}

// partsFrom returns the first of Segments that ends nearer than distance to
// the end of the playlist, parts of the open segment included.
func (m *Media) partsFrom(distance media.Ticks) int {
	var after media.Ticks
	if m.Open != nil {
		for i := range m.Open.Parts {
			after += m.Open.Parts[i].Duration
		}
	}
	i := len(m.Segments)
	for i > 0 && after < distance {
		i--
		after += m.Segments[i].Duration
	}
	return i
}

// AppendURI appends the relative address of a segment, or of a part unless
// part is NoPart.
func AppendURI(b []byte, epoch, sequence uint64, part int, profile string) []byte {
	b = strconv.AppendUint(b, epoch, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, sequence, 10)
	if part != NoPart {
		b = append(b, '.')
		b = strconv.AppendInt(b, int64(part), 10)
	}
	b = append(b, '.')
	b = append(b, profile...)
	return append(b, ".m4s"...)
}

// appendSeconds appends t in seconds with five decimals, rounded to the
// nearest, or up where a limit must not fall below what it limits.
func appendSeconds(b []byte, t media.Ticks, up bool) []byte {
	const unit = media.VideoTimescale / 10 // 5 decimals: 100,000 / 90,000 = 10 / 9
	round := media.Ticks(unit / 2)
	if up {
		round = unit - 1
	}
	n := int64((t*10000 + round) / unit)
	b = strconv.AppendInt(b, n/100000, 10)
	b = append(b, '.')
	for frac, div := n%100000, int64(10000); div > 0; div /= 10 {
		b = append(b, byte('0'+frac/div%10))
	}
	return b
}
