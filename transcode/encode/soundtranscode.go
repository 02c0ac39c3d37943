package encode

import (
	"bytes"
	"context"
	"time"

	"millrace/internal/media"
)

const (
	// soundPatience is how long the encoder of sound may make nothing of what
	// it was fed before silence takes the place of that: players stop where there
	// is none. soundStart is that before its first frame, soundTail where it was
	// fed nothing since: the source is silent, or there is no encoder.
	soundPatience = time.Second
	soundStart    = 3 * time.Second
	soundTail     = 300 * time.Millisecond
	// soundAway is how long the source is silent before an encoder is started
	// afresh for what comes after: the one before it would make up for all of it.
	soundAway = media.VideoTimescale
	// soundCalm is how long an encoder lives whose death isn't taken for the
	// source's fault. One that dies is replaced at once; one after which others
	// died sooner than that, after a pause, which grows.
	soundCalm     = 10 * time.Second
	soundPause    = 250 * time.Millisecond
	maxSoundPause = 30 * time.Second
	// soundTries is how many of those are told of.
	soundTries = 4
	// maxSilence bounds the silence that is filled in at a time, in frames.
	maxSilence = 4096
)

// soundTranscode has a broadcast's sound encoded, since not every player can play
// it: it knows where the encoder's frames go, and what goes where it makes none.
// It belongs to the worker's goroutine.
type soundTranscode struct {
	sound   *sound
	codec   *media.Codec  // the source's
	encoder *soundEncoder // nil until again
	again   <-chan time.Time
	started time.Time   // when the newest encoder was
	deaths  int         // of encoders that didn't live long, in a row
	heard   time.Time   // when it last made something, or since when it was fed
	newest  media.Ticks // of the source's frames
	// next is the first place on the grid of soundRate that has no frame.
	// placed is set while frames come one after the other.
	next   media.Samples
	placed bool
}

// place returns where a frame goes that the encoder says is at a time: next to
// the one before it, unless its time is off by more than a frame and a half.
// Places are multiples of 1,024 samples, whichever worker encodes. ok is false
// where silence has taken its place.
func (t *soundTranscode) place(at media.Ticks) (s media.Samples, ok bool) {
	frame := soundCodec.FrameSamples
	nearest := soundCodec.Grid(0).Nearest(at + t.encoder.base)
	switch off := nearest - t.next; {
	case off < -frame, off < 0 && !t.placed:
		t.placed = false
		return 0, false
	case off > frame, !t.placed:
		return nearest, true
	}
	return t.next, true
}

// patience is how long the encoder may make nothing.
func (t *soundTranscode) patience() time.Duration {
	switch e := t.encoder; {
	case e != nil && e.fed && !e.answered:
		return soundStart
	case e != nil && e.newest == t.newest:
		return soundPatience
	}
	return soundTail
}

// take handles one frame of the source's sound.
func (t *soundTranscode) take(ctx context.Context, u *media.Unit) {
	before := t.newest
	t.newest = u.DTS
	if t.heard.IsZero() {
		t.heard = time.Now()
	}
	if t.codec.Format == media.AAC && t.codec.Channels > 2 && bytes.Equal(u.Payload, t.codec.Silence()) {
		return // ingest's, and decoders refuse it
	}
	if e := t.encoder; e != nil && e.fed && u.DTS-e.newest > soundAway {
		e.discard()
		t.start(ctx)
	}
	if e := t.encoder; e != nil {
		if !e.fed || e.newest < before {
			t.heard = time.Now()
		}
		e.frame(u)
	}
}

// made handles a frame that the encoder made.
func (t *soundTranscode) made(f soundFrame) {
	t.heard, f.encoder.answered = time.Now(), true
	f.encoder.watchdog.answered(t.heard)
	if at, ok := t.place(f.at); ok {
		t.fill(at)
		t.sound.place(t, at, f.payload)
		t.next, t.placed = at+soundCodec.FrameSamples, true
	}
}

// start starts the encoder.
func (t *soundTranscode) start(ctx context.Context) {
	t.encoder, t.again, t.placed, t.started = nil, nil, false, time.Now()
	e, err := t.sound.FFmpeg.startSound(ctx, t.codec, t.sound.frames)
	if err != nil {
		t.died(ctx, err)
		return
	}
	t.encoder = e
	t.sound.running[e] = struct{}{}
}

// died has the encoder started again.
func (t *soundTranscode) died(ctx context.Context, err error) {
	if time.Since(t.started) >= soundCalm {
		t.deaths = 0
	}
	t.deaths++
	t.encoder = nil
	t.sound.Metrics.failures.Inc()
	switch {
	case t.deaths < soundTries:
		t.sound.Log.Warn("the encoder of the sound died; it is started again", "err", err)
	case t.deaths == soundTries:
		t.sound.Log.Error("the sound can't be encoded: silence takes its place; it is tried again now and then", "err", err)
	}
	if t.deaths == 1 && ctx.Err() == nil {
		t.start(ctx)
		return
	}
	t.again = time.After(min(soundPause<<min(t.deaths-1, 10), maxSoundPause))
}

// watch ends an encoder that hangs, and doesn't wait for sound for ever: what
// comes later than its silence is left out.
func (t *soundTranscode) watch(now time.Time) {
	if t.heard.IsZero() {
		return
	}
	patience := t.patience()
	if t.sound.Backfill {
		patience = encoderSilence // nobody waits
	}
	if t.encoder != nil {
		t.encoder.process.watch(now, &t.encoder.watchdog, t.sound.Config)
	}
	if now.Sub(t.heard) >= patience {
		t.fill(soundGrid(t.newest))
	}
}

// fill puts silence into all places without a frame before until.
func (t *soundTranscode) fill(until media.Samples) {
	frame := soundCodec.FrameSamples
	for _, s := range t.sound.segments.list {
		if s.transcode == t && s.audio != nil && !s.audio.done {
			t.next = max(t.next, s.tl.mark.AudioStart)
			break
		}
	}
	t.next = max(t.next, until-maxSilence*frame)
	for t.next < until {
		t.sound.place(t, t.next, soundCodec.Silence())
		t.next += frame
		t.placed = false
	}
}
