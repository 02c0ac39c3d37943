package ingest

import (
	"fmt"
	"math"
	"time"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// healthWindow is what one judgement looks at.
const healthWindow = 10 * media.VideoTimescale

// problem is what is wrong with a publisher's stream or with how it is
// processed, by its metric label.
type problem string

// The problems that a streamer is told of.
const (
	problemKeyframes  problem = "keyframe_interval"
	problemNoKeyframe problem = "no_keyframe"
	problemBitrate    problem = "bitrate_swings"
	problemRate       problem = "frame_rate"
	problemLate       problem = "late_frames"
	problemJump       problem = "timestamp_jump"
	problemNoAudio    problem = "audio_missing"
	problemChanged    problem = "settings_changed"
	problemProfile    problem = "video_profile"
	problemShed       problem = "rungs_shed"
	problemWindow     problem = "dvr_shortened"
	problemFast       problem = "too_fast"
	problemTracks     problem = "further_tracks"
	problemBeginning  problem = "late_beginning"
	problemHeld       problem = "pictures_missing"
	problemSound      problem = "audio_left_out"
	problemOddSound   problem = "audio_encoded"
	problemInterlaced problem = "interlaced"
	problemHDR        problem = "hdr"
	problemTurned     problem = "turned"
	problemFailing    problem = "rungs_failing"
	problemBreaks     problem = "breaks"
	problemSettings   problem = "settings"

	problemNoPictures     problem = "no_pictures"
	problemFalseKeyframes problem = "false_keyframes"
	problemOpenGOP        problem = "open_gop"
)

// problems lists all of them, for the metrics.
var problems = append(faults(), []problem{
	problemKeyframes, problemNoKeyframe, problemBitrate, problemRate,
	problemLate, problemJump, problemNoAudio, problemChanged, problemProfile, problemShed, problemWindow, problemFast,
	problemTracks, problemBeginning, problemHeld, problemSound, problemOddSound, problemInterlaced, problemHDR, problemTurned, problemFailing, problemBreaks, problemSettings,
	problemNoPictures, problemFalseKeyframes, problemOpenGOP,
}...)

// faults are what a front finds.
func faults() (list []problem) {
	for _, f := range front.Faults {
		list = append(list, problem(f))
	}
	return list
}

// advice is a problem in plain words for the streamer.
type advice struct {
	Problem problem
	Text    string
}

// lateBeginning is how much may come before the first picture that can be shown
// until the streamer is told: encoders join in mid-GOP.
const lateBeginning = 3 * time.Second

// health judges what one publisher sends, as viewers get it: what can't be shown
// is told by its own name, and not measured. Not safe for concurrent use.
type health struct {
	unshown      time.Time   // when the first picture came that can't be shown; zero: none
	start        time.Time   // when the first frame came
	startDTS     media.Ticks // and its time
	lastKeyframe media.Ticks
	lastAudio    media.Ticks
	interval     media.Ticks // the newest between two keyframes
	bFrames      bool
	frames       int // in this window
	bytes        int
	windowAt     media.Ticks
	bitrates     []float64 // bits a second, of the last windows
	nominal      float64   // frames a second that the encoder claims
	rate         float64   // that came in the newest window; 0: none is over
	late         time.Duration
	hasAudio     bool
	begun        bool
	noKeyframe   bool
	keyframes    keyframes
}

// summary is what the metrics and the log show of a window.
type summary struct {
	Bitrate          float64 // bits a second
	FrameRate        float64
	KeyframeInterval time.Duration
	BFrames          bool
	Late             time.Duration // how far the newest frame is behind the clock
}

// video takes one access unit. It returns advice at most once a window for each problem.
func (h *health) video(u *media.Unit, now time.Time) (found []advice, done *summary) {
	if !h.begun {
		if !h.unshown.IsZero() && now.Sub(h.unshown) > lateBeginning {
			found = append(found, advice{problemBeginning, fmt.Sprintf("the first %.0f s couldn't be shown: the stream began without a keyframe", now.Sub(h.unshown).Seconds())})
		}
		*h = health{begun: true, start: now, startDTS: u.DTS, lastKeyframe: u.DTS, windowAt: u.DTS, lastAudio: h.lastAudio, nominal: h.nominal, rate: h.rate, hasAudio: h.hasAudio, keyframes: h.keyframes}
		h.frames-- // those of a window lie between its first and its last
	}
	h.keyframes.take(u)
	if u.PTS != u.DTS {
		h.bFrames = true
	}
	if u.Start() > media.IntraStart {
		if u.DTS > h.lastKeyframe {
			h.interval = u.DTS - h.lastKeyframe
		}
		h.lastKeyframe, h.noKeyframe = u.DTS, false
	}
	h.frames++
	h.bytes += len(u.Payload)
	// Positive: the frames come later than their timestamps promise.
	h.late = now.Sub(h.start) - (u.DTS - h.startDTS).Duration()
	if h.late < 0 { // the encoder's clock runs ahead of ours
		h.start, h.startDTS, h.late = now, u.DTS, 0
	}
	if since := u.DTS - h.lastKeyframe; since > 10*media.VideoTimescale && !h.noKeyframe {
		h.noKeyframe = true
		found = append(found, h.missing(since.Duration()))
	}
	if u.DTS-h.windowAt < healthWindow {
		return found, nil
	}
	more, sum := h.judge(u.DTS)
	return append(found, more...), sum
}

// dropped takes a picture that comes before the first one that can be shown.
func (h *health) dropped(u *media.Unit, now time.Time) (found []advice) {
	h.keyframes.take(u)
	if h.unshown.IsZero() {
		h.unshown = now
	}
	if since := now.Sub(h.unshown); since > 10*time.Second && !h.noKeyframe {
		h.noKeyframe = true
		found = append(found, h.missing(since))
	}
	return found
}

// missing says for how long no keyframe has come, and why.
func (h *health) missing(since time.Duration) advice {
	_, a := h.keyframes.missing(since)
	return a
}

// frameRate is what came in the newest window; settled where that isn't over, or
// hardly differs.
func (h *health) frameRate(settled float64) float64 {
	if h.rate == 0 || math.Abs(h.rate-settled) < 0.02*settled {
		return settled
	}
	return h.rate
}

// jumped notes that the timestamps were closed up: what was measured before
// says nothing of what comes.
func (h *health) jumped() { h.begun = false }

// held notes that pictures are missing, as that is told by itself: what is measured
// begins with the next one.
func (h *health) held() { h.begun = false }

// audio notes that sound came, and where it lies.
func (h *health) audio(at media.Ticks) {
	h.hasAudio = true
	h.lastAudio = at
}

func (h *health) judge(at media.Ticks) (found []advice, sum *summary) {
	span := (at - h.windowAt).Seconds()
	bitrate := float64(h.bytes) * 8 / span
	rate := float64(h.frames) / span
	say := func(p problem, format string, args ...any) {
		found = append(found, advice{p, fmt.Sprintf(format, args...)})
	}
	if h.interval > 4*media.VideoTimescale {
		say(problemKeyframes, "keyframe interval is %.0f s, set it to 2 s in OBS under Output: viewers start later and a failure is seen longer", h.interval.Seconds())
	}
	found = append(found, h.keyframes.advice()...)
	h.bitrates = append(h.bitrates, bitrate)
	if len(h.bitrates) > 6 {
		h.bitrates = h.bitrates[1:]
	}
	if low, high := bounds(h.bitrates); len(h.bitrates) >= 3 && high > 2.5*low && high > 500e3 {
		say(problemBitrate, "bitrate swings between %.1f and %.1f Mb/s: use CBR as rate control in OBS under Output", low/1e6, high/1e6)
	}
	if h.nominal > 0 && rate < 0.9*h.nominal {
		say(problemRate, "%.1f frames a second arrive of %.0f: the encoder or the network doesn't keep up; lower the resolution, the bitrate or the preset", rate, h.nominal)
	}
	if h.late > 2*time.Second {
		say(problemLate, "frames arrive %.1f s late: the upload is slower than the stream; lower the bitrate", h.late.Seconds())
	}
	if h.hasAudio && at-h.lastAudio > 2*media.VideoTimescale {
		say(problemNoAudio, "no sound for %.0f s: silence is filled in; check the audio source in OBS", (at - h.lastAudio).Seconds())
	}
	sum = &summary{
		Bitrate: bitrate, FrameRate: math.Round(rate*100) / 100, KeyframeInterval: h.interval.Duration(),
		BFrames: h.bFrames, Late: h.late,
	}
	h.rate = sum.FrameRate
	h.windowAt, h.frames, h.bytes, h.bFrames = at, 0, 0, false
	return found, sum
}

func bounds(v []float64) (low, high float64) {
	low, high = v[0], v[0]
	for _, x := range v[1:] {
		low, high = min(low, x), max(high, x)
	}
	return low, high
}
