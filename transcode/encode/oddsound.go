package encode

import (
	"bytes"
	"context"
	"time"

	"millrace/internal/media"
)

const (
	// soundPatience is how long the encoder of odd sound may make nothing of what
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

// oddSound is a broadcast's sound while it must be encoded: where the encoder's
// frames go, and what goes where it makes none. It belongs to the worker's goroutine.
type oddSound struct {
	config  *media.Codec  // the source's
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
func (o *oddSound) place(at media.Ticks) (s media.Samples, ok bool) {
	frame := soundCodec.FrameSamples
	nearest := soundCodec.Grid(0).Nearest(at + o.encoder.base)
	switch off := nearest - o.next; {
	case off < -frame, off < 0 && !o.placed:
		o.placed = false
		return 0, false
	case off > frame, !o.placed:
		return nearest, true
	}
	return o.next, true
}

// patience is how long the encoder may make nothing.
func (o *oddSound) patience() time.Duration {
	switch e := o.encoder; {
	case e != nil && e.fed && !e.answered:
		return soundStart
	case e != nil && e.newest == o.newest:
		return soundPatience
	}
	return soundTail
}

// takeOdd handles one frame of the source's odd sound.
func (w *Worker) takeOdd(ctx context.Context, u *media.Unit) {
	o := w.odd
	before := o.newest
	o.newest = u.DTS
	if o.heard.IsZero() {
		o.heard = time.Now()
	}
	if o.config.Channels > 2 && bytes.Equal(u.Payload, o.config.Silence()) {
		return // ingest's, and decoders refuse it
	}
	if e := o.encoder; e != nil && e.fed && u.DTS-e.newest > soundAway {
		e.discard()
		w.startSound(ctx)
	}
	if e := o.encoder; e != nil {
		if !e.fed || e.newest < before {
			o.heard = time.Now()
		}
		e.frame(u)
	}
}

// soundEncoded handles what an encoder of odd sound made.
func (w *Worker) soundEncoded(ctx context.Context, f soundFrame) {
	o := w.odd
	current := o != nil && f.encoder == o.encoder // else it is an earlier one
	switch {
	case f.exit != nil:
		f.encoder.running.Wait()
		delete(w.hearing, f.encoder)
		if current {
			w.soundDied(ctx, f.exit.err)
		}
	case current:
		o.heard, f.encoder.answered = time.Now(), true
		f.encoder.pulse.answered(o.heard)
		if at, ok := o.place(f.at); ok {
			w.fillSound(o, at)
			w.placeAudio(o, at, f.payload)
			o.next, o.placed = at+soundCodec.FrameSamples, true
		}
	}
}

// startSound starts the encoder of odd sound.
func (w *Worker) startSound(ctx context.Context) {
	o := w.odd
	o.encoder, o.again, o.placed, o.started = nil, nil, false, time.Now()
	e, err := w.FFmpeg.startSound(ctx, o.config, w.sounds)
	if err != nil {
		w.soundDied(ctx, err)
		return
	}
	o.encoder = e
	w.hearing[e] = struct{}{}
}

// soundDied has the encoder of odd sound started again.
func (w *Worker) soundDied(ctx context.Context, err error) {
	o := w.odd
	if time.Since(o.started) >= soundCalm {
		o.deaths = 0
	}
	o.deaths++
	o.encoder = nil
	w.Metrics.failures.Inc()
	switch {
	case o.deaths < soundTries:
		w.Log.Warn("the encoder of the sound died; it is started again", "err", err)
	case o.deaths == soundTries:
		w.Log.Error("the sound can't be encoded: silence takes its place; it is tried again now and then", "err", err)
	}
	if o.deaths == 1 && ctx.Err() == nil {
		w.startSound(ctx)
		return
	}
	o.again = time.After(min(soundPause<<min(o.deaths-1, 10), maxSoundPause))
}

// soundAgain tells when an encoder of odd sound is to be started.
func (w *Worker) soundAgain() <-chan time.Time {
	if w.odd == nil {
		return nil
	}
	return w.odd.again
}

// watchSound ends an encoder that hangs, and doesn't wait for sound for ever:
// what comes later than its silence is left out.
func (w *Worker) watchSound(now time.Time) {
	o := w.odd
	if o == nil || o.heard.IsZero() {
		return
	}
	patience := o.patience()
	if w.Backfill {
		patience = encoderSilence // nobody waits
	}
	if o.encoder != nil {
		w.watchProcess(now, o.encoder.process, &o.encoder.pulse)
	}
	if now.Sub(o.heard) >= patience {
		w.fillSound(o, soundGrid(o.newest))
	}
}

// fillSound puts silence into all places without a frame before until.
func (w *Worker) fillSound(o *oddSound, until media.Samples) {
	for _, s := range w.segments {
		if s.odd == o && s.audio != nil && !s.audio.done {
			o.next = max(o.next, s.tl.mark.AudioStart)
			break
		}
	}
	o.next = max(o.next, until-maxSilence*soundCodec.FrameSamples)
	for o.next < until {
		w.placeAudio(o, o.next, soundCodec.Silence())
		o.next += soundCodec.FrameSamples
		o.placed = false
	}
}

// endSound ends the encoder of odd sound, if there is one.
func (w *Worker) endSound() {
	if w.odd != nil && w.odd.encoder != nil {
		w.odd.encoder.discard()
	}
	w.odd = nil
}
