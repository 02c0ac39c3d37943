package fold

import (
	"maps"
	"slices"
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/media"
)

// rendition is the state of one rendition.
type rendition struct {
	info index.Rendition
	// listed is set for renditions of the broadcast entry.
	listed bool
	// media is what playlists show, slid the segments that they showed before, for as long as
	// players may ask for them, without their parts.
	media playlist.Media
	slid  []*playlist.Segment
	// next is the sequence of the segment to complete next; valid once based.
	next  uint64
	based bool
	// drafts are the segments from next on, as far as they are known.
	drafts map[uint64]*draft
	// lost are listed segments of which a worker told later that it couldn't
	// store them.
	lost map[uint64]bool
	// inits are, by hash, the init sections that were told of. Snapshots share the
	// map: a change makes a new one.
	inits map[string]Init
	// begin is the broadcast's start.
	begin time.Time
	// stalled is since when entries past a hole wait for it, lagging since when
	// a rival version waits to go on with the open segment.
	stalled, lagging time.Time
	// asking is the open segment while it is asked whether it can be served as
	// it stands.
	asking *playlist.Segment
	// rates are measured over the complete segments that are listed.
	rates rates
	// revision rises with each change of what snapshots show.
	revision uint64
}

// touch notes that what snapshots show of the rendition has changed.
func (r *rendition) touch() { r.revision++ }

// introduce takes what the broadcast entry says of a rendition that media was
// told of before. An init section that came first knows better.
func (r *rendition) introduce(info index.Rendition) {
	if r.info.Codec != "" {
		info.Codec = r.info.Codec
		if r.info.Width > 0 {
			info.Width, info.Height = r.info.Width, r.info.Height
		}
	}
	r.info = info
}

// draftFor returns the draft that an entry of media is noted in.
func (r *rendition) draftFor(e *index.Entry) (*draft, Refusal) {
	d := r.drafts[e.Sequence]
	if shown := r.media.Open != nil && r.media.Open.Sequence == e.Sequence; d.epoch() != 0 && d.epoch() < e.Epoch && !shown {
		delete(r.drafts, e.Sequence)
		d = nil
	}
	if d == nil {
		if len(r.drafts) >= maxDrafts {
			return nil, RefusedTooMany
		}
		d = &draft{}
		r.drafts[e.Sequence] = d
	}
	return d, accepted
}

// base chooses the segment that the playlist begins with: the first of the newest
// run of drafts without a hole.
func (r *rendition) base() {
	known := slices.Sorted(maps.Keys(r.drafts))
	i := len(known) - 1
	for i >= 0 && !r.drafts[known[i]].showable() {
		i--
	}
	if i < 0 {
		return
	}
	for i > 0 && r.joins(known[i-1], known[i]) {
		i--
	}
	for _, old := range known[:i] {
		delete(r.drafts, old)
	}
	r.next, r.based = known[i], true
}

// joins reports whether the draft of segment before can be listed in front of that
// of segment after: it is whole and next to it, or another ingest went on after
// it; then what lies between is filled.
func (r *rendition) joins(before, after uint64) bool {
	a, b := r.drafts[before], r.drafts[after]
	if before+1 == after && a.complete() {
		return true
	}
	return a.showable() && a.epoch() != 0 && a.epoch() < b.epoch() && after-before <= maxJump
}

// endHere ends the rendition behind what is listed.
func (r *rendition) endHere() {
	clear(r.drafts)
	r.media.Ended = true
	r.touch()
}

func (r *rendition) advance() {
	for {
		d := r.drafts[r.next]
		if d == nil {
			return
		}
		if r.media.Open == nil {
			d.favoured = d.whole(nil) // then no other one is waited for
		}
		// A segment's last part and its EXTINF appear in one step.
		r.showParts(d)
		e := d.completion(r.media.Open)
		if e == nil {
			return
		}
		r.complete(e)
	}
}

// showParts makes the draft's parts up to the first missing one the open segment.
func (r *rendition) showParts(d *draft) {
	v := d.pick(r.media.Open)
	if v == nil || r.media.Open == nil && v.first == nil {
		return
	}
	shown := 0
	var parts []playlist.Part
	if r.media.Open != nil {
		parts = r.media.Open.Parts
		shown = len(parts)
	}
	for {
		p, ok := v.parts[len(parts)]
		if !ok {
			break
		}
		parts = append(parts, p)
	}
	if len(parts) == shown {
		return
	}
	var open playlist.Segment
	if r.media.Open != nil {
		open = *r.media.Open
	} else {
		open = r.head(v.first)
	}
	open.Parts = parts
	r.media.Open = &open
	r.lagging = time.Time{}
	r.touch()
}

// head starts a segment from the first entry that told of it. What the entry
// leaves out follows from the segment before.
func (r *rendition) head(e *index.Entry) playlist.Segment {
	s := playlist.Segment{
		Sequence: r.next, Epoch: e.Epoch, Profile: e.Profile, Init: e.Init,
		Time: e.Time, Discontinuity: e.Discontinuity,
	}
	if n := len(r.media.Segments); n > 0 {
		before := r.media.Segments[n-1]
		s.Discontinuity = max(s.Discontinuity, before.Discontinuity)
		s.Breaks = int(min(s.Discontinuity-before.Discontinuity, maxJump))
		if end := before.Time.Add(before.Duration.Duration()); s.Time.IsZero() {
			s.Time = end
		}
		if s.Init == "" {
			s.Init = before.Init
		}
	} else if s.Time.IsZero() {
		s.Time = r.begin
	}
	return s
}

