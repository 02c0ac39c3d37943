package encode

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/internal/testenv"
	"millrace/transcode/logread"
	"millrace/transcode/transcodetest"
)

var testFFmpeg = sync.OnceValues(func() (*FFmpeg, error) { return FindFFmpeg(context.Background(), "ffmpeg") })

// runWorker feeds a log to a worker as fast as it takes it, waiting at each
// mark until the segment before it is published: no more is encoded side by
// side than live.
func runWorker(t *testing.T, l *transcodetest.Log, from uint64, ladder string, rec *transcodetest.Record) {
	t.Helper()
	runWorkerShedding(t, l, from, ladder, 0, rec)
}

// testWorker is a worker with room that publishes into rec.
func testWorker(t *testing.T, ladder string, rec *transcodetest.Record, change func(*Config)) *Worker {
	t.Helper()
	f, err := testFFmpeg()
	if err != nil {
		t.Fatal(err)
	}
	specs, err := ParseLadder(ladder)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBudget(64)
	c := Config{
		Grant: jobs.Grant{Epoch: jobs.Epoch{Lease: 1, Grant: 1}}, FFmpeg: f, Preset: "ultrafast", Ladder: specs, Budget: b, Publish: rec,
		Metrics: NewMetrics(prometheus.NewRegistry(), b), Log: transcodetest.Logger(t),
	}
	if change != nil {
		change(&c)
	}
	return New(c)
}

func runWorkerShedding(t *testing.T, l *transcodetest.Log, from uint64, ladder string, shed int, rec *transcodetest.Record) {
	t.Helper()
	w := testWorker(t, ladder, rec, func(c *Config) {
		c.From, c.Grant.Live, c.Grant.Backfill = from, from, from
	})
	w.encoding.shed = shed
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := w.Run(ctx, l.Unhurried(from, w.finished.Load)); err != nil {
		t.Fatalf("worker from segment %d: %v", from, err)
	}
	rec.Check(t)
}

// decodeAll has ffmpeg decode every rendition whole; it must not complain.
func decodeAll(t *testing.T, rec *transcodetest.Record, last uint64) {
	t.Helper()
	for _, r := range rec.About.Renditions {
		var file bytes.Buffer
		for k, init := range rec.Inits {
			if strings.HasPrefix(k, r.Name+"/") {
				file.Write(init.Data)
				break
			}
		}
		for seq := range last + 1 {
			file.Write(bytes.Join(rec.Parts[fmt.Sprintf("%s/%d", r.Name, seq)], nil))
		}
		cmd := exec.Command("ffmpeg", "-v", "warning", "-i", "pipe:0", "-f", "null", "-")
		cmd.Stdin = &file
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s doesn't decode cleanly: %v: %.500s", r.Name, err, out)
		}
	}
}

// checkTimes checks that each segment begins where the one before it ended.
func checkTimes(t *testing.T, rec *transcodetest.Record, last uint64) {
	t.Helper()
	for _, r := range rec.About.Renditions {
		next := uint64(0)
		for seq := range last + 1 {
			f, err := mp4.DecodeFile(bytes.NewReader(bytes.Join(rec.Parts[fmt.Sprintf("%s/%d", r.Name, seq)], nil)))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range f.Segments {
				for i, frag := range s.Fragments {
					at := frag.Moof.Traf.Tfdt.BaseMediaDecodeTime()
					if next != 0 && at != next {
						t.Errorf("%s segment %d part %d begins at %d, the one before it ended at %d", r.Name, seq, i, at, next)
					}
					next = at
					for _, sample := range frag.Moof.Traf.Trun.Samples {
						next += uint64(sample.Dur)
					}
				}
			}
		}
	}
}

