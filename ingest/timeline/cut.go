package timeline

import (
	"cmp"
	"time"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// How a broadcast is cut.
const (
	// segmentDuration is what a segment lasts at least, less a frame's jitter.
	segmentDuration = 2*media.VideoTimescale - cutTolerance
	cutTolerance    = media.VideoTimescale / 20
	// dependentDuration is what a segment lasts at least that doesn't begin with a keyframe.
	dependentDuration = media.VideoTimescale
	// settleAfter is when the target duration is settled, counted from the first keyframe.
	settleAfter = 5 * media.VideoTimescale / 2
	// shortTarget and longTarget are the target durations in seconds: with
	// and without a second keyframe by then. Never under 4: hls.js gives a playlist
	// request 0.8 of it.
	shortTarget, longTarget = 4, 10
	// cutAhead is how long before the target duration a place for a cut in the
	// middle of a GOP is looked for.
	cutAhead = media.VideoTimescale / 2
	// minHoldBack is the least PART-HOLD-BACK: it outlasts a worker's takeover.
	minHoldBack = 12 * media.VideoTimescale / 10
	// tracksWait is how long the tracks and the frame rate are waited for.
	tracksWait = time.Second
	// picturesWait is how long pictures are waited for that are announced, but of which
	// nothing comes while sound does.
	picturesWait = 5 * time.Second
	// rateFrames is how many frames measure the frame rate.
	rateFrames = 12
	// silenceAfter is how far audio may fall behind video before silence is
	// filled in, up to silenceUpTo behind it.
	silenceAfter = media.VideoTimescale / 2
	silenceUpTo  = media.VideoTimescale / 10
	// maxGather and maxGatherBytes bound what is held back while the tracks are waited for.
	maxGather      = 512
	maxGatherBytes = 16 << 20
	// MaxComposition bounds how far PTS and DTS may be apart.
	MaxComposition = 10 * media.VideoTimescale
)

// sequence puts one unit into the log, with a mark before it where one is due.
func (s *Sequencer) sequence(u media.Unit, now time.Time) {
	u.DTS, u.PTS = u.DTS+s.delay, u.PTS+s.delay
	switch {
	case u.Track == media.Video && s.settings.Video:
		s.sequenceVideo(u, now)
	case u.Track == media.Audio && s.settings.Audio:
		s.sequenceAudio(u, now)
	}
}

func (s *Sequencer) sequenceVideo(u media.Unit, now time.Time) {
	if !s.early(u, now) {
		s.placeVideo(u, now)
	}
}

// placeVideo puts a picture into the log, with a mark before it where one is due.
func (s *Sequencer) placeVideo(u media.Unit, now time.Time) {
	start := s.Start(&u, now)
	if start == media.NoStart && u.PTS < s.leading {
		return // it refers past the picture that decoding starts at
	}
	s.leading = 0
	u.RandomAccess = start >= media.OpenStart
	if s.hold.on && !s.release(&u, now) || s.behindHold(&u) {
		return
	}
	fresh := s.brk || !s.opened
	at := u.DTS + s.shift
	// With leading pictures a segment begins with the first of them, which is shown
	// before the one that decoding starts at.
	clean := start == media.CleanStart || fresh && start > media.NoStart || start == media.OpenStart && (u.PTS <= at+s.step/2 || s.hold.broken)
	if clean {
		at = u.PTS
	}
	if s.opened {
		s.settleTarget(at, start > media.NoStart && !s.jumped)
		early := s.outlasts(at, u.DTS)
		at, u.DTS, u.PTS = at-early, u.DTS-early, u.PTS-early
	}
	elapsed := at - s.mark.Start
	switch {
	case fresh && start > media.NoStart:
		s.openAtStart(&u, at, clean, now)
		s.firstKeyframe = cmp.Or(s.firstKeyframe, u.PTS)
	case !s.opened:
		return // after a pause: nothing can be decoded before the first keyframe
	case start > media.NoStart:
		elapsed = u.PTS - s.mark.Start // its leading pictures don't shorten a segment that goes without them
		if elapsed >= segmentDuration || s.hold.broken || s.midGOP && elapsed >= dependentDuration {
			s.openAtStart(&u, at, clean, now)
		}
	default:
		if td := s.target(); td > 0 && (elapsed > td-cutAhead && at > s.maxPTS || elapsed+s.step > td) {
			// The GOP outlasts the target duration. Where at > maxPTS no later
			// frame is shown before this one, and the pictures divide cleanly.
			s.open(at, false, now)
			s.midGOP = true
		}
	}
	s.starts.pass(&u, s.video.Format)
	s.maxPTS = max(s.maxPTS, u.PTS)
	s.put(relay.Entry{Unit: &u})
	s.hold.picture(u, s.soundEnd(), s.tail.End())
	s.fillSilence(s.tail.Last())
}

func (s *Sequencer) target() media.Ticks {
	return media.Ticks(s.settings.TargetDuration) * media.VideoTimescale
}

// outlasts returns how much earlier a picture that comes after a gap must be
// shown, so that the open segment doesn't outlast the target duration.
func (s *Sequencer) outlasts(at, dts media.Ticks) (early media.Ticks) {
	if s.target() == 0 {
		return 0
	}
	most := dts - (s.tail.Last() - s.shift) - media.TicksPerMillisecond // decode times rise
	return max(0, min(at-s.mark.Start-s.target(), most))
}

// openAtStart opens a segment at a picture that decoding can start at: right there,
// with clean, or so that all is right only later.
func (s *Sequencer) openAtStart(u *media.Unit, at media.Ticks, clean bool, now time.Time) {
	m := &s.mark
	if s.brk || !s.opened {
		m.Recode = false
	}
	m.Recode = m.Recode || s.video.Format == media.H264 && u.Start() != media.CleanStart
	if clean {
		s.openAtKeyframe(u, now)
	} else {
		s.open(at, false, now)
	}
	s.starts.begin(m.Sequence, u)
	s.midGOP, s.hold.broken = false, false
}

// openAtKeyframe opens a segment that decoding can start at. Where its composition
// time is shorter than the one before, all that follows is delayed: a segment
// begins after the last picture of the one before it.
func (s *Sequencer) openAtKeyframe(u *media.Unit, now time.Time) {
	if last := max(s.tail.Last(), s.mark.Start-s.step); s.wallAt != 0 && u.PTS <= last {
		d := (s.end() - u.PTS).CeilMillisecond()
		s.delay += d
		u.DTS, u.PTS = u.DTS+d, u.PTS+d
	}
	if u.Start() == media.OpenStart && s.wallAt != 0 && u.PTS-u.DTS > s.shift {
		// Its leading pictures go: it is decoded in place of the last of them.
		u.DTS, s.leading = u.PTS-s.shift, u.PTS
	}
	s.shift = u.PTS - u.DTS
	s.open(u.PTS, true, now)
}

func (s *Sequencer) sequenceAudio(u media.Unit, now time.Time) {
	if !s.settings.Video && (s.brk || !s.opened) {
		s.open(u.DTS, true, now)
	}
	if !s.hold.on && s.opened && s.settings.Video && s.grid != nil && s.pending() && u.DTS-s.end() >= s.holdAfter() {
		s.silenceUntil(u.DTS) // no picture brings the mark that this sound waits for
		s.holdPicture(now)
	}
	if s.hold.on && s.breaksNow() {
		s.breakHeld(now)
	}
	if !s.opened || s.grid == nil || s.pending() {
		return // before the first mark, or of a format that the next mark brings
	}
	fill, drop := s.grid.place(u.DTS)
	if drop {
		return
	}
	for range fill {
		s.putAudio(s.sounding.Silence(), now)
	}
	s.putAudio(u.Payload, now)
	s.holdPicture(now)
	s.dueEarly(now)
}

// putAudio puts a frame on the next place of the grid. In a broadcast without
// pictures it is what marks come with.
func (s *Sequencer) putAudio(payload []byte, now time.Time) {
	t := s.grid.end()
	if !s.settings.Video {
		if t-s.mark.Start >= segmentDuration {
			s.open(t, true, now)
		}
	}
	s.grid.advance()
	s.put(relay.Entry{Unit: &media.Unit{Track: media.Audio, DTS: t, PTS: t, Payload: payload}})
}

// pending reports whether the publisher's sound waits for the mark that brings its codec.
func (s *Sequencer) pending() bool { return s.audio != nil && s.audio != s.sounding }

// breaksNow reports whether the next mark that may begins a discontinuity. While a
// picture is held, another codec of pictures waits for its first one.
func (s *Sequencer) breaksNow() bool {
	return s.brk && (!s.hold.on || s.jumped || s.pending())
}

// fillSilence keeps a track of sound that stopped at most silenceAfter behind, and one
// that hasn't begun beside the pictures.
func (s *Sequencer) fillSilence(at media.Ticks) {
	switch {
	case s.grid == nil:
	case s.mute || s.pending():
		s.silenceUntil(at)
	case at-s.grid.end() >= silenceAfter:
		s.silenceUntil(at - silenceUpTo)
	}
}

func (s *Sequencer) silenceUntil(at media.Ticks) {
	for s.grid.end() < at {
		t := s.grid.advance().Ticks(s.grid.rate)
		s.put(relay.Entry{Unit: &media.Unit{Track: media.Audio, DTS: t, PTS: t, Payload: s.sounding.Silence()}})
	}
}

// open writes the mark of the next segment, which ends the one before it.
func (s *Sequencer) open(start media.Ticks, independent bool, now time.Time) {
	m := &s.mark
	fresh := !s.opened
	if s.opened {
		m.Sequence++
	}
	if s.breaksNow() && independent { // else the break waits for the next keyframe
		if s.wallAt != 0 {
			m.Discontinuity++
		}
		if s.mute = s.settings.Audio && s.audio == nil; s.mute && s.sounding == nil {
			s.audio = silent
		}
		if s.audio != nil && s.settings.Audio {
			if s.opened && s.grid != nil && s.pending() {
				s.silenceUntil(start)
			}
			s.startGrid(start)
			if !s.settings.Video {
				start = s.grid.end()
			}
		}
		s.anchor(start, now)
		if s.video != nil && s.settings.Video {
			if !s.hold.on || s.coded == nil {
				s.coded = s.video
			}
			s.put(relay.Entry{Codec: s.coded})
		}
		if s.audio != nil && s.settings.Audio {
			s.sounding = s.audio
			s.put(relay.Entry{Codec: s.audio})
		}
		s.brk, s.jumped = s.hold.on && !s.coded.Equal(s.video), false
	}
	s.opened = true
	m.Kind, m.Held = relay.Open, s.hold.on
	m.Start = start
	m.Time = s.wallTime(start)
	if independent || fresh {
		m.DecodeFrom = m.Sequence
		s.starts.points = []point{{sequence: m.Sequence}}
	} else {
		m.DecodeFrom = s.starts.decodeFrom()
	}
	if s.grid != nil {
		m.AudioStart = s.grid.atOrAfter(start)
	}
	s.emitMark()
}

// anchor ties the timeline to the wall clock, which never goes back.
func (s *Sequencer) anchor(start media.Ticks, now time.Time) {
	if s.wallAt != 0 {
		if end := s.wall.Add((start - s.wallAt).Duration()); now.Before(end) {
			now = end
		}
	}
	s.wall, s.wallAt = now, start
}

// startGrid begins a grid of audio samples at a discontinuity: where the
// gathered sound lies, or where the sound ran on to, else at start.
func (s *Sequencer) startGrid(start media.Ticks) {
	near := func(t media.Ticks) bool { return t > start-media.VideoTimescale && t < start+media.VideoTimescale }
	switch {
	case s.phase != 0 && near(s.phase):
		s.grid = newSoundGrid(s.phase, s.audio)
	case s.grid != nil && s.grid.fits(s.audio) && s.grid.end() > start-media.VideoTimescale: // never back
	default:
		s.grid = newSoundGrid(start, s.audio)
	}
	s.phase = 0
}

func (s *Sequencer) emitMark() {
	m := s.mark
	s.put(relay.Entry{Mark: &m})
}

// Pause closes the open segment while the publisher is away.
func (s *Sequencer) Pause() { s.closeSegment(relay.Pause) }

// Finish closes the open segment and the broadcast.
func (s *Sequencer) Finish() { s.closeSegment(relay.End) }

func (s *Sequencer) closeSegment(kind relay.MarkKind) {
	for s.hold.on && s.hold.next < s.soundEnd() {
		s.repeat()
	}
	end := s.end()
	if s.settled && s.settings.TargetDuration == 0 {
		s.settings.TargetDuration = shortTarget
		s.emitSettings()
	}
	if s.opened {
		if s.grid != nil && s.settings.Video && end-s.grid.end() < media.VideoTimescale {
			s.silenceUntil(end)
		}
		s.mark.Sequence++
		s.opened = false
	}
	s.hold, s.mark.Held = hold{}, false
	m := s.mark
	if s.wallAt != 0 {
		m = s.tail.Close(kind)
	} else { // nothing was published
		m.Kind, m.Start, m.Time, m.DecodeFrom = kind, end, s.wallTime(end), m.Sequence
	}
	s.put(relay.Entry{Mark: &m})
}
