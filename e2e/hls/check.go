package hls

import (
	"errors"
	"fmt"
	"math"
	"reflect"
)

// rounding is what a duration in a playlist may be off: five decimals.
const rounding = 0.000011

// check looks at what needs the whole playlist.
func (m *MediaPlaylist) check() error {
	if m.Version < 9 {
		return fmt.Errorf("EXT-X-VERSION %d, want 9 or more", m.Version)
	}
	if m.TargetDuration < 1 || m.PartTarget <= 0 {
		return errors.New("no target duration or no part target")
	}
	if m.PartHoldBack < 2*m.PartTarget {
		return fmt.Errorf("PART-HOLD-BACK %g is less than two part targets of %g", m.PartHoldBack, m.PartTarget)
	}
	if m.Ended && m.Hint != "" {
		return errors.New("a preload hint after the end")
	}
	uris := make(map[string]bool)
	for i := range m.Segments {
		s := &m.Segments[i]
		if err := m.checkSegment(s); err != nil {
			return fmt.Errorf("segment %d: %w", s.Sequence, err)
		}
		for _, p := range s.Parts {
			if uris[p.URI] {
				return fmt.Errorf("segment %d: %s is listed twice", s.Sequence, p.URI)
			}
			uris[p.URI] = true
		}
		if i > 0 && s.Time.Before(m.Segments[i-1].Time) {
			return fmt.Errorf("segment %d: its program date-time goes back", s.Sequence)
		}
	}
	if uris[m.Hint] {
		return fmt.Errorf("the hinted part %s is listed", m.Hint)
	}
	return nil
}

func (m *MediaPlaylist) checkSegment(s *ListedSegment) error {
	if !s.Open() && int(math.Round(s.Duration)) > m.TargetDuration {
		return fmt.Errorf("EXTINF %g rounds to more than the target duration %d", s.Duration, m.TargetDuration)
	}
	sum := 0.0
	for i, p := range s.Parts {
		sum += p.Duration
		if p.Duration <= 0 || p.Duration > m.PartTarget {
			return fmt.Errorf("part %d: %g s, the part target is %g", i, p.Duration, m.PartTarget)
		}
		// "at least 85% of the Part Target Duration, with the exception of
		// Partial Segments with the INDEPENDENT=YES attribute and the final
		// Partial Segment of any Parent Segment" (4.4.4.9). Of an open segment
		// the newest part may be the final one.
		if p.Duration < 0.85*m.PartTarget && !p.Independent && i < len(s.Parts)-1 && !s.Parts[i+1].Gap {
			return fmt.Errorf("part %d: %g s is less than 85 %% of the part target %g", i, p.Duration, m.PartTarget)
		}
	}
	if !s.Open() && len(s.Parts) > 0 && math.Abs(sum-s.Duration) > rounding*float64(len(s.Parts)+1) {
		return fmt.Errorf("its parts sum up to %g, EXTINF says %g", sum, s.Duration)
	}
	return nil
}

// CheckSuccessor checks that a playlist may follow another of the same
// rendition: what was listed doesn't change, nothing goes back.
func CheckSuccessor(before, after *MediaPlaylist) error {
	for _, v := range []struct {
		name          string
		before, after any
	}{
		{"EXT-X-TARGETDURATION", before.TargetDuration, after.TargetDuration},
		{"EXT-X-SERVER-CONTROL", before.ServerControl, after.ServerControl},
		{"EXT-X-PART-INF", before.PartInf, after.PartInf},
	} {
		if v.before != v.after {
			return fmt.Errorf("%s changed from %v to %v", v.name, v.before, v.after)
		}
	}
	if after.MediaSequence < before.MediaSequence || after.DiscontinuitySequence < before.DiscontinuitySequence {
		return fmt.Errorf("EXT-X-MEDIA-SEQUENCE or EXT-X-DISCONTINUITY-SEQUENCE went back: %d to %d, %d to %d",
			before.MediaSequence, after.MediaSequence, before.DiscontinuitySequence, after.DiscontinuitySequence)
	}
	lastBefore, partBefore := before.last()
	if lastAfter, partAfter := after.last(); len(before.Segments) > 0 && (lastAfter < lastBefore || lastAfter == lastBefore && partAfter < partBefore) {
		return fmt.Errorf("the end went back from %d.%d to %d.%d", lastBefore, partBefore, lastAfter, partAfter)
	}
	if before.Ended && !reflect.DeepEqual(before, after) {
		return errors.New("the playlist changed after its end")
	}
	for i := range before.Segments {
		old := &before.Segments[i]
		s := after.Find(old.Sequence)
		if s == nil {
			if old.Sequence >= after.MediaSequence {
				return fmt.Errorf("segment %d is gone", old.Sequence)
			}
			continue
		}
		if err := checkSame(old, s); err != nil {
			return fmt.Errorf("segment %d changed: %w", s.Sequence, err)
		}
	}
	if removed := after.MediaSequence - before.MediaSequence; removed > 0 {
		total := 0.0
		for i := range after.Segments {
			total += after.Segments[i].Duration
		}
		if total < 3*float64(after.TargetDuration) {
			return fmt.Errorf("segments were removed and %g s are left, which is less than three target durations", total)
		}
	}
	return nil
}

