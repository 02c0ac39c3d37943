package fold

import (
	"time"

	"millrace/edge/playlist"
	"millrace/internal/media"
)

// orphanPatience is how long media of another ingest waits for the end of the
// segment that the one before it left open.
const orphanPatience = 500 * time.Millisecond

// Begin shows what has been collected: of each rendition the newest run of
// segments without a hole, but for those where another ingest went on. Entries
// that come after it only add to that.
func (f *Fold) Begin() {
	if f.begun {
		return
	}
	f.begun = true
	f.advance()
	if f.settings == nil {
		return
	}
	for _, r := range f.renditions {
		f.fillOrphaned(r)
	}
	f.advance()
}

// advance completes segments in order, and shows the parts of the one after.
func (f *Fold) advance() {
	if !f.begun || f.settings == nil {
		return
	}
	for _, r := range f.renditions {
		if !r.based {
			r.base()
		}
		if r.based {
			r.advance()
			r.trim(max(f.reach(), 4*r.media.Target()))
		}
		if f.end != noEnd && (!r.based || r.next >= f.end) && !r.media.Ended {
			r.endHere()
		}
	}
}

// reach is how far back playlists reach.
func (f *Fold) reach() media.Ticks {
	if f.limit > 0 {
		return min(f.window, f.limit)
	}
	return f.window
}

// GiveUp turns holes into gaps that later segments have waited for longer than
// one and a half target durations, so that a lost entry can't stop a rendition
// for good. What an ingest left open that another one took over from is closed
// as it stands, and soon. now is the time of the call; GiveUp is to be called
// every now and then.
func (f *Fold) GiveUp(now time.Time) {
	if !f.begun || f.settings == nil {
		return
	}
	target := time.Duration(f.settings.TargetDuration) * time.Second
	for _, r := range f.renditions {
		r.endLag(now)
		after, ok := r.afterHole(f.end)
		patience := target + target/2
		if ok && r.orphaned(f.ingest) {
			patience = min(patience, orphanPatience)
		}
		switch {
		case !ok:
			r.stalled = time.Time{}
		case r.stalled.IsZero():
			r.stalled = now
		case now.Sub(r.stalled) >= patience:
			r.fill(after, f.ingest)
			r.advance()
			f.fillOrphaned(r)
		}
	}
	f.advance()
}

// fillOrphaned fills what an ingest never made up to where another one went on.
// It ends at a segment that first needs an answer.
func (f *Fold) fillOrphaned(r *rendition) {
	for r.asking == nil {
		after, ok := r.afterHole(f.end)
		if !ok || !r.orphaned(f.ingest) {
			return
		}
		r.fill(after, f.ingest)
		r.advance()
	}
}

// EndNow ends the broadcast without an end entry: what is open is completed as
// it stands, what has a hole before it is dropped.
func (f *Fold) EndNow() {
	f.begun = true
	f.advance()
	f.end = 0
	for _, r := range f.renditions {
		if r.media.Ended {
			continue
		}
		if r.asking = r.media.Open; r.asking == nil {
			r.endHere()
		}
	}
}

// Ended reports whether nothing will be added to any rendition.
func (f *Fold) Ended() bool {
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

// Question asks whether an unfinished segment can be served with the parts that
// it lists: nobody will add to it any more, and nobody else may have it.
type Question struct {
	Rendition string
	// Segment is the segment as it is listed; it isn't to be changed.
	Segment *playlist.Segment
}

// Question returns what is to be answered before the broadcast can go on; ok is
// false when there is nothing.
func (f *Fold) Question() (q Question, ok bool) {
	for _, r := range f.renditions {
		if r.asking != nil {
			return Question{Rendition: r.info.Name, Segment: r.asking}, true
		}
	}
	return Question{}, false
}

// Answer closes the segment that the question is about as it stands. One that
// can't be served becomes a gap.
func (f *Fold) Answer(q Question, served bool) {
	r := f.find(q.Rendition)
	if r == nil || r.asking == nil {
		return
	}
	r.asking = nil
	r.closeShort(served)
	if f.end == 0 { // see EndNow
		r.endHere()
		return
	}
	r.advance()
	f.fillOrphaned(r)
	f.advance()
}

// Vanish makes a listed segment a gap whose media nobody had when a viewer asked
// for it, if a worker has told that it dropped it.
func (f *Fold) Vanish(a *Address) {
	if r := f.find(a.Rendition); r != nil {
		r.vanish(a)
	}
}
