// Package media holds what every service needs to know of coded pictures and
// sound: codecs, access units, the grid that sound lies on, timescales, and the
// boxes of fragmented MP4. It is pure: nothing in it does I/O.
package media

import "time"

// VideoTimescale is the number of [Ticks] a second.
const VideoTimescale = 90000

// TicksPerMillisecond converts milliseconds to [Ticks].
const TicksPerMillisecond = VideoTimescale / 1000

// Ticks is media time in units of 1/90,000 s, counted from the broadcast's start.
type Ticks int64

// Duration converts t to wall time, rounded down to a nanosecond.
func (t Ticks) Duration() time.Duration {
	// In two steps: nanoseconds x 90,000 would overflow after 28 hours.
	return time.Duration(t/VideoTimescale)*time.Second + time.Duration(t%VideoTimescale)*time.Second/VideoTimescale
}

// Seconds converts t to seconds.
func (t Ticks) Seconds() float64 { return float64(t) / VideoTimescale }

// Milliseconds converts t, rounded down.
func (t Ticks) Milliseconds() int64 { return int64(t) / TicksPerMillisecond }

// CeilMillisecond rounds t up to a whole millisecond.
func (t Ticks) CeilMillisecond() Ticks {
	return (t + TicksPerMillisecond - 1) / TicksPerMillisecond * TicksPerMillisecond
}

// TicksOf converts wall time to [Ticks], rounded down.
func TicksOf(d time.Duration) Ticks {
	return Ticks(d/time.Second)*VideoTimescale + Ticks(d%time.Second)*VideoTimescale/Ticks(time.Second)
}

// Samples is media time in audio samples per channel, counted from the
// broadcast's start at the rate of the audio track it belongs to.
type Samples int64

// Ticks converts s, counted at rate samples a second, to [Ticks], rounded down.
func (s Samples) Ticks(rate int) Ticks {
	return Ticks(floorDiv(int64(s)*VideoTimescale, int64(rate)))
}

// SamplesOf converts t to samples at rate samples a second, rounded down.
func SamplesOf(t Ticks, rate int) Samples {
	return Samples(floorDiv(int64(t)*int64(rate), VideoTimescale))
}

// floorDiv divides towards minus infinity, so that times before the start keep their order.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

// Kind tells pictures from sound.
type Kind uint8

// The kinds of track that a broadcast can have.
const (
	Video Kind = iota + 1
	Audio
)

// String returns the name that playlists and metrics use.
func (k Kind) String() string {
	switch k {
	case Video:
		return "video"
	case Audio:
		return "audio"
	}
	return "unknown"
}

// Unit is an access unit: one coded frame of one track.
type Unit struct {
	// Track is the track that it belongs to: a broadcast has one of each kind.
	Track Kind
	// DTS and PTS are when to decode and when to show it; of sound they are equal.
	DTS, PTS Ticks
	// RandomAccess is set where decoding can start.
	RandomAccess bool
	// Access is what the bitstream says of a picture. Ingest alone has it: it isn't in a log.
	Access Access
	// Preroll is set of a picture that is decoded for the sake of those that follow,
	// and not shown.
	Preroll bool
	// Payload is what a sample of MP4 holds in the track's [Format]: NAL units
	// with lengths of 4 bytes before them, a temporal unit, or one frame of sound.
	// Whoever holds it must not change it: all readers share it.
	// A picture without one is the last one shown again.
	Payload []byte
}

// Repeats reports whether the unit shows the last picture again.
func (u *Unit) Repeats() bool { return u.Track == Video && len(u.Payload) == 0 }

// Access is what the bitstream says of a picture: whether decoding can start
// there, and whether it can go on without.
type Access struct {
	// IDR is set where no later picture refers past this one.
	IDR bool
	// Recovery is set where a message says that decoding can start there, and that
	// pictures are right again RecoveryFrames later.
	Recovery       bool
	RecoveryFrames int
	// Intra is set where a picture refers to no other one; where a format's slices
	// aren't looked at (HEVC), only of those that its type says it of.
	Intra bool
	// Disposable is set where no other picture refers to this one.
	Disposable bool
	// Claimed is set where the encoder calls it a keyframe, whatever it is.
	Claimed bool
}
