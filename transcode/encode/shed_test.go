package encode

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/media/mediatest"
	"millrace/internal/relay"
	"millrace/internal/testenv"
	"millrace/transcode/logread"
	"millrace/transcode/transcodetest"
)

// small is a source that costs little.
var small = Source{Width: 320, Height: 180, FrameRate: 30, Step: 1}

// Twice as many broadcasts as there is room for: each keeps its source, the
// highest rungs go first, and what isn't made lists a stand-in. Rungs come
// back when there is room.
func TestOverload(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, fmt.Sprintf(transcodetest.WithSound, 6))
	f, err := testFFmpeg()
	if err != nil {
		t.Fatal(err)
	}
	specs, err := ParseLadder(transcodetest.Ladder)
	if err != nil {
		t.Fatal(err)
	}
	rungs := BuildLadder(specs, small)
	b := NewBudget(2.1*EstimateCost(small, rungs), 0)
	m := NewMetrics(prometheus.NewRegistry(), b)
	var all []*Worker
	sheds := 0
	for range 4 {
		rec := transcodetest.NewRecord()
		w := New(Config{
			Grant: transcodetest.FirstGrant, FFmpeg: f, Preset: "ultrafast", Ladder: specs, Budget: b, Publish: rec, Metrics: m,
			Log: transcodetest.Logger(t), Tolerance: transcodetest.Patient,
		})
		all = append(all, w)
		shed := 0
		err := w.Run(t.Context(), func(ctx context.Context, out chan<- relay.Entry) error {
			for _, e := range l.From(0) {
				if e.Mark != nil && e.Mark.Kind == relay.Open {
					testenv.Await(ctx, func() bool { return w.unmade.Load() == 0 })
					shed = int(testutil.ToFloat64(m.rungsShed))
				}
				out <- e
			}
			return logread.ErrEnded
		})
		if err != nil {
			t.Fatal(err)
		}
		// What the encoders cost here is measured as it goes: by the second
		// broadcast there may be room for one rung only.
		if before := sheds; w.encoding.shed < before || shed != w.encoding.shed || len(all) == 1 && shed != 0 || len(all) > 2 && shed != 2 {
			t.Errorf("broadcast %d: %d rungs are shed after %d, the metric says %d", len(all), w.encoding.shed, before, shed)
		}
		sheds = w.encoding.shed
		for _, name := range []string{sourceName, audioName, "96p30", "64p30"} {
			for n := range 3 {
				if rec.Entries[fmt.Sprintf("%s/%d", name, n)].Type != index.TypeSegment {
					t.Errorf("broadcast %d: %s has no segment %d", len(all), name, n)
				}
			}
		}
	}
	b.Release(all[0])
	b.ratio = 1 // on a busy machine encoding was measured to be dear
	late := all[3]
	s := &segment{tl: newTimeline(relay.Mark{Sequence: 9}, *late.log.settings)}
	late.segments.list = []*segment{s}
	if got := []int{late.encoding.balance(s), late.encoding.balance(s)}; got[0] == 0 {
		t.Errorf("with room again, %v rungs are made", got)
	}
	late.encoding.discardSpares()
}

// A rung that lags is shed, the highest first, but not at a short contention;
// catching up with the log is none.
func TestLaggingRungsAreShed(t *testing.T) {
	t.Parallel()
	const second = media.VideoTimescale
	for _, c := range []struct {
		name  string
		lags  []media.Ticks // of the segment before, at each mark
		burst bool
		stood bool // the process stood still just before
		again bool // the segment was begun again
		want  int
	}{
		{"on time", []media.Ticks{second / 10, second / 10}, false, false, false, 2},
		{"late once", []media.Ticks{second, second / 10}, false, false, false, 2},
		{"late twice", []media.Ticks{second, second}, false, false, false, 1},
		{"very late once", []media.Ticks{2 * second}, false, false, false, 1},
		{"very late for long", []media.Ticks{2 * second, 2 * second}, false, false, false, 0},
		{"catching up", []media.Ticks{2 * second, 2 * second}, true, false, false, 2},
		{"woken up", []media.Ticks{2 * second, 2 * second}, false, true, false, 2},
		{"begun again", []media.Ticks{2 * second, 2 * second}, false, false, true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := NewBudget(0, 0)
			w := New(Config{Budget: b, Metrics: NewMetrics(prometheus.NewRegistry(), b), Log: slog.New(slog.DiscardHandler)})
			settings := relay.Settings{Video: true, FrameRate: 30}
			w.encoding.source = small
			w.encoding.rungs = BuildLadder([]RungSpec{{96, 30, 150000}, {64, 30, 80000}}, small)
			w.encoding.patience = calmSegments
			got := 0
			for n, lag := range c.lags {
				start := media.Ticks(10+2*n) * second
				old := &segment{tl: newTimeline(relay.Mark{Start: start - 2*second}, settings)}
				old.tl.cuts[0].at = start - lag // what is written until there
				r := &rungWork{segment: old, again: c.again}
				r.out = newRendering(old.tl, jobs.Epoch{}, "96p30", "", "p", 0)
				old.rungs = []*rungWork{r}
				s := &segment{tl: newTimeline(relay.Mark{Start: start}, settings)}
				w.segments.list = []*segment{old, s}
				w.encoding.read = time.Now()
				if !c.burst {
					w.encoding.read = time.Now().Add(-2 * time.Second)
				}
				if c.stood {
					w.encoding.stood = time.Now()
				}
				got = w.encoding.balance(s)
			}
			if got != c.want {
				t.Errorf("%d rungs are made, want %d", got, c.want)
			}
		})
	}
}

