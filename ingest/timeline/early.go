package timeline

import (
	"time"

	"millrace/internal/media"
)

// Pictures after a hole. An encoder with B-frames derives decode times from those of
// the pictures before: the first one after a hole has an old decode time, and is
// shown much later. One that publishes a file sends it that early, too.

const (
	// usualReorder is how much more than the segment's first picture one may be shown
	// after its decode time; what is more comes from a hole.
	usualReorder = media.VideoTimescale
	// maxEarly bounds the pictures that wait for their sound.
	maxEarly = 64
	// maxRest is how far apart the pictures of a publisher without sound may be.
	maxRest = 10 * media.VideoTimescale
)

// rest is how long the publisher may have had nothing to send: one without sound
// sends nothing while nothing changes.
func (s *Sequencer) rest(now time.Time) media.Ticks {
	before := s.pushed
	s.pushed = now
	if s.audio != nil && !s.mute || before.IsZero() {
		return 0
	}
	return min(media.TicksOf(now.Sub(before)), maxRest)
}

// afterHole gives a picture after a hole a decode time that is near its own
// presentation.
func (s *Sequencer) afterHole(u *media.Unit) {
	switch later := u.PTS - u.DTS; {
	case later <= s.reorder+max(usualReorder, 4*s.step):
		s.reorder = max(s.reorder, later)
	case s.opened && u.PTS-s.shift-s.decoded >= s.holdAfter():
		u.DTS = u.PTS - s.shift // the first one: none is shown between it and the hole
	case s.opened:
		u.DTS = u.PTS - s.reorder
	}
	u.DTS = max(u.DTS, s.decoded+media.TicksPerMillisecond)
	s.decoded = u.DTS
}

// behindHold handles a picture after a hole that is shown before its end: those that
// follow refer to it. It reports whether the picture was one.
func (s *Sequencer) behindHold(u *media.Unit) bool {
	if !s.hold.broken || u.RandomAccess || u.PTS >= s.mark.Start {
		return false
	}
	s.preroll(u)
	return true
}

// shownAt is a picture's place: where a segment begins that begins with it.
func (s *Sequencer) shownAt(u *media.Unit) media.Ticks {
	if u.RandomAccess {
		return u.PTS
	}
	return u.DTS + s.shift
}

// early looks at a picture after a hole. While its sound isn't here, it waits; where
// none is waited for, the last picture is held up to it.
func (s *Sequencer) early(u media.Unit, now time.Time) bool {
	h := &s.hold
	at := s.shownAt(&u)
	stuck := s.brk || s.pending() // the sound may wait for a picture
	switch {
	case len(h.early) > 0:
	case !s.opened || s.brk || len(h.gop) == 0 || at-max(s.end(), h.next) < s.holdAfter():
		return false
	case s.grid == nil || s.mute || s.soundEnd() >= at:
		s.bridge(at, now)
		return false
	}
	u.DTS, u.PTS = u.DTS-s.delay, u.PTS-s.delay // that may change until it is placed
	h.earlyBytes += len(u.Payload)
	if h.early = append(h.early, u); stuck || len(h.early) > maxEarly || h.earlyBytes > maxHoldBytes { // or doesn't come
		s.bridge(s.firstEarly(), now)
		for len(h.early) > 0 {
			s.placeEarly(now)
		}
	}
	return true
}

// dueEarly places the pictures that waited for the sound which is here now.
func (s *Sequencer) dueEarly(now time.Time) {
	for len(s.hold.early) > 0 && s.firstEarly()+s.hold.lead <= s.soundEnd() {
		s.placeEarly(now)
	}
}

// firstEarly is the place of the first picture that waits.
func (s *Sequencer) firstEarly() media.Ticks { return s.shownAt(&s.hold.early[0]) + s.delay }

// placeEarly places that picture.
func (s *Sequencer) placeEarly(now time.Time) {
	u := s.hold.early[0]
	s.hold.early = s.hold.early[1:]
	s.hold.earlyBytes -= len(u.Payload)
	u.DTS, u.PTS = u.DTS+s.delay, u.PTS+s.delay
	s.placeVideo(u, now)
}

// bridge holds the last picture up to one that is here.
func (s *Sequencer) bridge(at media.Ticks, now time.Time) {
	if !s.hold.on {
		if at-s.end() < s.holdAfter() {
			return
		}
		s.beginHold(now)
	}
	s.holdUntil(at, now)
}
