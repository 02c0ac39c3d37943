package edge

import (
	"errors"
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
	// maxInitEpochs bounds how many ingest epochs are remembered per init section.
	maxInitEpochs = 8
	// orphanPatience is how long media of another ingest waits for the end of
	// the segment that the one before it left open.
	orphanPatience = 500 * time.Millisecond
)

// fold is the state of one broadcast, made from index entries. It does no I/O;
// its caller serialises the calls. What state returns is immutable.
type fold struct {
	// window is the length of the playlists; they are never shorter than four
	// target durations.
	window media.Ticks

	settings   *index.Broadcast
	renditions map[string]*foldRendition
	// holds tells whether an unfinished segment can be served as it stands; nil: any.
	holds func(rendition string, s *playlist.Segment) bool
	// writer is the highest epoch that was heard of.
	writer jobs.Epoch
	// ingest is the highest ingest epoch that media came from, since the first
	// segment of it.
	ingest, since uint64
	// paused is set by a pause entry, away by who follows: nothing new comes.
	paused, away bool
	// resume is the sequence that ends a pause, 0 where it isn't known: then
	// any new part does, and any segment past newest.
	resume uint64
	// newest is the highest sequence that was told of, fresh counts what was
	// new among parts, segments and gaps.
	newest, fresh uint64
	// end is one past the last segment's sequence, noEnd while there is none.
	end uint64
	// begun is set by begin; before it nothing is shown.
	begun bool
	// refused counts entries that were refused, by reason.
	refused map[string]int
}

const noEnd = ^uint64(0)

func newFold(window time.Duration) *fold {
	return &fold{
		window: media.TicksOf(window), renditions: make(map[string]*foldRendition),
		end: noEnd, refused: make(map[string]int),
	}
}

// apply takes the entries of one line, all before any is shown. It reports
// whether anything that playlists show has changed.
func (f *fold) apply(entries []index.Entry) bool {
	changed := false
	for i := range entries {
		if err := f.take(&entries[i]); err != nil {
			if !errors.Is(err, errLate) {
				f.refused[err.Error()]++
			}
			continue
		}
		changed = true
	}
	return changed && f.advance()
}

// The reasons for which an entry is refused; they are label values of a metric.
var (
	errStale     = errors.New("lower_epoch")
	errMalformed = errors.New("malformed")
	errTooMany   = errors.New("too_many")
	// errLate is the ordinary fate of what a worker repeats: it isn't counted.
	errLate = errors.New("late")
)

func (f *fold) take(e *index.Entry) error {
	if f.writer.Less(e.Writer) {
		f.writer = e.Writer
	}
	stale := e.Writer.Less(f.writer)
	switch e.Type {
	case index.TypeBroadcast:
		return f.takeBroadcast(e, stale)
	case index.TypePause:
		if f.outdated(e) {
			return errStale
		}
		if e.Sequence == 0 || !f.shows(e.Sequence) {
			f.resume = e.Sequence
			f.setPaused(true, f.away)
		}
		return nil
	case index.TypeEnd:
		if f.outdated(e) {
			return errStale
		}
		if f.end == noEnd {
			f.end = e.Sequence
		}
		return nil
	}
	if !isName(e.Rendition) || e.Init != "" && !isName(e.Init) {
		return errMalformed
	}
	r := f.renditions[e.Rendition]
	if r == nil {
		if len(f.renditions) >= maxRenditions {
			return errTooMany
		}
		r = f.addRendition(index.Rendition{Name: e.Rendition})
	}
	if e.Init != "" {
		r.noteInit(e.Init, e.Epoch)
	}
	if e.Type == index.TypeInit {
		if stale && r.info.Codec != "" {
			return errStale
		}
		if e.Codec != "" && isCodec(e.Codec) {
			r.info.Codec = e.Codec
		}
		if e.Width > 0 && e.Height > 0 {
			r.info.Width, r.info.Height = e.Width, e.Height
		}
		return nil
	}
	return f.takeMedia(r, e)
}

