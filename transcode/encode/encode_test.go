package encode

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/internal/testenv"
	"millrace/transcode/logread"
	"millrace/transcode/transcodetest"
)

func TestEncoderKilledInMidSegment(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -t 7 -pix_fmt yuv420p -c:v libx264 -preset veryfast -bf 2 -g 60")
	undisturbed := transcodetest.NewRecord()
	runWorker(t, l, 0, "90p30=150k", undisturbed)
	disturbed := transcodetest.NewRecord()
	killed, last := 0, -1
	disturbed.OnPart = func(e index.Entry) {
		if e.Rendition == "90p30" && e.Part >= 1 && int(e.Sequence) > last && killed < 2 {
			// On a busy machine the process may have made all of it by now.
			if exec.Command("pkill", "-KILL", "-P", fmt.Sprint(os.Getpid()), "-f", "scale=160:90").Run() == nil {
				killed, last = killed+1, int(e.Sequence)
			}
		}
	}
	runWorker(t, l, 0, "90p30=150k", disturbed)
	if killed != 2 {
		t.Fatalf("ffmpeg was killed %d times, want 2", killed)
	}
	want, got := undisturbed.Sums(0), disturbed.Sums(0)
	for k, sum := range want {
		if got[k] != sum {
			t.Errorf("%s differs after a kill", k)
		}
	}
}

// An encoder that is stopped, and one that has no more to read but doesn't end,
// are noticed, and their segments made again.
func TestEncoderHangs(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -t 7 -pix_fmt yuv420p -c:v libx264 -preset veryfast -bf 2 -g 60")
	undisturbed := transcodetest.NewRecord()
	runWorker(t, l, 0, "98p30=150k", undisturbed)
	disturbed := transcodetest.NewRecord()
	var stopped time.Time
	hung := 0
	disturbed.OnPart = func(e index.Entry) {
		if e.Rendition == "98p30" && e.Part == 1 && e.Sequence == 1 && hung == 0 {
			hung++
			stopped = time.Now()
			if out, err := exec.Command("pkill", "-STOP", "-P", fmt.Sprint(os.Getpid()), "-f", "scale=174:98").CombinedOutput(); err != nil {
				t.Errorf("stop ffmpeg: %v %s", err, out)
			}
		}
		if e.Sequence == 1 && e.Part > 3 && !stopped.IsZero() {
			t.Logf("the first new part came after %s", time.Since(stopped).Round(time.Millisecond))
			stopped = time.Time{}
		}
	}
	// On a busy machine an encoder may well get no CPU time for a second.
	const tolerance = 3
	w := testWorker(t, "98p30=150k", disturbed, func(c *Config) { c.Tolerance = tolerance })
	begun := time.Now()
	if err := w.Run(t.Context(), l.Unhurried(0, w.finished.Load)); err != nil {
		t.Fatal(err)
	}
	disturbed.Check(t)
	if took := time.Since(begun); hung != 1 || took > times(encoderSilence, tolerance) {
		t.Fatalf("ffmpeg was stopped %d times, and all took %s", hung, took)
	}
	want, got := undisturbed.Sums(0), disturbed.Sums(0)
	for k, sum := range want {
		if got[k] != sum {
			t.Errorf("%s differs after a hang", k)
		}
	}
}

