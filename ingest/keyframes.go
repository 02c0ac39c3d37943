package ingest

import (
	"fmt"
	"time"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// keyframes is what is known of where decoding can start in the pictures of one
// publisher. Its zero value has seen none.
type keyframes struct {
	format  media.Format
	came    bool        // a picture did,
	claimed bool        // and since the newest start one that the encoder calls a keyframe, and that is none
	newest  media.Start // of a picture that decoding could start at
}

// take takes a picture.
func (k *keyframes) take(u *media.Unit) {
	k.came = true
	switch start := u.Start(); {
	case start > media.IntraStart:
		k.newest, k.claimed = start, false
	case u.Access.Claimed:
		k.claimed = true
	}
}

// missing says what is the matter where no start came for so long. The reason is
// what the publisher is ended for in the end.
func (k *keyframes) missing(since time.Duration) (front.Reason, advice) {
	switch {
	case !k.came:
		return front.NoPictures, advice{problemNoPictures, fmt.Sprintf("no picture came for %.0f s, though the encoder announced pictures: check its video source, and restart it; at 30 s the stream is ended", since.Seconds())}
	case k.claimed:
		return front.FalseKeyframes, advice{problemFalseKeyframes, fmt.Sprintf("no picture came for %.0f s that decoding can start at: what the encoder calls keyframes are neither IDR pictures nor recovery points; set it to IDR keyframes each 2 s, without intra refresh; at 30 s the stream is ended", since.Seconds())}
	}
	return front.NoKeyframe, advice{problemNoKeyframe, fmt.Sprintf("no keyframe for %.0f s: set the keyframe interval to 2 s in OBS under Output; at 30 s the stream is ended", since.Seconds())}
}

// refusal ends a publisher for that.
func (k *keyframes) refusal() *front.Refusal {
	reason, _ := k.missing(0)
	text := "No keyframe for 30 s: set the keyframe interval to 2 s (in OBS: Settings, Output, Keyframe Interval)."
	switch reason {
	case front.NoPictures:
		text = "No picture came for 30 s, though the encoder announced pictures: check its video source, and restart it."
	case front.FalseKeyframes:
		text = "What the encoder calls keyframes are neither IDR pictures nor recovery points, for 30 s: set it to IDR keyframes each 2 s, without intra refresh."
	}
	return &front.Refusal{Kind: front.Failed, Reason: reason, Text: text}
}

// advice tells of starts that aren't what players start with best.
func (k *keyframes) advice() []advice {
	const anew = "browsers can't start at them, so viewers get what you send encoded anew in its own size"
	switch {
	case k.newest == media.GradualStart && k.format == media.H264:
		return []advice{{problemOpenGOP, "the encoder sends no IDR keyframes but refreshes the picture bit by bit (periodic intra refresh): " + anew + "; turn intra refresh off (x264: intra-refresh=0) and set a keyframe interval of 2 s"}}
	case k.newest == media.GradualStart:
		return []advice{{problemOpenGOP, "the encoder refreshes the picture bit by bit (periodic intra refresh): players begin with a damaged picture, or not at all; turn intra refresh off (x265: intra-refresh=0) and set a keyframe interval of 2 s"}}
	case k.newest == media.OpenStart && k.format == media.H264:
		return []advice{{problemOpenGOP, "keyframes are recovery points and no IDR pictures (open GOP): " + anew + "; set a closed GOP (x264: open-gop=0)"}}
	case k.newest == media.OpenStart && k.format == media.HEVC:
		return []advice{{problemOpenGOP, "keyframes are no IDR pictures (open GOP): players that begin at one leave out the pictures right before it; set a closed GOP (x265: open-gop=0)"}}
	}
	return nil
}