// outdated reports whether a pause or an end is to be refused: that of a lower
// lease, and one of a lower grant where the log went on. All workers of a lease
// tell of the marks of one log, so a hot standby of any grant is heard; one that
// was replaced, and is cut off from its ingest or woke up late, knows the log
// only up to a segment that its successor has told of.
func (f *fold) outdated(e *index.Entry) bool {
	return e.Writer.Lease < f.writer.Lease || e.Writer.Less(f.writer) && e.Sequence <= f.newest
}

// takeBroadcast keeps the first settings, since a playlist's never change, and
// every rendition that was ever listed, since players load the list once.
func (f *fold) takeBroadcast(e *index.Entry, stale bool) error {
	b := e.Broadcast
	for i := range b.Renditions {
		if !isName(b.Renditions[i].Name) || !isCodec(b.Renditions[i].Codec) {
			return errMalformed
		}
	}
	if f.settings == nil {
		settings := *b
		settings.Renditions = nil
		f.settings = &settings
		for _, r := range f.renditions {
			r.media.Settings, r.begin = f.playlistSettings(), b.Started
			r.changed = true
		}
	} else if stale {
		return errStale
	}
	for _, info := range b.Renditions {
		r := f.renditions[info.Name]
		if r == nil {
			if len(f.renditions) >= maxRenditions {
				return errTooMany
			}
			r = f.addRendition(info)
		} else if codec := r.info.Codec; codec != "" && !r.listed {
			// An init section came first and knows better.
			info.Codec = codec
			if r.info.Width > 0 {
				info.Width, info.Height = r.info.Width, r.info.Height
			}
			r.info = info
		} else if !r.listed {
			r.info = info
		}
		if !r.listed {
			r.listed = true
			// Snapshots share what f.settings points to.
			settings := *f.settings
			settings.Renditions = append(slices.Clip(settings.Renditions), info)
			f.settings = &settings
			r.changed = true
		}
	}
	return nil
}

func (f *fold) playlistSettings() playlist.Settings {
	if f.settings == nil {
		return playlist.Settings{}
	}
	return playlist.Settings{
		TargetDuration: f.settings.TargetDuration,
		PartTarget:     f.settings.PartTarget,
		PartHoldBack:   f.settings.PartHoldBack,
	}
}

func (f *fold) addRendition(info index.Rendition) *foldRendition {
	r := &foldRendition{
		info: info, drafts: make(map[uint64]*draft), lost: make(map[uint64]bool),
		initEpochs: make(map[string][]uint64), changed: true,
	}
	r.media.Settings = f.playlistSettings()
	if f.settings != nil {
		r.begin = f.settings.Started
	}
	r.media.Paused = f.paused || f.away
	f.renditions[info.Name] = r
	return r
}

func (f *fold) setPaused(paused, away bool) {
	before := f.paused || f.away
	f.paused, f.away = paused, away
	if before == (paused || away) {
		return
	}
	for _, r := range f.renditions {
		r.media.Paused = !before
		r.changed = true
	}
}

// setAway says whether something new is to be expected soon. It reports
// whether playlists change.
func (f *fold) setAway(away bool) bool {
	if f.away == away {
		return false
	}
	f.setPaused(f.paused, away)
	return f.advance()
}

// takeMedia notes a part, segment or gap in its draft.
func (f *fold) takeMedia(r *foldRendition, e *index.Entry) error {
	if e.Type != index.TypeGap && !isName(e.Profile) || e.Profile != "" && !isName(e.Profile) {
		return errMalformed
	}
	if f.end != noEnd && e.Sequence >= f.end {
		return errLate
	}
	if r.based && e.Sequence < r.next {
		// It is shown already, or has slid out: what is shown doesn't change, but
		// for a gap that somebody has run into.
		r.noteLost(e)
		return errLate
	}
	// Numbers are never used by two ingests: what an earlier one says of those
	// of a later one is made of another log.
	if e.Epoch != 0 && e.Epoch < f.ingest && e.Sequence >= f.since {
		return errStale
	}
	if e.Epoch > f.ingest {
		f.ingest, f.since = e.Epoch, e.Sequence
	} else if e.Epoch == f.ingest {
		f.since = min(f.since, e.Sequence)
	}
	d := r.drafts[e.Sequence]
	if shown := r.media.Open != nil && r.media.Open.Sequence == e.Sequence; d.epoch() != 0 && d.epoch() < e.Epoch && !shown {
		delete(r.drafts, e.Sequence)
		d = nil
	}
	if d == nil {
		if len(r.drafts) >= maxDrafts {
			return errTooMany
		}
		d = &draft{}
		r.drafts[e.Sequence] = d
	}
	if news, err := d.note(e); err != nil || !news {
		return err
	}
	f.fresh++
	// A segment told of after its PUT may come later than the pause after it.
	next := e.Type == index.TypePart || e.Sequence > f.newest
	f.newest = max(f.newest, e.Sequence)
	if f.paused && (f.resume > 0 && e.Sequence >= f.resume || f.resume == 0 && next) {
		f.setPaused(false, f.away)
	}
	if f.away && next {
		f.setPaused(f.paused, false)
	}
	return nil
}

