package timeline

import (
	"cmp"
	"math"
	"slices"
	"time"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// push takes a unit whose time is known.
func (s *Sequencer) push(u media.Unit, now time.Time) {
	if !s.gathering {
		s.sequence(u, now)
		return
	}
	if s.since.IsZero() {
		s.since, s.began = now, now
	}
	s.held = append(s.held, heldUnit{u, now})
	s.heldBytes += len(u.Payload)
	s.Tick(now)
}

// Tick lets the wait for tracks end by the clock too.
func (s *Sequencer) Tick(now time.Time) {
	if !s.gathering || len(s.held) == 0 || !s.gathered(now) {
		return
	}
	held := dropLeading(s.held)
	s.gathering, s.held, s.heldBytes = false, nil, 0
	first := !s.settled
	if s.settle(held); first { // else there is no room before
		spreadBurst(held, s.step)
	}
	held = interleave(held)
	s.phase = s.soundPhase(held)
	s.brk = true
	for i := range held {
		s.sequence(held[i].unit, held[i].now)
	}
}

// interleave orders pictures and sound by their times, each in the order in which it
// came: a picture is whole when the next one comes, and sound that goes with it was
// here first.
func interleave(held []heldUnit) []heldUnit {
	var pictures, sounds, all []heldUnit
	for _, h := range held {
		if h.unit.Track == media.Video {
			pictures = append(pictures, h)
		} else {
			sounds = append(sounds, h)
		}
	}
	for _, p := range pictures {
		n := 0
		for n < len(sounds) && sounds[n].unit.DTS < p.unit.DTS {
			n++
		}
		all = append(append(all, sounds[:n]...), p)
		sounds = sounds[n:]
	}
	return append(all, sounds...)
}

func (s *Sequencer) heldKeyframe() bool {
	for i := range s.held {
		if s.held[i].unit.Start() > media.IntraStart {
			return true
		}
	}
	return false
}

// PicturesDue reports whether the publisher must send pictures: they are
// announced, or the broadcast has them.
func (s *Sequencer) PicturesDue() bool {
	if s.settled {
		return s.settings.Video
	}
	return s.video != nil || s.expected
}

// ExpectPictures says that the publisher sends pictures, though none could be
// used yet, and their codec may be unknown.
func (s *Sequencer) ExpectPictures() { s.expected = true }

// gathered reports whether the tracks are all here, or have been waited for long enough.
func (s *Sequencer) gathered(now time.Time) bool {
	frames, sounds := 0, 0
	first, last := s.held[0].unit.DTS, s.held[len(s.held)-1].unit.DTS
	for i := range s.held {
		if s.held[i].unit.Track != media.Video {
			sounds++
			continue
		}
		if frames++; frames == 1 {
			first = s.held[i].unit.DTS
		}
	}
	announced := s.claimed > 0 && now.Sub(s.began) < picturesWait
	if frames == 0 && (s.PicturesDue() || announced) {
		s.keepNewestSound(last)
		s.since = now // the wait begins with the first keyframe
		return false
	}
	// Without a plausible claim, the longer the rate is measured, the better; a burst
	// is waited for.
	complete := sounds > 0 && frames >= rateFrames && plausible(s.claimed) && (last-first).Seconds() >= rateFrames/2/s.claimed
	if s.settled {
		complete = (frames > 0 || !s.settings.Video) && (sounds > 0 || !s.settings.Audio)
	}
	return complete || now.Sub(s.since) >= tracksWait || last-first >= media.TicksOf(tracksWait) ||
		len(s.held) >= maxGather || s.heldBytes >= maxGatherBytes
}

// keepNewestSound bounds what is held while the first keyframe isn't here: only the
// newest second is of use. Half of the room is left for what follows.
func (s *Sequencer) keepNewestSound(last media.Ticks) {
	n := 0
	for n < len(s.held)-1 && (last-s.held[n].unit.DTS > media.TicksOf(tracksWait) || len(s.held)-n > maxGather/2 || s.heldBytes > maxGatherBytes/2) {
		s.heldBytes -= len(s.held[n].unit.Payload)
		s.held[n] = heldUnit{}
		n++
	}
	s.held = s.held[n:]
}

// settle fixes, at the first publisher, what never changes in a broadcast.
func (s *Sequencer) settle(held []heldUnit) {
	frameRate := settledRate(held, s.claimed)
	if s.settled {
		if frameRate > 0 && s.settings.Video { // of this publisher; what is settled stays
			s.step = media.Ticks(math.Round(media.VideoTimescale / frameRate))
		}
		return
	}
	s.settled = true
	// Where there are pictures, there is sound: silence until it comes. Players know
	// renditions for the whole broadcast, and so it may come as late as it likes.
	st := &s.settings
	st.Video, st.Audio, st.Started = frameRate > 0, true, held[0].now.UTC().Truncate(time.Millisecond)
	switch {
	case st.Video:
		s.step = media.Ticks(math.Round(media.VideoTimescale / frameRate))
		st.FrameRate = frameRate
		st.FrameStep = 1
		if frameRate > 40 {
			st.FrameStep = int(math.Round(frameRate / 30))
		}
		sound := heardStep(cmp.Or(s.audio, silent)) + media.TicksPerMillisecond // by which parts of it may be longer
		st.PartDuration = partDuration(frameRate, st.FrameStep, sound)
		st.PartTarget = st.PartDuration + sound
	default:
		frame := heardStep(s.audio)
		st.PartDuration = max(1, (media.VideoTimescale/3+frame/2)/frame)*frame + frame/3
		st.PartTarget = st.PartDuration
		st.TargetDuration = shortTarget
		s.step = s.audio.Step()
	}
	st.PartHoldBack = max(minHoldBack, 3*st.PartTarget)
	s.emitSettings()
}

// silent is the codec of sound that a publisher doesn't send.
var silent = media.StereoAAC()

// heardStep is how long a frame of the sound that players get is at most: of what
// not every player can play, AAC is made.
func heardStep(c *media.Codec) media.Ticks {
	if c.Universal {
		return c.Step()
	}
	return max(c.Step(), media.StereoAAC().Step())
}

func (s *Sequencer) emitSettings() {
	st := s.settings
	s.put(relay.Entry{Settings: &st})
}

// partDuration is what parts of pictures are cut to: whole frames near a third of a second and
// a margin of less than a frame for timestamps that are rounded to milliseconds. Where frames of
// sound are long it is more: parts must last at least 85 % of the part target (RFC 8216bis,
// 4.4.4.9), which is longer by sound.
func partDuration(frameRate float64, step int, sound media.Ticks) media.Ticks {
	group := float64(step) / frameRate
	margin := math.Min(0.4/frameRate, 0.01)
	n := math.Max(1, math.Round(1.0/3/group))
	for n*group-rounded < 0.85*(n*group+margin+sound.Seconds()) {
		n++
	}
	return media.Ticks((n*group + margin) * media.VideoTimescale)
}

// rounded is by how much a part may be shorter, in seconds, since timestamps are
// rounded to milliseconds.
const rounded = 0.001

// commonRates are the frame rates that a measured one is taken for when near.
var commonRates = []float64{10, 12, 15, 20, 24000.0 / 1001, 24, 25, 30000.0 / 1001, 30, 48, 50, 60000.0 / 1001, 60, 90, 100, 120, 144}

// Frame rates that are believed: what an encoder claims within these bounds, or
// what was measured below the upper one. Metadata in the field says 0, 1000 and 90000.
const (
	slowestRate, fastestRate = 1, 240
	// A claim outside of these would spoil parts or rungs if it were false: it
	// counts if it isn't off by more than a factor of two from what was measured.
	slowestClaim, fastestClaim = 5, 120
	// usualRate is taken where nothing is known.
	usualRate = 30
)

// plausible reports whether a claim counts whatever is measured.
func plausible(claimed float64) bool { return claimed >= slowestClaim && claimed <= fastestClaim }

// settledRate returns the frame rate of the units, 0 without pictures. A plausible
// claim counts for more than a second's measurement: encoders begin with bursts,
// and slowly.
func settledRate(held []heldUnit, claimed float64) float64 {
	measured, pictures := measureRate(held)
	switch {
	case !pictures:
		return 0
	case plausible(claimed):
		return claimed
	case claimed >= slowestRate && claimed <= fastestRate && (measured == 0 || measured < 2*claimed && claimed < 2*measured):
		return claimed
	case measured == 0:
		return usualRate
	}
	return measured
}

// longestWeight is what a distance counts for at most in measureRate.
const longestWeight = media.VideoTimescale / 10

// measureRate returns the frame rate of the units, or 0 where that can't be
// told; pictures reports whether there are any. The usual distance is the one
// around which half of the time is spent: bursts and pairs of one timestamp take
// hardly any, and a hole counts for no more than a slow frame.
func measureRate(held []heldUnit) (rate float64, pictures bool) {
	// By when pictures are shown: some encoders' decode times are uneven.
	var shown []media.Ticks
	for i := range held {
		if held[i].unit.Track == media.Video {
			shown = append(shown, held[i].unit.PTS)
		}
	}
	slices.Sort(shown)
	var distances []media.Ticks
	var weight media.Ticks
	for i := 1; i < len(shown); i++ {
		if d := shown[i] - shown[i-1]; d > 0 {
			distances = append(distances, d)
			weight += min(d, longestWeight)
		}
	}
	if len(distances) == 0 {
		return 0, len(shown) > 0
	}
	slices.Sort(distances)
	usual := distances[len(distances)-1]
	for _, d := range distances {
		if weight -= 2 * min(d, longestWeight); weight <= 0 {
			usual = d
			break
		}
	}
	// A picture that was lost, or isn't here yet, makes a distance that doesn't count.
	var sum media.Ticks
	n := 0
	for _, d := range distances {
		if d > usual*2/3 && d < usual*3/2 {
			sum += d
			n++
		}
	}
	if rate = common(float64(n) / sum.Seconds()); rate > fastestRate {
		return 0, true // nothing but a burst
	}
	return rate, true
}

// common returns the common frame rate next to a measured one, if one is near.
func common(rate float64) float64 {
	best := rate
	for _, r := range commonRates {
		if math.Abs(rate-r)/r < 0.02 && (best == rate || math.Abs(rate-r) < math.Abs(rate-best)) {
			best = r
		}
	}
	return best
}

// soundPhase returns the time of the first sound gathered that will be used:
// it follows the first picture, and isn't before it nor before what the log has
// of the sound. 0 without.
func (s *Sequencer) soundPhase(held []heldUnit) media.Ticks {
	var from media.Ticks
	if s.grid != nil {
		from = s.grid.end()
	}
	started := !s.settings.Video
	for i := range held {
		switch u := &held[i].unit; {
		case !started && u.Start() > media.IntraStart && u.Track == media.Video:
			started, from = true, max(from, u.PTS)
		case u.Track == media.Audio && started && u.DTS >= from:
			return u.DTS
		}
	}
	return 0
}

// settleTarget fixes the target duration once enough of the first GOP has been seen.
func (s *Sequencer) settleTarget(at media.Ticks, idr bool) {
	if s.settings.TargetDuration != 0 || (!idr && at-s.firstKeyframe < settleAfter) {
		return
	}
	s.settings.TargetDuration = longTarget
	if idr && at-s.firstKeyframe <= settleAfter {
		s.settings.TargetDuration = shortTarget
	}
	s.emitSettings()
}

type heldUnit struct {
	unit media.Unit
	now  time.Time
}