// complete lists the segment that is due as e says: complete, or as a gap.
func (r *rendition) complete(e *index.Entry) {
	var s playlist.Segment
	if r.media.Open != nil {
		s = *r.media.Open
	} else {
		s = r.head(e)
	}
	s.Duration = e.Duration
	var sum media.Ticks
	size := 0
	for _, p := range s.Parts {
		sum += p.Duration
		size += p.Size
	}
	if e.Type == index.TypeSegment {
		s.Epoch, s.Profile, s.Size, s.Frames = e.Epoch, e.Profile, e.Size, e.Frames
		if e.Parts > 0 && e.Parts != len(s.Parts) {
			s.Parts = nil // some were never heard of: list none rather than a part of them
		} else if s.Size == 0 {
			s.Size = size
		}
		if s.Duration == 0 {
			s.Duration = sum
		}
	} else {
		r.completeGap(&s, sum)
	}
	r.list(&s)
}

// list adds s, the segment that was due, to what playlists show.
func (r *rendition) list(s *playlist.Segment) {
	r.media.Segments = append(r.media.Segments, s)
	r.media.Open = nil
	delete(r.drafts, r.next)
	r.next++
	r.stalled, r.lagging, r.asking = time.Time{}, time.Time{}, nil
	r.rates = measure(r.media.Segments, r.media.Target())
	r.touch()
}

// trim drops the oldest segments beyond the window.
func (r *rendition) trim(window media.Ticks) {
	var total media.Ticks
	for _, s := range r.media.Segments {
		total += s.Duration
	}
	n := 0
	for n < len(r.media.Segments) && total-r.media.Segments[n].Duration >= window {
		total -= r.media.Segments[n].Duration
		delete(r.lost, r.media.Segments[n].Sequence)
		r.keepSlid(r.media.Segments[n])
		n++
	}
	if n > 0 {
		r.media.Segments = r.media.Segments[n:]
		r.forgetSlid()
		r.touch()
	}
}

// keepSlid remembers a segment that slid out of the playlist.
func (r *rendition) keepSlid(s *playlist.Segment) {
	if n := len(r.slid); n > 0 && r.slid[n-1].Sequence+1 != s.Sequence {
		r.slid = nil
	}
	slid := *s
	slid.Parts = nil
	r.slid = append(r.slid, &slid)
}

// forgetSlid forgets what no player may ask for any more: "When the server removes a
// Media Segment URI from the Playlist, the Media Segment MUST remain available for a
// period of time equal to the duration of the segment plus the duration of the
// longest Playlist file distributed by the server containing that segment" (6.2.2).
func (r *rendition) forgetSlid() {
	var listed, since media.Ticks
	for _, s := range r.media.Segments {
		listed += s.Duration
	}
	n := len(r.slid)
	for n > 0 && since <= listed {
		n--
		since += r.slid[n].Duration
	}
	r.slid = r.slid[n:]
}

// noteLost remembers a gap entry that is about a listed segment: its worker
// couldn't store it.
func (r *rendition) noteLost(e *index.Entry) {
	s := r.media.Find(e.Sequence)
	if e.Type == index.TypeGap && s != nil && !s.Gap && s.Epoch == e.Epoch && s.Profile == e.Profile {
		r.lost[e.Sequence] = true
	}
}

// vanish lists a segment as a gap whose worker couldn't store it. A Server MUST NOT change
// what is listed (6.2.1), but listed media MUST be there too, and a player can
// look for another rendition instead of asking for what it can't get.
func (r *rendition) vanish(a *Address) {
	if !r.lost[a.Sequence] {
		return
	}
	at := a.Sequence - r.media.Segments[0].Sequence
	s := *r.media.Segments[at]
	if s.Epoch != a.Epoch || s.Profile != a.Profile {
		return
	}
	delete(r.lost, a.Sequence)
	s.Gap, s.Parts = true, slices.Clone(s.Parts)
	for i := range s.Parts {
		s.Parts[i].Gap = true
	}
	// Snapshots share the segments.
	r.media.Segments = slices.Clone(r.media.Segments)
	r.media.Segments[at] = &s
	r.touch()
}

// noteInit remembers an init section: the ingest epoch under which it may lie in S3, and
// its size, 0 where it isn't told.
func (r *rendition) noteInit(hash string, epoch uint64, size int) {
	was, known := r.inits[hash]
	now := was
	if epoch != 0 && !slices.Contains(was.Epochs, epoch) {
		now.Epochs = append([]uint64{epoch}, was.Epochs...)
		now.Epochs = now.Epochs[:min(len(now.Epochs), maxInitEpochs)]
	}
	if size > 0 {
		now.Size = size
	}
	if known && len(now.Epochs) == len(was.Epochs) && now.Size == was.Size && (epoch == 0 || slices.Contains(was.Epochs, epoch)) {
		return
	}
	inits := make(map[string]Init, len(r.inits)+1)
	if !known && len(r.inits) >= maxInits {
		r.copyUsed(inits)
	} else {
		maps.Copy(inits, r.inits)
	}
	inits[hash] = now
	r.inits = inits
}

// copyUsed copies the init sections of what can still be asked for.
func (r *rendition) copyUsed(inits map[string]Init) {
	use := func(hash string) {
		if i, ok := r.inits[hash]; ok {
			inits[hash] = i
		}
	}
	for _, s := range slices.Concat(r.slid, r.media.Segments) {
		use(s.Init)
	}
	if r.media.Open != nil {
		use(r.media.Open.Init)
	}
	for _, d := range r.drafts {
		for _, v := range d.versions {
			use(v.init)
		}
	}
}
