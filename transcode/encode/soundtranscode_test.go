package encode

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/transcode/logread"
	"millrace/transcode/transcodetest"
)

const surround = "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=sample_rate=44100 -t %d -pix_fmt yuv420p -ac 6 -c:a aac -b:a 200k -c:v libx264 -preset ultrafast -g 60"

// ownFFmpeg is ffmpeg under a path of this test's own, and what signals its processes.
func ownFFmpeg(t *testing.T) (f *FFmpeg, signal func(name string)) {
	t.Helper()
	found, err := testFFmpeg()
	if err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath(found.path)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ffmpeg")
	if out, err := exec.Command("ln", "-s", program, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	own := *found
	own.path = path
	return &own, func(name string) {
		if out, err := exec.Command("pkill", "-"+name, "-f", "^"+path).CombinedOutput(); err != nil {
			t.Errorf("send %s: %v %s", name, err, out)
		}
	}
}

// Whatever becomes of the encoder of sound, its segments are finished, with
// sound of their whole length, while the broadcast goes on.
func TestEncodedSoundGoesOn(t *testing.T) {
	t.Parallel()
	silence := func(l *transcodetest.Log) {
		var codec *media.Codec
		for i, e := range l.Events {
			if e.Codec != nil && e.Codec.Kind() == media.Audio {
				codec = e.Codec
			}
			if e.Unit != nil && e.Unit.Track == media.Audio && i > l.Marks[1] {
				u := *e.Unit
				u.Payload = codec.Silence()
				l.Events[i].Unit = &u
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*transcodetest.Log)
		signal string
	}{
		{"killed before a mark", nil, "KILL"},
		{"stopped", nil, "STOP"},
		{"the source is silent", silence, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := transcodetest.MakeLog(t, 0, fmt.Sprintf(surround, 11))
			if c.change != nil {
				c.change(l)
			}
			f, signal := ownFFmpeg(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			rec := transcodetest.NewRecord()
			w := testWorker(t, "none", rec, func(c *Config) { c.FFmpeg, c.Tolerance = f, 2 }) // one that is stopped is noticed in time
			done := false
			rec.OnPart = func(e index.Entry) {
				if c.signal != "" && !done && e.Rendition == audioName && e.Sequence == 1 && e.Part == 4 {
					done = true
					signal(c.signal)
				}
				if w.finished.Load() >= 4 { // and the one that is open isn't
					cancel()
				}
			}
			if err := w.Run(ctx, l.Live()); !errors.Is(err, context.Canceled) {
				t.Errorf("%v; finished %d, %d segments are kept", err, w.finished.Load(), len(w.segments.list))
			}
			if len(w.segments.list) > 3 {
				t.Errorf("%d segments are kept", len(w.segments.list))
			}
			checkSound(t, rec, 4)
			if n := rec.Entries[audioName+"/3"].Size; (n > 20000) != (c.change == nil) {
				t.Errorf("segment 3 has %d bytes of sound", n)
			}
			if n := testutil.ToFloat64(w.Metrics.failures); (n > 0) != (c.signal != "") || n > 1 {
				t.Errorf("%v encoders died", n)
			}
		})
	}
}

// checkSound checks that the segments before a number have sound of their whole
// length that decodes.
func checkSound(t *testing.T, rec *transcodetest.Record, before uint64) {
	t.Helper()
	for seq := range before {
		e := rec.Entries[fmt.Sprintf("%s/%d", audioName, seq)]
		if e.Duration < 178000 || e.Duration > 182000 {
			t.Errorf("segment %d has %v of sound in %d parts", seq, e.Duration.Duration(), e.Parts)
		}
	}
	checkTimes(t, rec, before-1)
	decodeAll(t, rec, before-1)
}

// Sound that FFmpeg refuses altogether is silence: encoders are tried with
// pauses, and none is kept.
func TestSoundThatCannotBeEncodedIsSilence(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(surround, 7))
	var bits strings.Builder // AAC-LC, its rate explicit, 6 channels
	fmt.Fprintf(&bits, "%05b%04b%024b%04b000", 2, 15, 7777, 6)
	var asc []byte
	for s := bits.String(); len(s) >= 8; s = s[8:] {
		var b byte
		_, _ = fmt.Sscanf(s[:8], "%b", &b)
		asc = append(asc, b)
	}
	config, err := media.ParseCodec(media.AAC, asc)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range l.Events {
		if e.Codec != nil && e.Codec.Kind() == media.Audio {
			l.Events[i].Codec = config
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rec := transcodetest.NewRecord()
	w := testWorker(t, "none", rec, nil)
	rec.OnPart = func(index.Entry) {
		if w.finished.Load() >= 2 {
			cancel()
		}
	}
	if err := w.Run(ctx, l.Live()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := testutil.ToFloat64(w.Metrics.failures); n < 2 || n > 7 {
		t.Errorf("encoders died %v times in %d s", n, 2*w.finished.Load())
	}
	if len(w.sound.running) > 1 {
		t.Errorf("%d encoders are kept", len(w.sound.running))
	}
	checkSound(t, rec, 2)
}

// What is encoded is named by who did; what is repackaged isn't.
func TestEncodedSoundIsNamedByItsWorker(t *testing.T) {
	t.Parallel()
	names := func(args string, slot int, grant uint64) (source, audio string) {
		rec := transcodetest.NewRecord()
		w := testWorker(t, "none", rec, func(c *Config) {
			c.Grant.Epoch.Grant, c.Slot = grant, slot
		})
		err := w.Run(t.Context(), func(ctx context.Context, out chan<- relay.Entry) error {
			for _, e := range transcodetest.MakeLog(t, 0, args).From(0) {
				out <- e
			}
			return logread.ErrEnded
		})
		if err != nil {
			t.Error(err)
		}
		return rec.Entries[sourceName+"/0"].Profile, rec.Entries[audioName+"/0"].Profile
	}
	encoded := fmt.Sprintf(surround, 3)
	source, first := names(encoded, 0, 1)
	again, second := names(encoded, 0, 2)
	_, standby := names(encoded, 1, 1)
	_, plain := names(fmt.Sprintf(transcodetest.WithSound, 3), 0, 2)
	if first == second || first == standby || first == plain || first == "" {
		t.Errorf("workers name encoded sound %q, %q and %q, plain sound is %q", first, second, standby, plain)
	}
	if source != again || source != plain {
		t.Errorf("the source is named %q and %q, plain sound %q", source, again, plain)
	}
}

// A frame that comes after silence took its place is left out; what comes after
// it isn't moved.
func TestPlacesOfEncodedSound(t *testing.T) {
	frame := soundCodec.FrameSamples
	o := &soundTranscode{encoder: &soundEncoder{}}
	for i, c := range []struct {
		at   float64 // in frames
		next int     // where silence or frames reach to
		want int     // -1: left out
	}{
		{10.2, 0, 10}, {11.4, 11, 11}, {12.6, 12, 12}, {13.4, 13, 13}, // rounded to the millisecond
		{17.1, 14, 17},                                           // after a hole
		{18, 30, -1}, {29, 30, -1}, {30, 30, 30}, {30.9, 31, 31}, // after silence
	} {
		if c.next > int(o.next/frame) && c.next == 30 {
			o.placed = false
		}
		o.next = media.Samples(c.next) * frame
		at, ok := o.place(media.Ticks(c.at * float64(frame) * media.VideoTimescale / soundRate))
		switch {
		case ok != (c.want >= 0), ok && at != media.Samples(c.want)*frame:
			t.Errorf("frame %d is placed at %d (%t), want %d", i, at/frame, ok, c.want)
		case ok:
			o.placed = true
		}
	}
}

func TestSoundIsEncoded(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=sample_rate=44100 -t 7 -pix_fmt yuv420p -ac 6 -c:a aac -b:a 200k -c:v libx264 -preset ultrafast -g 60")
	rec := transcodetest.NewRecord()
	runWorker(t, l, 0, "none", rec)
	if a := rec.About.Renditions[1]; a.Channels != 2 || a.Codec != "mp4a.40.2" {
		t.Errorf("the sound is %+v", a)
	}
	decodeAll(t, rec, 2)
	checkTimes(t, rec, 2)
	for seq := range uint64(3) {
		if e := rec.Entries[fmt.Sprintf("audio/%d", seq)]; e.Duration < 170000 || e.Duration > 190000 {
			t.Errorf("segment %d has %v of sound", seq, e.Duration.Duration())
		}
	}
}
