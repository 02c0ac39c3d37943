package fold

import (
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

const (
	// maxVersions bounds the versions kept of one unfinished segment.
	maxVersions = 4
	// lagPatience is how long the version in charge may say nothing while another
	// one could go on, or is whole but needs another init section. Players at the
	// live edge have about 1.2 s.
	lagPatience = 500 * time.Millisecond
)

// draft is a segment that isn't shown complete yet.
type draft struct {
	// writer is the highest epoch that spoke of it.
	writer   jobs.Epoch
	versions []*version
	gap      *index.Entry
	// favoured goes before the version of the highest epoch; nil: none does.
	favoured *version
}

// find returns the version that e tells of, nil for none.
func (d *draft) find(e *index.Entry) *version {
	for _, v := range d.versions {
		if v.epoch == e.Epoch && v.profile == e.Profile && (v.init == e.Init || v.init == "" || e.Init == "") {
			return v
		}
	}
	return nil
}

// note keeps what a part, segment or gap entry says. It reports whether that
// is new.
func (d *draft) note(e *index.Entry) (news bool, why Refusal) {
	v := d.find(e)
	switch {
	case e.Type == index.TypeGap:
		if e.Writer.Less(d.writer) {
			return false, RefusedStale
		}
	case e.Writer.Lease < d.writer.Lease && (v == nil || v.writer.Lease < d.writer.Lease):
		// A lower lease is heard only where it says what a higher one says too.
		// Workers under one lease read the same log, and may both be at work.
		return false, RefusedStale
	case v == nil && len(d.versions) >= maxVersions:
		return false, RefusedTooMany
	}
	if d.writer.Less(e.Writer) {
		d.writer = e.Writer
	}
	kept := *e
	if e.Type == index.TypeGap {
		if d.complete() {
			return false, accepted
		}
		d.gap = &kept
		return true, accepted
	}
	if v == nil {
		v = &version{epoch: e.Epoch, profile: e.Profile, parts: make(map[int]playlist.Part)}
		d.versions = append(d.versions, v)
	}
	return v.note(&kept), accepted
}

// told returns the entry that says most of the segment, nil for none.
func (d *draft) told() *index.Entry {
	if v := d.whole(nil); v != nil {
		return v.segment
	}
	if v := d.pick(nil); v != nil {
		return v.first
	}
	return nil
}

// epoch returns the ingest's epoch of what is known of the segment, 0 for a gap.
func (d *draft) epoch() uint64 {
	if d == nil {
		return 0
	}
	if e := d.told(); e != nil {
		return e.Epoch
	}
	return 0
}

// complete reports whether the segment is told whole, or to be a gap.
func (d *draft) complete() bool { return d.gap != nil || d.whole(nil) != nil }

func (d *draft) showable() bool { return d.gap != nil || d.told() != nil }

// pick returns the version to go on with, behind the parts that open lists: that
// of the highest epoch among those of the same init section, since EXT-X-MAP
// applies to a whole segment. Where nothing is listed, it is one whose first part
// is known.
func (d *draft) pick(open *playlist.Segment) *version {
	if d.favoured != nil {
		return d.favoured
	}
	var best *version
	for _, v := range d.versions {
		if open == nil && v.first == nil || open != nil && !v.continues(open) {
			continue
		}
		if best == nil || best.writer.Less(v.writer) {
			best = v
		}
	}
	return best
}

// whole returns a version that is told whole and can complete what open lists,
// that of the highest epoch.
func (d *draft) whole(open *playlist.Segment) (whole *version) {
	for _, v := range d.versions {
		if v.segment != nil && (open == nil || v.continues(open)) && (whole == nil || whole.writer.Less(v.writer)) {
			whole = v
		}
	}
	return whole
}

// completion returns the entry that completes the segment, nil while there is none.
// Where parts are listed already and others weren't told, they are waited for (see
// endLag): a segment known from Redis comes without its parts, and those that are
// listed would have to go.
func (d *draft) completion(open *playlist.Segment) *index.Entry {
	v := d.pick(open)
	switch {
	case v == nil || v.segment == nil:
		return d.gap
	case open != nil && v != d.favoured && len(v.parts) < v.segment.Parts:
		return nil
	}
	return v.segment
}

// rival returns a version that has what comes behind open, which the one in
// charge hasn't. Where none continues open, it is one that is told whole; then
// mixes is set.
func (d *draft) rival(open *playlist.Segment) (rival *version, mixes bool) {
	if d == nil || open == nil {
		return nil, false
	}
	for _, v := range d.versions {
		if v.continues(open) && v.has(len(open.Parts)) && (rival == nil || rival.writer.Less(v.writer)) {
			rival = v
		}
	}
	if rival == nil {
		rival = d.whole(nil)
		mixes = rival != nil
	}
	return rival, mixes
}

// giveUp ends the wait for the rest of the segment. It is completed with what is
// known: as a version that is whole, else as a gap of the length that such a
// version has, or lasting so long.
func (d *draft) giveUp(open *playlist.Segment, lasting media.Ticks) {
	if d.completion(open) != nil {
		return
	}
	if v := d.whole(open); v != nil {
		d.favoured = v
		return
	}
	// A Server MUST NOT change a Media Playlist but by appending to it (6.2.1),
	// and hls.js keeps the init section under which it saw a segment first. So
	// what is listed stays, and what is missing behind it is listed as missing:
	// players go on with another rendition.
	d.gap = &index.Entry{Type: index.TypeGap, Duration: lasting}
	if v := d.whole(nil); v != nil {
		d.gap.Duration = v.segment.Duration
	}
}