// What one broadcast sheds, since its rungs are late, isn't room for another one;
// later, shed rungs come back one broadcast at a time.
func TestShedRungsComeBackOneByOne(t *testing.T) {
	t.Parallel()
	b := NewBudget(1, 0)
	one, two, now := &encoding{}, &encoding{}, time.Unix(1000, 0)
	for _, c := range []struct {
		name  string
		e     *encoding
		cost  float64
		late  bool
		after time.Duration
		want  bool
	}{
		{"nothing is late", one, 0.3, false, 0, true},
		{"another one just before", two, 0.3, false, addPause / 2, false},
		{"the next", two, 0.3, false, addPause, true},
		{"a rung is late", one, 0.4, true, calmTime / 2, false},
		{"calm again", one, 0.4, false, calmTime, true},
		{"no room", two, 0.7, false, calmTime, false},
	} {
		if c.late {
			b.fellBehind(now)
		}
		now = now.Add(c.after)
		if got := b.add(c.e, Need{Cores: c.cost}, now); got != c.want {
			t.Errorf("%s: added %v, want %v", c.name, got, c.want)
		}
	}
}

// A publisher who comes back in a format that costs more to decode takes more room.
func TestRoomFollowsTheSource(t *testing.T) {
	t.Parallel()
	room := func(w *Worker, record string) float64 {
		video, _ := mediatest.Clip(t, record)
		if err := w.encoding.configure(video.Codec, relay.Settings{Video: true, FrameRate: 30, FrameStep: 1}); err != nil {
			t.Fatal(err)
		}
		return w.Budget.Room()
	}
	w := testWorker(t, "64p30=60k", transcodetest.NewRecord(), func(c *Config) { c.FFmpeg = &FFmpeg{path: "false"} })
	if before, now := room(w, "h264-opus"), room(w, "hevc-opus"); now >= before {
		t.Errorf("%g cores were free, and %g are", before, now)
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
		c.Budget.most.Cores = 0
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

// What stands in for rungs is H.264: of a source in another format that none is made
// of, a segment is a gap in its rungs. One rung of it is always made, also when the
// publisher comes back with it in place of H.264.
func TestSourceInAnotherFormatNeverStandsIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format   media.Format
		record   string
		mayShed  int
		gaps     int
		standsIn string
	}{
		{media.H264, "h264-opus", 2, 0, sourceName},
		{media.HEVC, "hevc-opus", 1, 2, ""},
		{media.AV1, "av1-aac", 1, 2, ""},
	} {
		t.Run(c.format.String(), func(t *testing.T) {
			video, _ := mediatest.Clip(t, c.record)
			rec := transcodetest.NewRecord()
			w := testWorker(t, "66p30=80k,64p30=60k", rec, func(c *Config) { c.FFmpeg = &FFmpeg{path: "false"} })
			w.out.announced = true
			e := w.encoding
			e.rungs, e.shed = BuildLadder(w.Ladder, Source{Width: 128, Height: 72, FrameRate: 30, Step: 1}), 2
			if err := e.configure(video.Codec, relay.Settings{Video: true, FrameRate: 30, FrameStep: 1}); err != nil {
				t.Fatal(err)
			}
			if e.mayShed() != c.mayShed || e.shed != c.mayShed {
				t.Errorf("%d rungs are shed, at most %d may be, want %d", e.shed, e.mayShed(), c.mayShed)
			}
			s := &segment{tl: newTimeline(relay.Mark{}, relay.Settings{}), codec: video.Codec}
			for _, r := range e.rungs {
				s.rungs = append(s.rungs, &rungWork{rung: r, segment: s})
			}
			e.standIn(s, 0)
			s.tl.close(media.VideoTimescale)
			e.finish(s)
			if len(rec.Gaps) != c.gaps || s.rungs[0].standIn != c.standsIn {
				t.Errorf("%d gaps, %q stands in", len(rec.Gaps), s.rungs[0].standIn)
			}
		})
	}
}
