// Package front is what a front and the rest of ingest say to each other. A
// front speaks a protocol of encoders: it takes their connections, asks
// [Publishers] whether they may publish, and writes what they send to a
// [Publication]. It knows nothing of broadcasts and logs, and the rest of ingest
// knows nothing of its protocol.
package front

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/internal/media"
)

// Publishers admits those who want to publish.
type Publishers interface {
	// Publish admits a publisher. A *[Refusal] tells the encoder why not; any
	// other error it is told as a fault of ours. The context ends with the
	// connection.
	Publish(ctx context.Context, r Request) (Publication, error)
}

// Request is what an encoder says when it wants to publish.
type Request struct {
	// Key is the stream key: a secret, never logged.
	Key string
	// Remote is the encoder's address.
	Remote string
	// Encoder is what the encoder calls itself, for the log; may be empty.
	Encoder string
	// End ends the connection and tells the encoder why. It is safe from any
	// goroutine, idempotent, and doesn't wait.
	End func(Refusal)
	// RequestKeyframe asks the encoder for a keyframe, where the protocol can; nil
	// where it can't. It is safe from any goroutine, and doesn't wait.
	RequestKeyframe func()
}

// Publication takes what one publisher sends: of pictures and of sound at most one
// track each. Calls come from one goroutine; none blocks. An error of Config or
// Write, usually a *[Refusal], ends the publisher and is shown to it.
type Publication interface {
	// Config says which codec a track has from its next unit on. Sound has the
	// number of samples that its units have: where that changes, so does the codec.
	Config(c *media.Codec) error
	// Write takes a unit. Its times are on the publisher's own time line, in ticks
	// and never wrapping: the front unwraps what its protocol has, and puts both
	// tracks on one line. They may jump. RandomAccess is what the codec's
	// RandomAccess says; a unit on which that fails isn't written. Fronts have
	// pictures put together by ingest/access. The payload is the callee's to keep. A unit before its track's codec is left out.
	Write(u media.Unit) error
	// FrameRate says what the encoder claims of its pictures, in frames a second.
	FrameRate(claimed float64)
	// FurtherTracks says that the encoder sends more than one track of pictures or of
	// sound, and that what goes beyond is left out. It may come as often as it happens.
	FurtherTracks()
	// Fault says that something is wrong with how pictures or sound are packed. It may
	// come as often as it happens.
	Fault(f Fault)
	// LeaveOut says why the sound can't be taken, while the pictures go on. It may come
	// as often as sound does.
	LeaveOut(why *Refusal)
	// Pace is how long to wait before anything more is read.
	Pace() time.Duration
	// End comes exactly once, last; clean if the encoder said that it was done.
	End(clean bool)
}

// Kind is what a refusal is about. Each front says it in its protocol's way.
type Kind int

// The kinds of refusal.
const (
	// Failed: the broadcast can't be taken as it comes, or not now.
	Failed Kind = iota
	// Denied: this publisher has no right to publish.
	Denied
	// Busy: another publisher has the channel.
	Busy
)

// Refusal is why a publisher was refused or ended.
type Refusal struct {
	Kind Kind
	// Reason is for the metrics.
	Reason Reason
	// Text is what the streamer is shown.
	Text string
}

// Error is the refusal's text.
func (r *Refusal) Error() string { return r.Text }

// Reason is a refusal's label in the metrics: one of a fixed set.
type Reason string

// The reasons that don't depend on the front.
const (
	WrongKey Reason = "wrong_key"
	KeyInUse Reason = "key_in_use"
	// KeyReset, ChannelDisabled, ChannelDeleted and Kicked: who was admitted may
	// publish no longer.
	KeyReset        Reason = "key_reset"
	ChannelDisabled Reason = "channel_disabled"
	ChannelDeleted  Reason = "channel_deleted"
	Kicked          Reason = "kicked"
	TakenOver       Reason = "taken_over"
	ShuttingDown    Reason = "shutting_down"
	Ended           Reason = "ended"
	Silent          Reason = "silent"
	NoKeyframe      Reason = "no_keyframe"
	NoPictures      Reason = "no_pictures"
	// FalseKeyframes: decoding can't start at what the encoder calls keyframes.
	FalseKeyframes Reason = "false_keyframes"
	Unreadable     Reason = "unreadable"
	Bitrate        Reason = "bitrate"
	Breaks         Reason = "breaks"
	AudioCodec     Reason = "audio_codec"
	VideoCodec     Reason = "video_codec"
	AudioConfig    Reason = "audio_config"
	VideoConfig    Reason = "video_config"
	// PictureBounds: the pictures are larger, or more of them have to be kept, than is taken.
	PictureBounds Reason = "picture_bounds"
	// Settings: a broadcast has seen too many of them.
	Settings Reason = "settings"
)

const (
	// MaxBitrate is what a connection, and a broadcast across connections, may
	// take, in bits a second over [BitrateSpan].
	MaxBitrate = 80_000_000
	// BitrateSpan is for how many seconds an encoder may send twice its limit:
	// longer than one that catches up after a stall.
	BitrateSpan = 10
)

// TooMuch is the refusal of an encoder that sends more than limit bits a second.
func TooMuch(limit int) *Refusal {
	return &Refusal{
		Kind: Failed, Reason: Bitrate,
		Text: fmt.Sprintf("More than %g Mb/s arrive: lower the bitrate (in OBS: Settings, Output).", float64(limit)/1e6),
	}
}

// UnknownCodec is the refusal of a track in a codec that isn't taken.
func UnknownCodec(track media.Kind, name string) *Refusal {
	if track == media.Audio {
		return &Refusal{Kind: Failed, Reason: AudioCodec, Text: fmt.Sprintf("Audio in %s can't be taken: set the audio encoder to AAC or Opus (in OBS: Settings, Output, Streaming).", name)}
	}
	return &Refusal{Kind: Failed, Reason: VideoCodec, Text: fmt.Sprintf("Video in %s can't be taken: set the video encoder to H.264, HEVC or AV1 (in OBS: Settings, Output, Video Encoder).", name)}
}

// BadConfig is the refusal of a track whose configuration makes no sense, or asks for more
// than is taken.
func BadConfig(track media.Kind, err error) *Refusal {
	var bound *media.BoundError
	if errors.As(err, &bound) {
		return &Refusal{Kind: Failed, Reason: PictureBounds, Text: bound.Error()}
	}
	reason := VideoConfig
	if track == media.Audio {
		reason = AudioConfig
	}
	return &Refusal{Kind: Failed, Reason: reason, Text: fmt.Sprintf("The %s can't be used: %v.", track, err)}
}
