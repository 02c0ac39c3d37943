package fold

import (
	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/jobs"
)

// version is what is known of a segment as one profile makes it. Hot standbys
// with different profiles, and one that sheds the rung beside one that makes
// it, tell of several.
type version struct {
	// writer is the highest epoch that spoke of it.
	writer        jobs.Epoch
	epoch         uint64
	init, profile string
	// first is the entry of part 0, which carries what is known of the segment.
	first   *index.Entry
	segment *index.Entry
	parts   map[int]playlist.Part
}

// note keeps what a part or segment entry says. What another writer said before
// is the same: one profile makes the same bytes.
func (v *version) note(e *index.Entry) (news bool) {
	if v.init == "" {
		v.init = e.Init
	}
	if v.writer.Less(e.Writer) {
		v.writer = e.Writer
	}
	if e.Type == index.TypeSegment {
		if v.segment != nil {
			return false
		}
		v.segment = e
		return true
	}
	if _, known := v.parts[e.Part]; known {
		return false
	}
	v.parts[e.Part] = playlist.Part{
		Epoch: e.Epoch, Profile: e.Profile, Duration: e.Duration, Size: e.Size, Independent: e.Independent,
	}
	if e.Part == 0 {
		v.first = e
	}
	return true
}

// continues reports whether v can go on behind the parts that open lists.
func (v *version) continues(open *playlist.Segment) bool {
	return v.epoch == open.Epoch && (v.init == open.Init || v.init == "")
}

// has reports whether v knows of the part, or of the whole segment.
func (v *version) has(part int) bool {
	_, ok := v.parts[part]
	return ok || v.segment != nil
}