// checkSame checks that a segment only grew, or lost its parts as a whole.
func checkSame(before, after *ListedSegment) error {
	if before.Discontinuity != after.Discontinuity || before.Breaks != after.Breaks || before.Map != after.Map || !before.Time.Equal(after.Time) {
		return fmt.Errorf("discontinuity, map or time: %+v, then %+v", *before, *after)
	}
	if !before.Open() && (before.URI != after.URI || before.Duration != after.Duration || before.Gap != after.Gap) {
		return fmt.Errorf("%s of %g s, then %s of %g s", before.URI, before.Duration, after.URI, after.Duration)
	}
	if len(after.Parts) == 0 {
		if before.Open() && len(before.Parts) > 0 {
			return errors.New("its parts went before they were complete")
		}
		return nil
	}
	if len(after.Parts) < len(before.Parts) {
		return fmt.Errorf("%d parts, then %d", len(before.Parts), len(after.Parts))
	}
	for i := range before.Parts {
		if before.Parts[i] != after.Parts[i] {
			return fmt.Errorf("part %d: %+v, then %+v", i, before.Parts[i], after.Parts[i])
		}
	}
	return nil
}

// merge applies a delta update to the playlist before it (6.2.5.1).
func (m *MediaPlaylist) merge(before *MediaPlaylist) (*MediaPlaylist, error) {
	if m.Skipped == 0 {
		return m, nil
	}
	whole := *m
	whole.Skipped = 0
	whole.Segments = nil
	breaks := m.DiscontinuitySequence
	mapURI := ""
	for i := range m.Skipped {
		s := before.Find(m.MediaSequence + uint64(i))
		if s == nil || s.Open() {
			return nil, fmt.Errorf("EXT-X-SKIP stands for segment %d, which the playlist before doesn't have", m.MediaSequence+uint64(i))
		}
		old := *s
		old.Parts = nil
		whole.Segments = append(whole.Segments, old)
		breaks += uint64(old.Breaks)
		mapURI = old.Map
	}
	for _, s := range m.Segments {
		breaks += uint64(s.Breaks)
		s.Discontinuity = breaks
		if s.Map == "" {
			s.Map = mapURI
		}
		mapURI = s.Map
		whole.Segments = append(whole.Segments, s)
	}
	return &whole, nil
}

// checkMerged checks that a merged delta update says what the full playlist says.
func checkMerged(merged, full *MediaPlaylist) error {
	a, b := *merged, *full
	a.Version, b.Version = 0, 0
	a.Segments, b.Segments = nil, nil
	a.Reports, b.Reports = nil, nil // of another moment
	if !reflect.DeepEqual(a, b) {
		return fmt.Errorf("the delta update gives %+v, the full playlist %+v", a, b)
	}
	if len(merged.Segments) != len(full.Segments) {
		return fmt.Errorf("the delta update gives %d segments, the full playlist %d", len(merged.Segments), len(full.Segments))
	}
	for i := range merged.Segments {
		a, b := merged.Segments[i], full.Segments[i]
		if len(a.Parts) == 0 && !a.Open() {
			b.Parts = nil
		}
		if !reflect.DeepEqual(a, b) {
			return fmt.Errorf("the delta update gives %+v, the full playlist %+v", a, b)
		}
	}
	return nil
}