// Where FFmpeg dies at each attempt, the segment is a gap in its rungs, and in
// those that they stand in for; the source goes on.
func TestRungsThatCannotBeMadeAreGaps(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -t 7 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 60")
	rec := transcodetest.NewRecord()
	w := testWorker(t, "90p30=150k,64p30=80k", rec, func(c *Config) {
		c.Grant, c.FFmpeg = transcodetest.FirstGrant, &FFmpeg{path: "false"}
	})
	w.encoding.shed = 1
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := w.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
		for _, e := range l.From(0) {
			// All attempts fail before the segment's end.
			testenv.Await(ctx, func() bool {
				return e.Mark == nil || testutil.ToFloat64(w.Metrics.failures) >= float64(maxAttempts*e.Mark.Sequence)
			})
			select {
			case out <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return logread.ErrEnded
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := w.finished.Load(); n != 4 {
		t.Errorf("%d segments are finished, want 4", n)
	}
	checkGaps(t, rec, []string{"90p30", "64p30"}, 4)
	for seq := range uint64(4) {
		if e := rec.Entries[fmt.Sprintf("%s/%d", sourceName, seq)]; e.Type != index.TypeSegment {
			t.Errorf("the source has no segment %d", seq)
		}
	}

	// The last attempt may also fail after the segment's end.
	rec = transcodetest.NewRecord()
	w.out.publish = rec
	s := &segment{tl: newTimeline(relay.Mark{}, *w.log.settings)}
	s.tl.close(media.VideoTimescale)
	low := &rungWork{rung: w.encoding.rungs[1], segment: s}
	s.rungs = []*rungWork{{rung: w.encoding.rungs[0], segment: s, standIn: low.rung.Name}, low}
	w.segments.list = []*segment{s}
	w.encoding.giveUp(&encodingRun{segment: s, works: s.rungs[1:]})
	checkGaps(t, rec, []string{"90p30", "64p30"}, 1)
	w.retire()
	if len(w.segments.list) != 0 {
		t.Error("a segment whose rungs are gaps isn't done")
	}
}

// checkGaps checks that segments 0 to n-1 of just these renditions are gaps.
func checkGaps(t *testing.T, rec *transcodetest.Record, renditions []string, n uint64) {
	t.Helper()
	gaps := map[string]index.Entry{}
	for _, e := range rec.Gaps {
		gaps[transcodetest.Key(e)] = e
	}
	for _, name := range renditions {
		for seq := range n {
			if e := gaps[fmt.Sprintf("%s/%d", name, seq)]; e.Type != index.TypeGap || e.Duration == 0 || e.Reason == "" {
				t.Errorf("%s has no gap %d: %+v", name, seq, e)
			}
		}
	}
	if want := len(renditions) * int(n); len(rec.Gaps) != want {
		t.Errorf("there are %d gaps, want %d", len(rec.Gaps), want)
	}
}

// There are pictures for listings where no rungs are made, too; but not of each
// segment, since each then costs a process.
func TestThumbnailsWithoutRungs(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -t 5 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 60")
	for name, ladder := range map[string]string{"no ladder": "none", "all are shed": "90p30=150k"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := transcodetest.NewRecord()
			w := testWorker(t, ladder, rec, func(c *Config) { c.Budget.most.Cores = 0 })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := w.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
				for _, e := range l.From(0) {
					testenv.Await(ctx, func() bool { return e.Mark == nil || e.Mark.Sequence == 0 || rec.Pictures.Load() > 0 })
					select {
					case out <- e:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return logread.ErrEnded
			})
			if err != nil {
				t.Error(err)
			}
			if n := testutil.ToFloat64(w.Metrics.hangs) + testutil.ToFloat64(w.Metrics.failures); n > 0 {
				t.Errorf("%v encoders failed", n)
			}
			if n := rec.Pictures.Load(); n != 1 {
				t.Errorf("%d pictures of three segments, want one", n)
			}
		})
	}
	e := &encoding{}
	for n := range 3 * lonePicture {
		if got, want := e.pictureDue(nil), n%lonePicture == 0; got != want {
			t.Errorf("segment %d: a picture is due: %v", n, got)
		}
	}
}

// An encoder with low priority gets no CPU time for long and isn't ended for that.
func TestBackgroundEncodersMayBeSlow(t *testing.T) {
	t.Parallel()
	f, err := testFFmpeg()
	if err != nil {
		t.Fatal(err)
	}
	e, err := f.startUnbound(t.Context(), Job{Rungs: []Rung{{Name: "90p30", Width: 160, Height: 90, Step: 1, Bitrate: 150000}}, Preset: "ultrafast"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		e.discard()
		e.running.Wait()
	}()
	if err := syscall.Kill(e.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for range hangUnits {
		e.watchdog.fed(now)
	}
	look := func(after time.Duration) error { return e.watchdog.hung(now.Add(after), e.cmd.Process.Pid, 1) }
	_ = look(0) // what it has used until now
	if look(hangSilence+time.Millisecond) == nil {
		t.Error("an encoder that is stopped isn't noticed")
	}
	e.background()
	if err := look(time.Minute); err != nil {
		t.Errorf("one with low priority is ended after a minute: %v", err)
	}
	if look(backgroundSilence) == nil {
		t.Error("one with low priority may hang for ever")
	}
}
