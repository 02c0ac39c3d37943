package timeline

import (
	"time"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// Where pictures stop and sound goes on, the last picture is held: segments whose
// marks say so, with units without a payload that show it again and again, by the
// sound's clock.

const (
	// holdAfter is how much sound comes without a picture before the last one is held;
	// holdAgain the same soon after one was held: pictures that are just rare aren't
	// worth two segments each.
	holdAfter = 7 * media.VideoTimescale / 10
	holdAgain = 3 * media.VideoTimescale / 2
	againSpan = 10 * media.VideoTimescale
	// holdMargin is by how much more than before the sound may be ahead of the first
	// picture that is back, so that it isn't late for what is shown by then.
	holdMargin = media.VideoTimescale / 10
	// maxHoldLead bounds how far the sound is taken to be ahead of the pictures.
	maxHoldLead = jumpBack
	// prerollEvery is how often, in segments, the pictures that the held one is decoded
	// from are written again: less than the log's duration.
	prerollEvery = 12
	// maxHoldBytes bounds these pictures; of a longer group of pictures the first one is held.
	maxHoldBytes = 16 << 20
)

// hold is what is known of the pictures that may have to be held.
type hold struct {
	gop   []media.Unit // in decode order, since the random access point
	again int          // of them, where the newest gradual refresh begins
	bytes int
	cut   bool        // it is only the random access point of a group of pictures that was too large
	sound media.Ticks // where the sound ended when the newest picture came
	lead  media.Ticks // how far it was ahead of that

	on    bool
	since media.Ticks // where the last picture ended
	next  media.Ticks // where the next repetition goes
	dts   media.Ticks // the decode time of the newest one
	marks int         // since gop was written
	ended media.Ticks // where the hold before ended
	// early are pictures that came before the sound of what they follow.
	early      []media.Unit
	earlyBytes int
	// broken: the pictures that come can't be decoded by who saw the held one only.
	broken bool
}

// picture notes a picture, which ended at end, when the sound had come up to sound.
func (h *hold) picture(u media.Unit, sound, end media.Ticks) {
	h.keep(u)
	h.sound, h.lead = sound, min(max(0, sound-end), maxHoldLead)
}

// keep keeps what later pictures are decoded from.
func (h *hold) keep(u media.Unit) {
	switch {
	case u.RandomAccess:
		h.gop, h.again, h.bytes, h.cut = nil, 0, 0, false
	case u.Start() == media.GradualStart:
		h.refresh()
	case h.cut || len(h.gop) == 0:
		return
	case h.bytes+len(u.Payload) > maxHoldBytes:
		h.gop, h.again, h.bytes, h.cut = h.gop[:1], 0, len(h.gop[0].Payload), true
		return
	}
	h.gop = append(h.gop, u)
	h.bytes += len(u.Payload)
}

// refresh notes that a gradual refresh begins: the pictures from the one before on
// are enough, since that one is over.
func (h *hold) refresh() {
	if h.cut {
		h.gop, h.bytes, h.cut = nil, 0, false
	}
	for i := range h.gop[:h.again] {
		h.bytes -= len(h.gop[i].Payload)
	}
	h.gop = h.gop[h.again:]
	h.again = len(h.gop)
}

// soundEnd is where the sound ends.
func (s *Sequencer) soundEnd() media.Ticks {
	if s.grid == nil {
		return 0
	}
	return s.grid.end()
}

// Held is for how long pictures have been missing; 0 unless the last one is held.
func (s *Sequencer) Held() time.Duration {
	if !s.hold.on {
		return 0
	}
	return max(s.hold.next-s.hold.since, 1).Duration()
}

// holdPicture holds the last picture, or goes on with that, as far as the sound has come.
func (s *Sequencer) holdPicture(now time.Time) {
	h := &s.hold
	if !s.settings.Video || !s.opened || len(h.gop) == 0 {
		return
	}
	sound := s.soundEnd()
	if !h.on {
		after := s.holdAfter()
		if h.ended > 0 && sound-h.ended < againSpan {
			after = max(after, holdAgain)
		}
		if sound-max(h.sound, s.end()) < after { // it may be behind the pictures, too
			return
		}
		s.beginHold(now)
	}
	s.holdUntil(sound-h.lead-holdMargin, now)
}

// holdAfter is for how long pictures must be missing.
func (s *Sequencer) holdAfter() media.Ticks {
	return max(holdAfter, 2*s.step, s.repeatEvery()+2*holdMargin)
}

// beginHold holds the last picture from its end on.
func (s *Sequencer) beginHold(now time.Time) {
	h := &s.hold
	h.on, h.marks = true, prerollEvery
	h.since = s.end()
	h.next = h.since
	s.openHeld(h.since, now)
}

// holdUntil shows the held picture as often as ends before at.
func (s *Sequencer) holdUntil(at media.Ticks, now time.Time) {
	for h := &s.hold; h.next+s.repeatEvery() <= at; {
		if h.next-s.mark.Start >= segmentDuration {
			s.openHeld(h.next, now)
		}
		s.repeat()
	}
}

// repeat shows the held picture again.
func (s *Sequencer) repeat() {
	h := &s.hold
	s.settleTarget(h.next, false)
	h.dts = h.next - s.shift
	s.put(relay.Entry{Unit: &media.Unit{Track: media.Video, DTS: h.dts, PTS: h.next}})
	h.next += s.repeatEvery()
}

// breakHeld begins a discontinuity while the last picture is held: where the sound
// ends that came before it.
func (s *Sequencer) breakHeld(now time.Time) {
	h := &s.hold
	for h.next < s.soundEnd() {
		s.repeat()
	}
	h.next = max(s.soundEnd(), s.mark.Start+s.repeatEvery())
	s.openHeld(h.next, now)
	s.repeat()
}

// repeatEvery is how long a held picture is shown before it is shown again: a
// part, in whole milliseconds.
func (s *Sequencer) repeatEvery() media.Ticks {
	return s.settings.PartDuration / media.TicksPerMillisecond * media.TicksPerMillisecond
}

// openHeld opens a segment in which the last picture is held. Each prerollEvery, and
// at a discontinuity, what it is decoded from comes behind the mark.
func (s *Sequencer) openHeld(start media.Ticks, now time.Time) {
	h := &s.hold
	if h.marks++; h.marks < prerollEvery && !s.breaksNow() {
		s.open(start, false, now)
		return
	}
	h.marks = 0
	s.open(start, true, now)
	// As if they had come right before.
	last := &h.gop[len(h.gop)-1]
	late := s.mark.Start - s.step - (last.DTS + s.shift)
	for i, u := range h.gop {
		u.Preroll = true
		if u.DTS, u.PTS = u.DTS+late, u.PTS+late; i == 0 {
			u.DTS = u.PTS - s.shift // as all that stands behind the mark
		}
		s.put(relay.Entry{Unit: &u})
	}
}

// repeatUntil shows the held picture again up to a picture at a place and with a decode
// time, so that it never lasts longer than a part, and each time at least as long as
// a picture usually does.
func (s *Sequencer) repeatUntil(at, dts media.Ticks, now time.Time) {
	h := &s.hold
	for h.next < at {
		if h.next-s.mark.Start >= segmentDuration && at-h.next > segmentDuration {
			s.openHeld(h.next, now)
		}
		if most := min(at, dts+s.shift) - s.step; h.next > most {
			h.next = max(most, s.tail.Last()+s.step)
		}
		if h.next-s.shift+media.TicksPerMillisecond > dts || h.next >= at {
			return
		}
		s.repeat()
	}
}

// release handles the first picture that comes while the last one is held. It
// reports whether the picture is to be shown; otherwise it is shown at a time that
// has passed, and only decoded for those that follow.
func (s *Sequencer) release(u *media.Unit, now time.Time) bool {
	h := &s.hold
	at := s.shownAt(u)
	switch shown := at > max(s.tail.Last(), s.mark.Start) && u.PTS >= at && u.DTS >= h.dts+media.TicksPerMillisecond; {
	case h.cut && !u.RandomAccess:
		return false // what it refers to is missing
	case shown && (u.RandomAccess || !s.brk):
		s.repeatUntil(at, u.DTS, now)
		h.on, h.ended = false, at
		switch {
		case u.Start() == media.GradualStart:
			h.broken = true // and so it opens a segment
		case !u.RandomAccess:
			h.broken = true
			s.open(at, false, now)
		case !s.brk: // else it opens a segment anyway
			s.openAtStart(u, u.PTS, true, now)
		}
		return true
	}
	if s.brk && !s.coded.Equal(s.video) {
		return false // what is held is coded in another way
	}
	h.lead = max(h.lead, min(s.soundEnd()-at, maxHoldLead)) // the pictures are behind by that
	if u.RandomAccess {
		u.DTS = u.PTS - s.shift // as all that stands behind the mark
	}
	s.preroll(u)
	return false
}

// preroll puts a picture into the log that is decoded for those that follow, and not shown.
func (s *Sequencer) preroll(u *media.Unit) {
	s.hold.keep(*u)
	u.Preroll = true
	s.put(relay.Entry{Unit: u})
}
