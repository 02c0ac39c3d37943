// Package timeline makes the log of a broadcast of what its publishers send:
// access units whose times everybody takes as they are, and cut marks that say
// where each segment begins. It does no I/O and reads no clock: the time of day
// comes in with each call.
package timeline

import (
	"math"
	"time"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// Sequencer turns what publishers send into the log of a broadcast: settings,
// cut marks, and access units with times that everybody after it takes as they
// are. It is the only part of Millrace that numbers anything. Not safe for
// concurrent use.
type Sequencer struct {
	emit func(relay.Entry)
	tail relay.Tail // of what was emitted

	settings relay.Settings
	settled  bool // tracks, frame rate and part target
	mark     relay.Mark
	opened   bool // the segment of mark is open
	wall     time.Time
	wallAt   media.Ticks

	// Of the publisher that is connected.
	clock     *clock
	gathering bool
	since     time.Time // of the first unit gathered
	began     time.Time // when the first unit came
	held      []heldUnit
	video     *media.Codec
	audio     *media.Codec
	expected  bool    // pictures come, but no codec yet
	claimed   float64 // the frame rate that the metadata names
	brk       bool    // the next keyframe starts a discontinuity
	jumped    bool    // and that since the times jumped
	step      media.Ticks
	mute      bool // the publisher has sent no codec of sound: silence takes its place
	heldBytes int
	phase     media.Ticks // of the first sound gathered that isn't before the first keyframe
	delay     media.Ticks // what is added to the clock's times

	// Of the segment that is open, in the video's decode order.
	starts        starts
	midGOP        bool        // it begins where decoding can't start
	shift         media.Ticks // composition time of the keyframe that decoding starts at
	maxPTS        media.Ticks
	leading       media.Ticks // pictures shown before this one of an open GOP are left out
	firstKeyframe media.Ticks
	coded         *media.Codec // that the log has of the pictures
	hold          hold
	decoded       media.Ticks // the newest decode time of a picture
	reorder       media.Ticks // how much later than decoded pictures usually are shown, at most
	pushed        time.Time   // when the newest unit came
	grid          *soundGrid
	sounding      *media.Codec // the codec that grid and log have
}

// NewSequencer begins a broadcast under an ingest's lease epoch; emit gets what goes into the log.
func NewSequencer(epoch uint64, emit func(relay.Entry)) *Sequencer {
	return &Sequencer{
		emit: emit,
		mark: relay.Mark{Epoch: epoch},
		step: media.VideoTimescale / 30,
	}
}

// Attach begins a publisher: the timeline goes on where it ended.
func (s *Sequencer) Attach(resumed bool) {
	s.clock = newClock(s.end())
	s.gathering, s.held, s.heldBytes, s.since = true, nil, 0, time.Time{}
	s.video, s.audio, s.expected, s.claimed, s.mute = nil, nil, false, 0, false
	s.starts = starts{}
	s.hold, s.decoded, s.reorder, s.pushed = hold{}, 0, 0, time.Time{}
	s.brk, s.jumped, s.delay = resumed, false, 0
}

// Resume goes on with a broadcast that another Sequencer began. It comes first.
func (s *Sequencer) Resume(c relay.Handoff) {
	epoch := s.mark.Epoch
	s.mark = c.Mark
	s.mark.Epoch, s.mark.Kind, s.mark.DecodeFrom = epoch, relay.Pause, c.Mark.Sequence
	if s.settled = c.Settings.PartTarget != 0; s.settled {
		s.settings = c.Settings
		if c.Settings.FrameRate > 0 {
			s.step = media.Ticks(math.Round(media.VideoTimescale / c.Settings.FrameRate))
		}
		s.emitSettings()
	}
	if c.Mark.Time.IsZero() {
		return // nothing was published yet
	}
	s.mark.Start = max(c.Mark.Start, timelineStart).CeilMillisecond()
	s.wall, s.wallAt = c.Mark.Time, s.mark.Start
	s.emitMark()
}

// Handoff is what Resume takes. While a segment is open, it counts as used.
func (s *Sequencer) Handoff() relay.Handoff {
	if s.wallAt != 0 {
		return s.tail.Handoff()
	}
	h := relay.Handoff{Settings: s.settings, Mark: s.mark}
	h.Mark.Kind, h.Mark.DecodeFrom, h.Mark.Start, h.Mark.Time = relay.Pause, h.Mark.Sequence, 0, time.Time{}
	return h
}

// put emits an entry.
func (s *Sequencer) put(e relay.Entry) {
	s.tail.Add(e)
	s.emit(e)
}

// Settings are what is settled by now; ok is false before tracks, frame rate and
// part target are.
func (s *Sequencer) Settings() (st relay.Settings, ok bool) { return s.settings, s.settled }

// Mark is the newest mark. open reports whether its segment is open.
func (s *Sequencer) Mark() (m relay.Mark, open bool) { return s.mark, s.opened }

// NextMark is the sequence of the mark that comes next.
func (s *Sequencer) NextMark() uint64 {
	if s.opened {
		return s.mark.Sequence + 1
	}
	return s.mark.Sequence
}

// Codec is the publisher's of a track, nil before it came.
func (s *Sequencer) Codec(track media.Kind) *media.Codec {
	if track == media.Video {
		return s.video
	}
	return s.audio
}

// Has reports whether a track of the publisher is of use: it is not settled that
// the broadcast goes without.
func (s *Sequencer) Has(track media.Kind) bool {
	if track == media.Video {
		return !s.settled || s.settings.Video
	}
	return !s.settled || s.settings.Audio
}

// Newest is the timeline's end for the publisher that is connected: the time of
// its newest frame of any track.
func (s *Sequencer) Newest() media.Ticks { return s.clock.newest }

// Claim notes the frame rate that the publisher's metadata names.
func (s *Sequencer) Claim(frameRate float64) { s.claimed = frameRate }

// wallTime is the wall-clock time of a place on the timeline.
func (s *Sequencer) wallTime(at media.Ticks) time.Time {
	return s.wall.Add((at - s.wallAt).Duration()).UTC().Truncate(time.Millisecond)
}

// end is where the media ends; before there is any, where it begins.
func (s *Sequencer) end() media.Ticks {
	if s.wallAt == 0 {
		return timelineStart + s.step
	}
	return s.tail.End()
}

// Mute reports whether the broadcast has begun without the publisher's sound: viewers
// hear silence.
func (s *Sequencer) Mute() bool { return s.mute }

// SetCodec takes the codec of a track. In mid-broadcast it starts a
// discontinuity at the next keyframe.
func (s *Sequencer) SetCodec(c *media.Codec) (changed bool) {
	of, settled := &s.video, s.settings.Video
	if c.Kind() == media.Audio {
		of, settled = &s.audio, s.settings.Audio
	}
	if c.Kind() == media.Audio {
		s.mute = false
	}
	if c.Equal(*of) {
		return false
	}
	// How long frames are may be known only by the first one.
	lengthOnly := s.gathering && *of != nil && c.WithFrame((*of).FrameSamples).Equal(*of)
	changed = *of != nil && !lengthOnly
	*of = c
	if !s.gathering && settled {
		s.brk = true
	}
	return changed
}

// Waiting reports whether pictures are left out, since nothing can be decoded
// before the publisher's first keyframe.
func (s *Sequencer) Waiting() bool { return s.gathering && !s.heldKeyframe() }

// Push takes a unit with times on the publisher's own time line, whose track has
// a codec by now. at is its decode time on the broadcast's timeline; jumped
// reports that the publisher's times jumped, which begins a discontinuity.
func (s *Sequencer) Push(u media.Unit, now time.Time) (at media.Ticks, jumped bool) {
	step := s.step
	if u.Track == media.Audio {
		step = s.audio.Step()
	} else if s.Start(&u, now) == media.NoStart && s.Waiting() {
		return s.clock.tracks[media.Video].last, false
	}
	composition := u.PTS - u.DTS
	at, jumped = s.clock.at(u.Track, u.DTS, composition, step, s.rest(now))
	s.brk, s.jumped = s.brk || jumped, s.jumped || jumped
	u.DTS, u.PTS = at, at+composition
	if u.Track == media.Video {
		s.afterHole(&u)
	}
	s.push(u, now)
	return at, jumped
}
