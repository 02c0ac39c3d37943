// Package timeline makes the log of a broadcast of what its publishers send:
// access units whose times everybody takes as they are, and cut marks that say
// where each segment begins. It does no I/O and reads no clock: the time of day
// comes in with each call.
package timeline

import (
	"cmp"
	"math"
	"time"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// How a broadcast is cut.
const (
	// segmentDuration is what a segment lasts at least, less a frame's jitter.
	segmentDuration = 2*media.VideoTimescale - cutTolerance
	cutTolerance    = media.VideoTimescale / 20
	// dependentDuration is what a segment lasts at least that doesn't begin with an IDR.
	dependentDuration = media.VideoTimescale
	// settleAfter is when the target duration is settled, counted from the first IDR.
	settleAfter = 5 * media.VideoTimescale / 2
	// shortTarget and longTarget are the target durations in seconds: with
	// and without a second IDR by then. Never under 4: hls.js gives a playlist
	// request 0.8 of it.
	shortTarget, longTarget = 4, 10
	// cutAhead is how long before the target duration a place for a cut in the
	// middle of a GOP is looked for.
	cutAhead = media.VideoTimescale / 2
	// minHoldBack is the least PART-HOLD-BACK: it outlasts a worker's takeover.
	minHoldBack = 12 * media.VideoTimescale / 10
	// tracksWait is how long the tracks and the frame rate are waited for.
	tracksWait = time.Second
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

// Entry is one thing in the log: exactly one field is set.
type Entry struct {
	Mark     *relay.Mark
	Settings *relay.Settings
	Video    *media.AVCConfig // in force from here on
	Audio    *media.AACConfig
	Unit     *media.AccessUnit
}

// Sequencer turns what publishers send into the log of a broadcast: settings,
// cut marks, and access units with times that everybody after it takes as they
// are. It is the only part of Millrace that numbers anything. Not safe for
// concurrent use.
type Sequencer struct {
	emit func(Entry)

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
	held      []heldUnit
	video     *media.AVCConfig
	audio     *media.AACConfig
	claimed   float64 // the frame rate that the metadata names
	brk       bool    // the next IDR starts a discontinuity
	step      media.Ticks
	heldBytes int
	phase     media.Ticks // of the first sound gathered that isn't before the first IDR
	delay     media.Ticks // what is added to the clock's times

	// Of the segment that is open, in the video's decode order.
	shift    media.Ticks // composition time of the IDR that decoding starts at
	maxPTS   media.Ticks
	lastDTS  media.Ticks // shifted
	firstIDR media.Ticks
	grid     *audioGrid
	sounding *media.AACConfig // the configuration that grid and log have
}

// NewSequencer begins a broadcast under an ingest's lease epoch; emit gets what goes into the log.
func NewSequencer(epoch uint64, emit func(Entry)) *Sequencer {
	return &Sequencer{
		emit:    emit,
		mark:    relay.Mark{Epoch: epoch},
		lastDTS: timelineStart, step: media.VideoTimescale / 30,
	}
}

// Attach begins a publisher: the timeline goes on where it ended.
func (s *Sequencer) Attach(resumed bool) {
	s.clock = newClock(s.end())
	s.gathering, s.held, s.heldBytes, s.since = true, nil, 0, time.Time{}
	s.video, s.audio, s.claimed = nil, nil, 0
	s.brk, s.delay = resumed, 0
}

// Resume goes on with a broadcast that another Sequencer began. It comes first.
func (s *Sequencer) Resume(c relay.Carry) {
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
	s.mark.Start = wholeMilliseconds(max(c.Mark.Start, timelineStart))
	s.lastDTS = s.mark.Start - s.step
	s.wall, s.wallAt = c.Mark.Time, s.mark.Start
	s.emitMark()
}

// Carry is what Resume takes. While a segment is open, it counts as used.
func (s *Sequencer) Carry() relay.Carry {
	c := relay.Carry{Settings: s.settings, Mark: s.mark}
	m := &c.Mark
	m.Kind = relay.Pause
	if s.opened {
		m.Sequence++
	}
	m.DecodeFrom = m.Sequence
	if s.wallAt == 0 {
		m.Start, m.Time = 0, time.Time{}
		return c
	}
	m.Start = s.end()
	if s.grid != nil { // sound may reach further than pictures
		m.Start = wholeMilliseconds(max(m.Start, s.grid.next.Ticks(s.grid.rate)))
		m.AudioStart = s.grid.atOrAfter(m.Start)
	}
	m.Time = s.wallTime(m.Start)
	return c
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

// Video is the publisher's configuration of pictures, nil before it came.
func (s *Sequencer) Video() *media.AVCConfig { return s.video }

// Audio is the publisher's configuration of sound, nil before it came.
func (s *Sequencer) Audio() *media.AACConfig { return s.audio }

// Newest is the timeline's end for the publisher that is connected: the time of
// its newest frame of any track.
func (s *Sequencer) Newest() media.Ticks { return s.clock.newest }

// Claim notes the frame rate that the publisher's metadata names.
func (s *Sequencer) Claim(frameRate float64) { s.claimed = frameRate }

// wallTime is the wall-clock time of a place on the timeline.
func (s *Sequencer) wallTime(at media.Ticks) time.Time {
	return s.wall.Add((at - s.wallAt).Duration()).UTC().Truncate(time.Millisecond)
}

// end is where the media ends.
func (s *Sequencer) end() media.Ticks { return s.lastDTS + s.step }

// SetVideo takes a new decoder configuration. In mid-broadcast it starts a
// discontinuity at the next IDR.
func (s *Sequencer) SetVideo(c *media.AVCConfig) (changed bool) {
	if s.video != nil && string(s.video.Record) == string(c.Record) {
		return false
	}
	changed = s.video != nil
	s.video = c
	if !s.gathering && s.settings.Video {
		s.brk = true
	}
	return changed
}

// SetAudio takes a new audio configuration.
func (s *Sequencer) SetAudio(c *media.AACConfig) (changed bool) {
	if s.audio != nil && string(s.audio.ASC) == string(c.ASC) {
		return false
	}
	changed = s.audio != nil
	s.audio = c
	if !s.gathering && s.settings.Audio {
		s.brk = true
	}
	return changed
}

// PushVideo takes an access unit. composition is PTS - DTS. at is its decode
// time on the timeline; jumped reports that the publisher's timestamps jumped.
func (s *Sequencer) PushVideo(raw uint32, composition media.Ticks, idr bool, payload []byte, now time.Time) (at media.Ticks, jumped bool) {
	if s.gathering && !idr && !s.heldIDR() { // nothing can be decoded before the first IDR
		return s.clock.tracks[media.Video].last, false
	}
	at, jumped = s.clock.at(media.Video, raw, s.step)
	s.brk = s.brk || jumped
	s.push(media.AccessUnit{Kind: media.Video, DTS: at, PTS: at + composition, IDR: idr, Payload: payload}, now)
	return at, jumped
}

// PushAudio takes one AAC frame.
func (s *Sequencer) PushAudio(raw uint32, payload []byte, now time.Time) (jumped bool) {
	t, jumped := s.clock.at(media.Audio, raw, s.audioStep())
	s.brk = s.brk || jumped
	s.push(media.AccessUnit{Kind: media.Audio, DTS: t, PTS: t, Payload: payload}, now)
	return jumped
}

func (s *Sequencer) audioStep() media.Ticks {
	if s.audio == nil {
		return 0
	}
	return media.Samples(media.AACFrameSamples).Ticks(s.audio.Rate)
}

// sequence puts one unit into the log, with a mark before it where one is due.
func (s *Sequencer) sequence(u media.AccessUnit, now time.Time) {
	u.DTS, u.PTS = u.DTS+s.delay, u.PTS+s.delay
	switch {
	case u.Kind == media.Video && s.settings.Video:
		s.sequenceVideo(u, now)
	case u.Kind == media.Audio && s.settings.Audio:
		s.sequenceAudio(u, now)
	}
}

func (s *Sequencer) sequenceVideo(u media.AccessUnit, now time.Time) {
	at := u.DTS + s.shift
	if u.IDR {
		at = u.PTS
	}
	if s.opened {
		s.settleTarget(at, u.IDR && !s.brk)
		early := s.outlasts(at, u.DTS)
		at, u.DTS, u.PTS = at-early, u.DTS-early, u.PTS-early
	}
	elapsed := at - s.mark.Start
	switch {
	case u.IDR && (s.brk || !s.opened):
		s.openAtIDR(&u, now)
		s.firstIDR = cmp.Or(s.firstIDR, u.PTS)
	case !s.opened:
		return // after a pause: nothing can be decoded before the first IDR
	case u.IDR:
		if elapsed >= segmentDuration || (!s.mark.Independent() && elapsed >= dependentDuration) {
			s.openAtIDR(&u, now)
		}
	default:
		if td := s.target(); td > 0 && (elapsed > td-cutAhead && at > s.maxPTS || elapsed+s.step > td) {
			// The GOP outlasts the target duration. Where at > maxPTS no later
			// frame is shown before this one, and the pictures divide cleanly.
			s.open(at, false, now)
		}
	}
	s.lastDTS = u.DTS + s.shift
	s.maxPTS = max(s.maxPTS, u.PTS)
	s.emit(Entry{Unit: &u})
	s.fillSilence(s.lastDTS)
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
	most := dts - (s.lastDTS - s.shift) - media.TicksPerMillisecond // decode times rise
	return max(0, min(at-s.mark.Start-s.target(), most))
}

// openAtIDR opens a segment that decoding can start at. Where its composition
// time is shorter than the one before, all that follows is delayed: a segment
// begins after the last picture of the one before it.
func (s *Sequencer) openAtIDR(u *media.AccessUnit, now time.Time) {
	if s.wallAt != 0 && u.PTS <= s.lastDTS {
		d := wholeMilliseconds(s.end() - u.PTS)
		s.delay += d
		u.DTS, u.PTS = u.DTS+d, u.PTS+d
	}
	s.shift = u.PTS - u.DTS
	s.open(u.PTS, true, now)
}

func (s *Sequencer) sequenceAudio(u media.AccessUnit, now time.Time) {
	if !s.settings.Video && (s.brk || !s.opened) {
		s.open(u.DTS, true, now)
	}
	if !s.opened || s.grid == nil || s.audio != s.sounding {
		return // before the first mark, or of a format that the next mark brings
	}
	fill, drop := s.grid.place(u.DTS)
	if drop {
		return
	}
	for range fill {
		s.putAudio(media.SilentAAC(s.sounding.Channels), now)
	}
	s.putAudio(u.Payload, now)
}

// putAudio puts a frame on the next place of the grid. In a broadcast without
// pictures it is what marks come with.
func (s *Sequencer) putAudio(payload []byte, now time.Time) {
	t := s.grid.next.Ticks(s.grid.rate)
	if !s.settings.Video {
		if t-s.mark.Start >= segmentDuration {
			s.open(t, true, now)
		}
		s.lastDTS = t
	}
	s.grid.advance()
	s.emit(Entry{Unit: &media.AccessUnit{Kind: media.Audio, DTS: t, PTS: t, Payload: payload}})
}

// fillSilence keeps a track of sound that stopped at most silenceAfter behind.
func (s *Sequencer) fillSilence(at media.Ticks) {
	if s.grid == nil || at-s.grid.next.Ticks(s.grid.rate) < silenceAfter {
		return
	}
	s.silenceUntil(at - silenceUpTo)
}

func (s *Sequencer) silenceUntil(at media.Ticks) {
	for s.grid.next.Ticks(s.grid.rate) < at {
		t := s.grid.advance().Ticks(s.grid.rate)
		s.emit(Entry{Unit: &media.AccessUnit{Kind: media.Audio, DTS: t, PTS: t, Payload: media.SilentAAC(s.sounding.Channels)}})
	}
}

// open writes the mark of the next segment, which ends the one before it.
func (s *Sequencer) open(start media.Ticks, independent bool, now time.Time) {
	m := &s.mark
	fresh := !s.opened
	if s.opened {
		m.Sequence++
	}
	if s.brk && independent { // else the break waits for the next IDR
		if s.wallAt != 0 {
			m.Discontinuity++
		}
		if s.settings.Audio && s.audio == nil && s.sounding == nil {
			// Back at another ingest without its sound, or before it: silence until it comes.
			s.audio = silence()
		}
		if s.audio != nil && s.settings.Audio {
			s.startGrid(start)
			if !s.settings.Video {
				start = s.grid.next.Ticks(s.grid.rate)
			}
		}
		s.anchor(start, now)
		if s.video != nil && s.settings.Video {
			s.emit(Entry{Video: s.video})
		}
		if s.audio != nil && s.settings.Audio {
			s.sounding = s.audio
			s.emit(Entry{Audio: s.audio})
		}
		s.brk = false
	}
	s.opened = true
	m.Kind = relay.Open
	m.Start = start
	m.Time = s.wallTime(start)
	if independent || fresh {
		m.DecodeFrom = m.Sequence
	}
	if s.grid != nil {
		m.AudioStart = s.grid.atOrAfter(start)
	}
	s.emitMark()
}

// silence is the configuration of the sound that stands in for what isn't there.
func silence() *media.AACConfig {
	c, err := media.ParseAACConfig(media.SilentStereo48k)
	if err != nil {
		panic(err) // it is a constant
	}
	return c
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
	rate := s.audio.Rate
	near := func(t media.Ticks) bool { return t > start-media.VideoTimescale && t < start+media.VideoTimescale }
	switch {
	case s.phase != 0 && near(s.phase):
		s.grid = newAudioGrid(s.phase, rate)
	case s.grid != nil && s.grid.rate == rate && near(s.grid.next.Ticks(rate)):
	default:
		s.grid = newAudioGrid(start, rate)
	}
	s.phase = 0
}

func (s *Sequencer) emitMark() {
	m := s.mark
	s.emit(Entry{Mark: &m})
}

// Pause closes the open segment while the publisher is away.
func (s *Sequencer) Pause() { s.closeSegment(relay.Pause) }

// Finish closes the open segment and the broadcast.
func (s *Sequencer) Finish() { s.closeSegment(relay.End) }

func (s *Sequencer) closeSegment(kind relay.MarkKind) {
	end := s.end()
	if s.settled && s.settings.TargetDuration == 0 {
		s.settings.TargetDuration = shortTarget
		s.emitSettings()
	}
	if s.opened {
		if s.grid != nil && s.settings.Video && end-s.grid.next.Ticks(s.grid.rate) < media.VideoTimescale {
			s.silenceUntil(end)
		}
		s.mark.Sequence++
		s.opened = false
	}
	m := s.mark
	m.Kind, m.Start, m.DecodeFrom = kind, end, m.Sequence
	if s.grid != nil {
		m.AudioStart = s.grid.atOrAfter(end)
	}
	m.Time = s.wallTime(end)
	s.emit(Entry{Mark: &m})
}
