package access

import "millrace/internal/media"

const (
	// longestSpread is over how much time pictures with the same time are spread at most.
	longestSpread = media.VideoTimescale
	// usualSpan is how far pictures are apart before anything is known.
	usualSpan = media.VideoTimescale / 30
)

// spreader gives each picture a time of its own: those that have the same one are
// spread evenly until the next.
type spreader struct {
	started bool
	several bool        // pictures share a message, which is told already
	time    media.Ticks // the newest that pictures came with,
	n       int         // and how many had it
	last    media.Ticks // the newest that was given
	repeats bool        // several had the time before, too

	// What is expected: so many pictures, and then the next time after span.
	count int
	span  media.Ticks
	// known is the time of which that is known, not guessed.
	known      media.Ticks
	knownCount int
	knownSpan  media.Ticks
}

// expect says that n pictures have a time, and which one comes next.
func (s *spreader) expect(time media.Ticks, n int, next media.Ticks) {
	s.knownCount = 0
	if d := next - time; d > 0 && d <= longestSpread {
		s.known, s.knownCount, s.knownSpan = time, n, d
	}
}

// at returns the time for a picture that came with one. shared reports that such
// times are shared again and again.
func (s *spreader) at(time media.Ticks) (t media.Ticks, shared bool) {
	if !s.started || time != s.time {
		s.turn(time)
	}
	t = time + media.Ticks(s.n)*s.span/media.Ticks(max(s.count, s.n+1))
	t = max(t, s.last+media.TicksPerMillisecond)
	s.last = t
	s.n++
	return t, s.n == 2 && s.repeats && !s.several
}

// turn goes on to another time.
func (s *spreader) turn(time media.Ticks) {
	d := time - s.time
	switch {
	case !s.started || d <= 0:
		s.last = time - media.TicksPerMillisecond // the first one, or a jump back
		if !s.started {
			s.count, s.span = 1, usualSpan
		}
	case d <= longestSpread:
		s.count, s.span = s.n, d
	}
	if s.knownCount > 0 && s.known == time {
		s.count, s.span, s.knownCount = s.knownCount, s.knownSpan, 0
	}
	s.started, s.time, s.repeats, s.n = true, time, s.n > 1, 0
}
