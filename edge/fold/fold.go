// Package fold makes the state of a broadcast from the index entries that its
// workers tell: which segments and parts exist, what playlists show of them. It
// also reads the addresses of media, which carry the names that entries give.
//
// It does no I/O and reads no clock. What it needs to know from outside it asks
// for (see [Fold.Question]).
package fold

import (
	"slices"
	"time"

	"millrace/edge/playlist"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

const (
	// maxRenditions bounds the renditions of a broadcast.
	maxRenditions = 32
	// maxDrafts bounds the unfinished segments kept for one rendition.
	maxDrafts = 2048
	// maxJump is the largest hole, in segments, that is filled with gaps; after
	// a larger one a rendition begins anew.
	maxJump = 256
	// maxInits bounds the init sections kept for one rendition beside those in use.
	maxInits = 2048
	// maxInitEpochs bounds how many ingest epochs are remembered per init section.
	maxInitEpochs = 8
)

// Fold is the state of one broadcast, made from index entries. Its caller
// serialises the calls. After each of them that may change what playlists show,
// the caller answers the questions that there are, and takes a snapshot.
type Fold struct {
	// window is the length of the playlists; they are never shorter than four
	// target durations.
	window media.Ticks
	// limit, above 0, is how far back there is media where that is less.
	limit media.Ticks

	settings *index.Broadcast
	// renditions stand in the order in which they were first heard of.
	renditions []*rendition
	// writer is the highest epoch that was heard of.
	writer jobs.Epoch
	// ingest is the highest ingest epoch that media came from, since the first
	// segment of it.
	ingest, since uint64
	// paused is set by a pause entry, away by the caller: nothing new comes.
	paused, away bool
	// resume is the sequence that ends a pause, 0 where it isn't known: then
	// any new part does, and any segment past newest.
	resume uint64
	// newest is the highest sequence that was told of, news counts what was
	// new among parts, segments and gaps.
	newest, news uint64
	// end is one past the last segment's sequence, noEnd while there is none.
	end uint64
	// begun is set by Begin; before it nothing is shown.
	begun bool
	// refused counts entries that were refused since TakeRefused.
	refused map[Refusal]int
}

const noEnd = ^uint64(0)

// New returns the state of a broadcast of which nothing is known yet. Its
// playlists will be as long as window, or four target durations.
func New(window time.Duration) *Fold {
	return &Fold{window: media.TicksOf(window), end: noEnd, refused: make(map[Refusal]int)}
}

// Refusal is the reason for which an entry is refused; it is a label value of
// a metric.
type Refusal string

// The reasons for which an entry is refused.
const (
	// RefusedStale: a higher epoch has said otherwise.
	RefusedStale Refusal = "lower_epoch"
	// RefusedMalformed: a name in it can't stand in a playlist.
	RefusedMalformed Refusal = "malformed"
	// RefusedTooMany: a bound is reached.
	RefusedTooMany Refusal = "too_many"

	accepted Refusal = ""
	// late is the ordinary fate of what a worker repeats: it isn't counted.
	late Refusal = "late"
)

// TakeRefused returns how many entries were refused since it was called last.
func (f *Fold) TakeRefused() map[Refusal]int {
	refused := f.refused
	f.refused = make(map[Refusal]int)
	return refused
}

// News counts the parts, segments and gaps that were told for the first time.
func (f *Fold) News() uint64 { return f.news }

// Paused reports whether nothing new is to be expected soon.
func (f *Fold) Paused() bool { return f.paused || f.away }

// Apply takes the entries of one line, all before any is shown.
func (f *Fold) Apply(entries []index.Entry) {
	changed := false
	for i := range entries {
		switch why := f.take(&entries[i]); why {
		case accepted:
			changed = true
		case late:
		default:
			f.refused[why]++
		}
	}
	if changed {
		f.advance()
	}
}

func (f *Fold) take(e *index.Entry) Refusal {
	if f.writer.Less(e.Writer) {
		f.writer = e.Writer
	}
	switch e.Type {
	case index.TypeBroadcast:
		return f.takeBroadcast(e)
	case index.TypePause:
		if f.outdated(e) {
			return RefusedStale
		}
		if e.Sequence == 0 || !f.shows(e.Sequence) {
			f.resume = e.Sequence
			f.setPaused(true, f.away)
		}
		return accepted
	case index.TypeEnd:
		if f.outdated(e) {
			return RefusedStale
		}
		if f.end == noEnd {
			f.end = e.Sequence
		}
		return accepted
	}
	if !IsName(e.Rendition) || e.Init != "" && !IsName(e.Init) {
		return RefusedMalformed
	}
	r := f.find(e.Rendition)
	if r == nil {
		if r = f.addRendition(index.Rendition{Name: e.Rendition}); r == nil {
			return RefusedTooMany
		}
	}
	if e.Init != "" {
		size := 0
		if e.Type == index.TypeInit {
			size = e.Size
		}
		r.noteInit(e.Init, e.Epoch, size)
	}
	if e.Type == index.TypeInit {
		return f.takeInit(r, e)
	}
	return f.takeMedia(r, e)
}

// outdated reports whether a pause or an end is to be refused: that of a lower
// lease, and one of a lower grant where the log went on. All workers of a lease
// tell of the marks of one log, so a hot standby of any grant is heard; one that
// was replaced, and is cut off from its ingest or woke up late, knows the log
// only up to a segment that its successor has told of.
func (f *Fold) outdated(e *index.Entry) bool {
	return e.Writer.Lease < f.writer.Lease || e.Writer.Less(f.writer) && e.Sequence <= f.newest
}

// takeBroadcast keeps the first settings, since a playlist's never change, and
// every rendition that was ever listed, since players load the list once.
func (f *Fold) takeBroadcast(e *index.Entry) Refusal {
	b := e.Broadcast
	for i := range b.Renditions {
		if !IsName(b.Renditions[i].Name) || !isCodec(b.Renditions[i].Codec) {
			return RefusedMalformed
		}
	}
	if f.settings == nil {
		settings := *b
		settings.Renditions = nil
		f.settings = &settings
		for _, r := range f.renditions {
			r.media.Settings, r.begin = f.playlistSettings(), b.Started
			r.touch()
		}
	} else if e.Writer.Less(f.writer) {
		return RefusedStale
	}
	f.limit = b.Window
	for _, info := range b.Renditions {
		r := f.find(info.Name)
		switch {
		case r == nil:
			if r = f.addRendition(info); r == nil {
				return RefusedTooMany
			}
		case r.listed:
			continue
		default:
			r.introduce(info)
		}
		r.listed = true
		r.touch()
		// Snapshots share what f.settings points to.
		settings := *f.settings
		settings.Renditions = append(slices.Clip(settings.Renditions), r.info)
		f.settings = &settings
	}
	return accepted
}

// takeInit notes what an init section's entry says of its rendition.
func (f *Fold) takeInit(r *rendition, e *index.Entry) Refusal {
	if e.Writer.Less(f.writer) && r.info.Codec != "" {
		return RefusedStale
	}
	if !r.info.Source && r.info.Codec != "" && e.Codec != "" && format(e.Codec) != format(r.info.Codec) {
		// A rung is made in one format: this is the init section of media that
		// stands in for it, and says nothing of the rung.
		return accepted
	}
	before := r.info
	if e.Codec != "" && isCodec(e.Codec) {
		r.info.Codec = e.Codec
	}
	if e.Width > 0 && e.Height > 0 {
		r.info.Width, r.info.Height = e.Width, e.Height
	}
	if r.info != before {
		r.touch()
	}
	return accepted
}

// takeMedia notes a part, segment or gap in its draft.
func (f *Fold) takeMedia(r *rendition, e *index.Entry) Refusal {
	if e.Type != index.TypeGap && !IsName(e.Profile) || e.Profile != "" && !IsName(e.Profile) {
		return RefusedMalformed
	}
	if f.end != noEnd && e.Sequence >= f.end {
		return late
	}
	if r.based && e.Sequence < r.next {
		// It is shown already, or has slid out: what is shown doesn't change, but
		// for a gap that somebody has run into.
		r.noteLost(e)
		return late
	}
	// Numbers are never used by two ingests: what an earlier one says of those
	// of a later one is made of another log.
	if e.Epoch != 0 && e.Epoch < f.ingest && e.Sequence >= f.since {
		return RefusedStale
	}
	if e.Epoch > f.ingest {
		f.ingest, f.since = e.Epoch, e.Sequence
	} else if e.Epoch == f.ingest {
		f.since = min(f.since, e.Sequence)
	}
	d, why := r.draftFor(e)
	if why != accepted {
		return why
	}
	news, why := d.note(e)
	if why != accepted || !news {
		return why
	}
	f.noteNews(e)
	return accepted
}

// noteNews takes notice of media that was told for the first time: it ends a
// pause.
func (f *Fold) noteNews(e *index.Entry) {
	f.news++
	// A segment told of after its PUT may come later than the pause after it.
	next := e.Type == index.TypePart || e.Sequence > f.newest
	f.newest = max(f.newest, e.Sequence)
	if f.paused && (f.resume > 0 && e.Sequence >= f.resume || f.resume == 0 && next) {
		f.setPaused(false, f.away)
	}
	if f.away && next {
		f.setPaused(f.paused, false)
	}
}

func (f *Fold) playlistSettings() playlist.Settings {
	if f.settings == nil {
		return playlist.Settings{}
	}
	return playlist.Settings{
		TargetDuration: f.settings.TargetDuration,
		PartTarget:     f.settings.PartTarget,
		PartHoldBack:   f.settings.PartHoldBack,
	}
}

// find returns the rendition of that name, nil for none.
func (f *Fold) find(name string) *rendition {
	for _, r := range f.renditions {
		if r.info.Name == name {
			return r
		}
	}
	return nil
}

// addRendition makes a rendition known, or returns nil where there are too many.
func (f *Fold) addRendition(info index.Rendition) *rendition {
	if len(f.renditions) >= maxRenditions {
		return nil
	}
	r := &rendition{
		info: info, drafts: make(map[uint64]*draft), lost: make(map[uint64]bool), revision: 1,
	}
	r.media.Settings = f.playlistSettings()
	if f.settings != nil {
		r.begin = f.settings.Started
	}
	r.media.Paused = f.Paused()
	f.renditions = append(f.renditions, r)
	return r
}

func (f *Fold) setPaused(paused, away bool) {
	before := f.Paused()
	f.paused, f.away = paused, away
	if before == f.Paused() {
		return
	}
	for _, r := range f.renditions {
		r.media.Paused = !before
		r.touch()
	}
}

// SetAway says whether the caller expects nothing new soon.
func (f *Fold) SetAway(away bool) {
	if f.away != away {
		f.setPaused(f.paused, away)
	}
}

// shows reports whether some rendition has come as far as sequence.
func (f *Fold) shows(sequence uint64) bool {
	for _, r := range f.renditions {
		if last, _, ok := r.media.Last(); ok && last >= sequence {
			return true
		}
	}
	return false
}