func TestWorkerMakesTheSameBytesFromEveryMark(t *testing.T) {
	t.Parallel()
	const av = "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=frequency=300:sample_rate=44100 -t 9 -pix_fmt yuv420p -c:a aac -c:v libx264 "
	for _, c := range []struct {
		name, args string
		cut        float64
	}{
		{"B-frames", av + "-preset veryfast -bf 3 -g 60", 0},
		{"a GOP cut in the middle", av + "-preset veryfast -bf 2 -g 240 -sc_threshold 0", 2},
		{"irregular keyframes", av + "-preset ultrafast -bf 0 -g 250 -force_key_frames 0,0.7,2.3,4.9,6", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := transcodetest.MakeLog(t, c.cut, c.args)
			last := l.Events[l.Marks[len(l.Marks)-1]].Mark.Sequence
			whole := transcodetest.NewRecord()
			runWorker(t, l, 0, "90p30=150k,64p30=80k", whole)
			if len(whole.Gaps) > 0 || whole.Pictures == 0 {
				t.Errorf("%d gaps, %d thumbnails", len(whole.Gaps), whole.Pictures)
			}
			if n := len(whole.Sums(0)); n != 4*int(last+1) {
				t.Fatalf("%d segments in 4 renditions, want %d in each", n, last+1)
			}
			decodeAll(t, whole, last)
			checkTimes(t, whole, last)
			for from := uint64(1); from <= last; from++ {
				again := transcodetest.NewRecord()
				runWorker(t, l, from, "90p30=150k,64p30=80k", again)
				want, got := whole.Sums(from), again.Sums(from)
				for k, sum := range want {
					if got[k] != sum {
						t.Errorf("from mark %d, %s is %q, want %q", from, k, got[k], sum)
					}
				}
			}
		})
	}
}

// The source rendition holds the log's access units, byte for byte and shown at
// the same times.
func TestSourceIsRepackagedUnchanged(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=sample_rate=48000 -t 5 -pix_fmt yuv420p -c:a aac -ac 1 -c:v libx264 -preset veryfast -bf 2 -g 60")
	rec := transcodetest.NewRecord()
	runWorker(t, l, 0, "none", rec)
	want := map[media.Kind][]*media.Unit{}
	for _, e := range l.Events {
		if e.Unit != nil {
			want[e.Unit.Track] = append(want[e.Unit.Track], e.Unit)
		}
	}
	for name, kind := range map[string]media.Kind{sourceName: media.Video, audioName: media.Audio} {
		n := 0
		if kind == media.Audio {
			// Sound from before the first picture is left out.
			for n < len(want[kind]) && !bytes.Contains(rec.Parts["audio/0"][0][:800], want[kind][n].Payload) {
				n++
			}
		}
		for seq := uint64(0); rec.Entries[fmt.Sprintf("%s/%d", name, seq)].Type != ""; seq++ {
			f, err := mp4.DecodeFile(bytes.NewReader(bytes.Join(rec.Parts[fmt.Sprintf("%s/%d", name, seq)], nil)))
			if err != nil {
				t.Fatal(err)
			}
			for _, frag := range f.Segments[0].Fragments {
				samples, err := frag.GetFullSamples(&mp4.TrexBox{TrackID: 1})
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range samples {
					u := want[kind][n]
					n++
					if !bytes.Equal(s.Data, u.Payload) {
						t.Fatalf("%s sample %d has other bytes", name, n)
					}
					if kind == media.Video && media.Ticks(s.PresentationTime()) != u.PTS {
						t.Fatalf("picture %d is shown at %d, want %d", n, s.PresentationTime(), u.PTS)
					}
				}
			}
		}
		if n != len(want[kind]) {
			t.Errorf("%s has %d samples, the log has %d", name, n, len(want[kind]))
		}
	}
}

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
	begun := time.Now()
	runWorker(t, l, 0, "98p30=150k", disturbed)
	if took := time.Since(begun); hung != 1 || took > encoderSilence {
		t.Fatalf("ffmpeg was stopped %d times, and all took %s", hung, took)
	}
	want, got := undisturbed.Sums(0), disturbed.Sums(0)
	for k, sum := range want {
		if got[k] != sum {
			t.Errorf("%s differs after a hang", k)
		}
	}
}

