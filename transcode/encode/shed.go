package encode

import (
	"time"

	"millrace/internal/index"
	"millrace/internal/media"
)

// Shedding: where encoding is too slow, a broadcast's highest rungs aren't made
// for a while, and others stand in for them.

const (
	// slowLag is how far the rungs of the segments before may be behind at a
	// mark: the highest is shed when it is so twice, or once by tooSlowLag. What a
	// process holds back until the mark is two parts, a player has as much again.
	slowLag    media.Ticks = 8 * media.VideoTimescale / 10
	tooSlowLag media.Ticks = 12 * media.VideoTimescale / 10
	// calmSegments is how long a shed rung is left before it is tried again;
	// longer, up to maxPatience, each time it has to be shed soon after.
	calmSegments = 15
	maxPatience  = 8 * calmSegments
	// stoodStill is how long this process can't have been at work where it has seen
	// nothing, not even its own clock: its host froze it. For stoodGrace after that
	// rungs that are behind don't tell of want of room.
	stoodStill = time.Second
	stoodGrace = 4 * time.Second
	// burstLead is how much faster than real time a segment came from the log
	// when the worker catches up with it.
	burstLead = media.VideoTimescale / 2
	// maxUnmade bounds the segments that are encoded or wait for it, of those
	// that came at real time: past it no rung is made of further ones.
	maxUnmade = 4
)

// shedding is what is known of how encoding keeps up.
type shedding struct {
	shed     int       // how many rungs, from the highest on, are not made now
	counted  int       // how many of those the metric counts
	slow     int       // marks in a row at which encoding was too slow
	calm     int       // segments since encoding was last too slow
	resumed  bool      // the newest change was a rung that is made again
	patience int       // segments without that after which a rung is made again
	read     time.Time // when the newest mark was read
	looked   time.Time // when the worker last went round
	stood    time.Time // when it last found that the process had stood still
}

// awake notes that the worker goes round.
func (s *shedding) awake(now time.Time) {
	if !s.looked.IsZero() && now.Sub(s.looked) > watchInterval+stoodStill && now.After(s.stood) {
		s.stood = now
	}
	s.looked = now
}

// mayShed is how many rungs may be shed. A source that every player can play, and
// start with, stands in for all of its rungs; of any other one the lowest rung is always
// made, whatever room there is, since browsers would have no picture at all. Only
// where even that falls so far behind that segments aren't begun (maxUnmade) do
// these become gaps.
func (e *encoding) mayShed() int {
	n := len(e.rungs)
	if n > 0 && (e.recoded || e.source.Rare) {
		n--
	}
	return n
}

// balance sheds the highest rung when encoding falls behind, takes it up again
// when there is room, and returns how many rungs to make of this segment.
func (e *encoding) balance(s *segment) int {
	if e.Backfill {
		return len(e.rungs)
	}
	unmade, lag := e.behind(s)
	e.calm++
	if lag > times(slowLag, e.Tolerance) {
		e.slow++
		e.Budget.fellBehind(e.read)
	} else {
		e.slow = 0
	}
	switch {
	case e.shed < e.mayShed() && (e.slow > 1 || lag > times(tooSlowLag, e.Tolerance)):
		if e.resumed && e.calm < calmSegments { // it was taken up again too soon
			e.patience = min(2*e.patience, maxPatience)
		}
		e.Log.Warn("encoding is too slow: a rung is shed", "rung", e.rungs[e.shed].Name, "sequence", s.tl.mark.Sequence, "behind", lag.Duration())
		e.slow, e.calm, e.resumed = 0, 0, false
		e.shed++
		e.Budget.force(e, e.need(e.rungs[e.shed:])) // less than before, if more than there is
		e.group()
	case e.slow == 0 && e.calm >= e.patience && e.shed > 0:
		if !e.Budget.add(e, e.need(e.rungs[e.shed-1:]), e.read) {
			break
		}
		e.calm, e.resumed = 0, true
		e.shed--
		e.Log.Info("a rung is made again", "rung", e.rungs[e.shed].Name, "sequence", s.tl.mark.Sequence)
		e.group()
	}
	if float64(unmade) >= maxUnmade*e.Tolerance {
		return 0
	}
	return len(e.rungs) - e.shed
}

// behind returns how many segments before s lack media of a rung, and by how much
// the one that lacks most is behind. Segments that came faster than real time,
// since the worker catches up with the log, say nothing about how fast encoding
// is: they are waited for. Nor does one that is begun again, since its process died.
func (e *encoding) behind(s *segment) (unmade int, lag media.Ticks) {
	now := time.Now()
	read := e.read
	e.read = now
	lacking := false
	for i, old := range e.segments.list {
		if old == s {
			break
		}
		if i == len(e.segments.list)-2 {
			ahead := s.tl.mark.Start - old.tl.mark.Start - media.TicksOf(now.Sub(read))
			old.burst = ahead > burstLead
		}
		for _, r := range old.rungs {
			if r.done || r.standIn != "" {
				continue
			}
			if old.burst {
				unmade, lag, lacking = 0, 0, false
				break
			}
			lacking = true
			if !r.again {
				lag = max(lag, s.tl.mark.Start-r.reached())
			}
		}
		if lacking {
			unmade++
		}
	}
	if !e.stood.IsZero() && now.Sub(e.stood) < stoodGrace {
		return 0, 0 // its encoders had nothing to do, whatever room there is
	}
	return unmade, lag
}

// reached is up to where the rung's parts are written.
func (r *rungWork) reached() media.Ticks {
	if r.out == nil {
		return r.segment.tl.mark.Start
	}
	return r.out.reached()
}

// standIn lists, in place of each rung that isn't made of this segment, the
// next lower one that is, or else the source: players know a rendition for the
// whole broadcast, and one without media would stop them. What stands in is
// always H.264: where a source in another format is all that there is, the rungs
// have a gap.
func (e *encoding) standIn(s *segment, made int) {
	missing := len(s.rungs) - made
	name, init := sourceName, e.header
	switch {
	case made > 0:
		name, init = s.rungs[missing].rung.Name, nil // its init comes with its media
	case s.standIn != nil:
		name, init = sourceName, nil
	case !s.codec.Universal:
		for _, r := range s.rungs {
			r.failed = true
		}
		e.Metrics.shed.Add(float64(missing))
		return
	}
	for _, r := range s.rungs[:missing] {
		r.standIn = name
		if init != nil {
			e.out.init(r.rung.Name, init, index.Entry{Epoch: s.tl.mark.Epoch})
		}
	}
	e.Metrics.shed.Add(float64(missing))
}
