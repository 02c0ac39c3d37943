package relay

import (
	"math"
	"time"

	"millrace/internal/media"
)

// nominalStep is what a picture is taken to last where no frame rate is known.
const nominalStep media.Ticks = media.VideoTimescale / 30

// Tail follows the entries of a log and says where its media ends. Who has to
// close a segment short works it out by this: an ingest whose publisher is gone,
// and a worker whose ingest is gone. Its zero value has seen nothing. Not safe
// for concurrent use.
type Tail struct {
	settings Settings
	mark     Mark // the newest
	marked   bool

	shift media.Ticks // composition time of the random access point that decoding starts at
	fresh bool        // the next picture is that point, or the first one that was seen
	last  media.Ticks // the newest picture's shifted decode time; of sound where there are no pictures
	end   media.Ticks // where that frame ends

	sound *media.Codec
	next  media.Samples // the first place on the sound's grid that has no frame
}

// Add takes the next entry of the log.
func (t *Tail) Add(e Entry) {
	switch {
	case e.Settings != nil:
		t.settings = *e.Settings
	case e.Codec != nil && e.Codec.Kind() == media.Audio:
		t.sound = e.Codec
	case e.Mark != nil:
		t.addMark(*e.Mark)
	case e.Unit != nil && e.Unit.Track == media.Audio:
		t.addSound(e.Unit.DTS)
	case e.Unit != nil:
		if t.fresh {
			t.fresh, t.shift = false, e.Unit.PTS-e.Unit.DTS
			if !t.mark.Independent() {
				t.shift = t.mark.Start - e.Unit.DTS
			}
		}
		if !e.Unit.Preroll {
			t.reach(e.Unit.DTS+t.shift, t.Step())
		}
	}
}

func (t *Tail) addMark(m Mark) {
	if m.Kind == Open && (m.Independent() || !t.marked) {
		t.fresh = true
	}
	if !t.marked || m.Discontinuity != t.mark.Discontinuity {
		t.next = m.AudioStart
	}
	t.mark, t.marked = m, true
	t.end = m.Start
}

func (t *Tail) addSound(at media.Ticks) {
	if t.sound == nil {
		return
	}
	t.next = t.grid().Nearest(at) + t.sound.FrameSamples
	if !t.settings.Video {
		t.reach(at, t.sound.Step())
	}
}

// reach notes a frame. Shifted decode times rise.
func (t *Tail) reach(at, step media.Ticks) {
	t.last = max(at, t.last+1)
	t.end = t.last + step
}

func (t *Tail) grid() media.Grid { return t.sound.Grid(t.mark.AudioStart) }

// Step is how long a picture is taken to last.
func (t *Tail) Step() media.Ticks {
	if t.settings.FrameRate > 0 {
		return media.Ticks(math.Round(media.VideoTimescale / t.settings.FrameRate))
	}
	return nominalStep
}

// Last is the shifted decode time of the newest picture: its own plus the
// composition time of the random access point that decoding starts at, so that a
// segment's first one is the segment's start. Without pictures it is the time
// of the newest sound.
func (t *Tail) Last() media.Ticks { return t.last }

// End is where the media ends.
func (t *Tail) End() media.Ticks { return t.end }

// Close returns the mark, of kind Pause or End, that ends the open segment, if
// there is one, after its last frame.
func (t *Tail) Close(kind MarkKind) Mark { return t.markAt(kind, t.end) }

func (t *Tail) markAt(kind MarkKind, at media.Ticks) Mark {
	m := t.mark
	m.Kind, m.Held = kind, false
	if t.mark.Kind == Open {
		m.Sequence++
		at = max(at, t.mark.Start+1)
	}
	m.DecodeFrom, m.Recode, m.Start = m.Sequence, false, at
	if t.sound != nil {
		m.AudioStart = t.grid().AtOrAfter(at)
	}
	if !m.Time.IsZero() {
		m.Time = m.Time.Add((at - t.mark.Start).Duration()).UTC().Truncate(time.Millisecond)
	}
	return m
}

// Handoff is what another ingest needs to go on. A segment that is open counts
// as used. Sound may reach further than pictures: nothing of it is lost.
func (t *Tail) Handoff() Handoff {
	h := Handoff{Settings: t.settings}
	if !t.marked {
		h.Mark.Kind = Pause
		return h
	}
	at := t.end
	if t.sound != nil {
		at = max(at, t.next.Ticks(t.sound.Rate))
	}
	// Up to a whole millisecond: publishers' own times are.
	h.Mark = t.markAt(Pause, at.CeilMillisecond())
	return h
}