func TestOddSoundIsEncoded(t *testing.T) {
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
	w.Publish = rec
	s := &segment{tl: newTimeline(relay.Mark{}, *w.settings)}
	s.tl.close(media.VideoTimescale)
	low := &rungWork{rung: w.encoding.rungs[1], segment: s}
	s.rungs = []*rungWork{{rung: w.encoding.rungs[0], segment: s, standIn: low.rung.Name}, low}
	w.segments = []*segment{s}
	w.giveUp(&encodingRun{segment: s, works: s.rungs[1:]})
	checkGaps(t, rec, []string{"90p30", "64p30"}, 1)
	if len(w.segments) != 0 {
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

// A rung that isn't made lists the media of the next lower one, or the source.
func TestShedRungsHaveAStandIn(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -t 7 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 60")
	for _, c := range []struct {
		shed int
		want string
	}{{1, "64p30"}, {2, sourceName}} {
		rec := transcodetest.NewRecord()
		runWorkerShedding(t, l, 0, "90p30=150k,64p30=80k", c.shed, rec)
		for seq := range uint64(3) {
			got := bytes.Join(rec.Parts[fmt.Sprintf("90p30/%d", seq)], nil)
			want := bytes.Join(rec.Parts[fmt.Sprintf("%s/%d", c.want, seq)], nil)
			e := rec.Entries[fmt.Sprintf("90p30/%d", seq)]
			if len(got) == 0 || !bytes.Equal(got, want) {
				t.Errorf("%d shed: segment %d of the rung isn't that of %s", c.shed, seq, c.want)
			}
			if rec.Inits["90p30/"+e.Init] == nil {
				t.Errorf("%d shed: segment %d names init %q, which the rung doesn't have", c.shed, seq, e.Init)
			}
		}
		decodeAll(t, rec, 2)
	}
}

// A worker without room that takes a segment over in its middle makes all rungs
// of it, and sheds from the next one on: parts of a rung that viewers have don't
// go together with those of what stands in for it.
func TestSegmentTakenOverInItsMiddleHasAllRungs(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -t 5 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 60")
	whole := transcodetest.NewRecord()
	runWorker(t, l, 0, "90p30=150k,64p30=80k", whole)
	rec := transcodetest.NewRecord()
	w := testWorker(t, "90p30=150k,64p30=80k", rec, func(c *Config) {
		c.Grant, c.From = jobs.Grant{Epoch: jobs.Epoch{Lease: 1, Grant: 2}, Live: 1, Backfill: 1, Index: true}, 1
		c.Budget.cores = 0
	})
	err := w.Run(t.Context(), func(ctx context.Context, out chan<- relay.Entry) error {
		for _, e := range l.From(1) {
			out <- e
		}
		return logread.ErrEnded
	})
	if err != nil {
		t.Fatal(err)
	}
	want, got := whole.Sums(1), rec.Sums(1)
	for _, name := range []string{"90p30", "64p30"} {
		if k := name + "/1"; got[k] != want[k] {
			t.Errorf("segment 1 of %s isn't what the worker before made of it", name)
		}
		if e := rec.Entries[name+"/2"]; e.Profile != SourceProfile() {
			t.Errorf("segment 2 of %s is made, without room", name)
		}
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
			w := testWorker(t, ladder, rec, func(c *Config) { c.Budget.cores = 0 })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			pictures := func() (n int) {
				w.do(ctx, func(context.Context) { n = rec.Pictures })
				return n
			}
			err := w.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
				for _, e := range l.From(0) {
					testenv.Await(ctx, func() bool { return e.Mark == nil || e.Mark.Sequence == 0 || pictures() > 0 })
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
			if rec.Pictures != 1 {
				t.Errorf("%d pictures of three segments, want one", rec.Pictures)
			}
		})
	}
	w := &Worker{}
	for n := range 3 * lonePicture {
		if got, want := w.pictureDue(nil), n%lonePicture == 0; got != want {
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
		e.pulse.fed(now)
	}
	look := func(after time.Duration) error { return e.pulse.hung(now.Add(after), e.cmd.Process.Pid) }
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

// A worker that is told where another one takes over while the publisher is away
// is done: the mark may never come.
func TestHandoverOrderedDuringAPause(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 5)).Until(1, relay.Pause)
	w := testWorker(t, "none", transcodetest.NewRecord(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var ordering sync.WaitGroup
	defer ordering.Wait()
	ordering.Go(func() {
		testenv.Await(ctx, func() bool { return w.finished.Load() >= 2 })
		w.do(ctx, func(ctx context.Context) { w.stopAt(ctx, 2) })
	})
	err := w.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
		for _, e := range l.From(0) {
			out <- e
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if err != nil {
		t.Error(err)
	}
}

// Sound of a segment still comes after its end. A worker that gives the broadcast up
// by then publishes none of it short; one that hands it over makes it whole.
func TestSoundIsNeverPublishedShort(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 7))
	whole := transcodetest.NewRecord()
	runWorker(t, l, 0, "none", whole)
	events := l.From(0)
	at := slices.IndexFunc(events, func(e relay.Entry) bool { return e.Mark != nil && e.Mark.Sequence == 1 })
	// Encoders send sound later than pictures: three frames come after the mark.
	var late []relay.Entry
	for i := at - 1; len(late) < 3; i-- {
		if u := events[i].Unit; u != nil && u.Track == media.Audio {
			late = append([]relay.Entry{events[i]}, late...)
			events = slices.Delete(slices.Clone(events), i, i+1)
			at--
		}
	}
	events = slices.Insert(events, at+1, late...)
	for name, c := range map[string]struct {
		then    func(*Worker, context.Context)
		rest    []relay.Entry
		broken  bool
		partial bool
	}{
		"dropped":                 {then: func(w *Worker, ctx context.Context) { w.drop(ctx) }, partial: true},
		"handed over":             {then: func(w *Worker, ctx context.Context) { w.stopAt(ctx, 1) }, rest: events[at+1:]},
		"handed over, log breaks": {then: func(w *Worker, ctx context.Context) { w.stopAt(ctx, 1) }, broken: true, partial: true},
	} {
		t.Run(name, func(t *testing.T) {
			rec := transcodetest.NewRecord()
			w := testWorker(t, "none", rec, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := w.Run(ctx, func(ctx context.Context, out chan<- relay.Entry) error {
				for _, e := range events[:at+1] {
					out <- e
				}
				testenv.Await(ctx, func() bool { return len(w.queue) == 0 })
				w.do(ctx, func(ctx context.Context) { c.then(w, ctx) })
				for _, e := range c.rest {
					out <- e
				}
				if c.broken {
					return io.ErrUnexpectedEOF
				}
				<-ctx.Done()
				return ctx.Err()
			})
			if err != nil {
				t.Error(err)
			}
			for k, parts := range rec.Parts {
				for i, data := range parts {
					if all := whole.Parts[k]; i >= len(all) || !bytes.Equal(data, all[i]) {
						t.Errorf("%s, part %d isn't what a worker makes that has all of the log", k, i)
					}
				}
			}
			if _, made := rec.Entries["audio/0"]; made == c.partial {
				t.Errorf("the sound of segment 0 was published as whole: %t", made)
			}
			if _, made := rec.Entries["source/0"]; !made {
				t.Error("the picture of segment 0 was not published")
			}
			if n := w.finished.Load(); n != map[bool]uint64{true: 0, false: 1}[c.partial] {
				t.Errorf("finished says %d", n)
			}
		})
	}
}