// vanish makes a listed segment a gap whose media nobody had when a viewer asked
// for it, if a worker has told that it dropped it. It reports whether playlists
// change.
func (f *fold) vanish(a *address) bool {
	r := f.renditions[a.rendition]
	return r != nil && r.vanish(a)
}

// shows reports whether some rendition has come as far as sequence.
func (f *fold) shows(sequence uint64) bool {
	for _, r := range f.renditions {
		if last, _, ok := r.media.Last(); ok && last >= sequence {
			return true
		}
	}
	return false
}

// begin shows what has been collected: of each rendition the newest run of
// segments without a hole, but for those where another ingest went on. Entries
// that come after it only add to that.
func (f *fold) begin() bool {
	if f.begun {
		return false
	}
	f.begun = true
	changed := f.advance()
	if f.settings == nil {
		return changed
	}
	for _, r := range f.renditions {
		f.fillOrphaned(r)
	}
	return f.advance() || changed
}

// fillOrphaned fills what an ingest never made up to where another one went on.
func (f *fold) fillOrphaned(r *foldRendition) {
	for after, ok := r.afterHole(f.end); ok && r.orphaned(f.ingest); after, ok = r.afterHole(f.end) {
		r.fill(after, f.ingest, f.holds)
		r.advance()
	}
}

// advance completes segments in order, and shows the parts of the one after.
func (f *fold) advance() bool {
	if !f.begun || f.settings == nil {
		return false
	}
	changed := false
	for _, r := range f.renditions {
		if !r.based {
			r.base()
		}
		if r.based {
			r.advance()
			r.trim(max(f.window, 4*r.media.Target()))
		}
		if f.end != noEnd && (!r.based || r.next >= f.end) && !r.media.Ended {
			r.media.Ended, r.changed = true, true
			clear(r.drafts)
		}
		changed = changed || r.changed
	}
	return changed
}

// giveUp turns holes into gaps that later segments have waited for longer than
// patience, so that a lost entry can't stop a rendition for good. What an ingest
// left open that another one took over from is closed as it stands, and soon.
// It reports whether anything has changed.
func (f *fold) giveUp(now time.Time, patience time.Duration) bool {
	if !f.begun || f.settings == nil {
		return false
	}
	for _, r := range f.renditions {
		r.decide(now)
		after, ok := r.afterHole(f.end)
		limit := patience
		if ok && r.orphaned(f.ingest) {
			limit = min(patience, orphanPatience)
		}
		switch {
		case !ok:
			r.stalled = time.Time{}
		case r.stalled.IsZero():
			r.stalled = now
		case now.Sub(r.stalled) >= limit:
			r.fill(after, f.ingest, f.holds)
			r.advance()
			f.fillOrphaned(r)
		}
	}
	return f.advance()
}

// finish ends the broadcast without an end entry: what is open is completed as
// it stands, what has a hole before it is dropped.
func (f *fold) finish() bool {
	f.begun = true
	changed := f.advance()
	f.end = 0
	for _, r := range f.renditions {
		if r.media.Ended {
			continue
		}
		r.closeShort(f.holds)
		clear(r.drafts)
		r.media.Ended, r.changed, changed = true, true, true
	}
	return changed
}

// ended reports whether nothing will be added to any rendition.
func (f *fold) ended() bool {
	if f.end == noEnd {
		return false
	}
	for _, r := range f.renditions {
		if !r.media.Ended {
			return false
		}
	}
	return true
}
