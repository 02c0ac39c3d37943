package encode

import (
	"fmt"
	"math"
	"testing"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/transcode/transcodetest"
)

// What a rung takes of a source follows from the pictures' times: as many as it
// is meant to have, however many were settled on.
func TestPicker(t *testing.T) {
	for _, c := range []struct {
		rung  Rung
		comes float64 // frames a second
		want  float64
	}{
		{Rung{FrameRate: 30, Step: 1}, 30, 30},
		{Rung{FrameRate: 30, Step: 1}, 60, 30},
		{Rung{FrameRate: 30, Step: 1}, 5, 5},
		{Rung{FrameRate: 30, Step: 1}, 1, 1},
		{Rung{FrameRate: 30, Step: 1}, 40, 40},
		{Rung{FrameRate: 30, Step: 1}, 50, 25},
		{Rung{FrameRate: 30, Step: 1}, 120, 40},
		{Rung{FrameRate: 24, Step: 1}, 60, 30},
		{Rung{FrameRate: 5, Step: 1}, 30, 30},
		{Rung{FrameRate: 5, Step: 1}, 60, 30},
		{Rung{FrameRate: 40, Step: 1}, 40, 40},
		{Rung{FrameRate: 30, Step: 2}, 60, 30},
		{Rung{FrameRate: 30000.0 / 1001, Step: 2}, 60000.0 / 1001, 30000.0 / 1001},
		{Rung{FrameRate: 25, Step: 2}, 50, 25},
		{Rung{FrameRate: 24, Step: 2}, 48, 24},
		{Rung{FrameRate: 30, Step: 2}, 30, 30},
		{Rung{FrameRate: 30, Step: 2}, 24, 24},
		{Rung{FrameRate: 30, Step: 2}, 5, 5},
		{Rung{FrameRate: 30, Step: 4}, 120, 30},
		{Rung{FrameRate: 28.8, Step: 5}, 144, 28.8},
		{Rung{FrameRate: 25, Step: 3}, 75, 25},
		{Rung{FrameRate: 30, Step: 8}, 240, 30},
		{Rung{FrameRate: 30, Step: 8}, 30, 30},
		{Rung{FrameRate: 60, Step: 1}, 60, 60},
		{Rung{FrameRate: 60, Step: 1}, 80, 80},
		{Rung{FrameRate: 60, Step: 1}, 120, 60},
		{Rung{FrameRate: 60, Step: 1}, 5, 5},
		{Rung{FrameRate: 120, Step: 1}, 120, 120},
	} {
		const seconds = 20
		p := picker{gap: c.rung.gap()}
		n := 0
		for _, at := range frameTimes(int(seconds*c.comes), c.comes) {
			if p.take(at) {
				n++
			}
		}
		if rate := float64(n) / seconds; math.Abs(rate-c.want) > 0.1 {
			t.Errorf("%v fps, %d of the source's: of %v fps it takes %v, want %v", c.rung.FrameRate, c.rung.Step, c.comes, rate, c.want)
		}
	}
}

// Of a steady source each second, or each fourth, picture is taken, whatever the
// rounding of its times; and jitter loses none of what comes slowly enough.
func TestPickerIsSteady(t *testing.T) {
	p := picker{gap: Rung{FrameRate: 30000.0 / 1001, Step: 2}.gap()}
	for i, at := range frameTimes(7200, 60000.0/1001) {
		if p.take(at) != (i%2 == 0) {
			t.Fatalf("picture %d of 59.94 fps", i)
		}
	}
	p = picker{gap: Rung{FrameRate: 30, Step: 1}.gap()}
	for i, at := range frameTimes(3000, 30) {
		if !p.take(at + media.Ticks(i*7919%10-5)*media.TicksPerMillisecond) {
			t.Fatalf("picture %d of 30 fps with jitter", i)
		}
	}
}

// What encoding costs is learned from the pictures that there were: a source that
// was settled at 5 fps and comes at 60 doesn't make all others look dear.
func TestCostOfWhatCame(t *testing.T) {
	for _, c := range []struct{ settled, comes, source, rung float64 }{
		{30, 30, 30, 30}, {5, 60, 60, 30}, {30, 5, 5, 5}, {30, 60, 60, 30},
	} {
		e := &encoding{source: Source{Width: 640, Height: 360, FrameRate: c.settled, Step: 1}}
		rungs := BuildLadder(nil, e.source)
		s := &segment{tl: newTimeline(relay.Mark{}, settledOn(c.settled))}
		for _, at := range frameTimes(int(2*c.comes), c.comes) {
			s.tl.add(at)
		}
		s.tl.close(2 * media.VideoTimescale)
		if src, made := e.came(s, Job{Rungs: rungs}); src.FrameRate != c.source || made[0].FrameRate != c.rung || rungs[0].FrameRate != c.settled {
			t.Errorf("settled at %v, %v come: the cost is of %v and of %v", c.settled, c.comes, src.FrameRate, made[0].FrameRate)
		}
	}
}

// FFmpeg chooses what the timeline expects: a stretch of 60 fps is halved, those of
// 30 and of 5 are taken whole, from any segment on, and the parts keep to the settings.
func TestRungOfAVaryingFrameRate(t *testing.T) {
	t.Parallel()
	for _, bFrames := range []int{0, 2} {
		t.Run(fmt.Sprintf("%d B-frames", bFrames), func(t *testing.T) { testVarying(t, bFrames) })
	}
}

func testVarying(t *testing.T, bFrames int) {
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=60 -t 6 -pix_fmt yuv420p"+
		" -vf select='lt(t\\,2)+lt(t\\,4)*not(mod(n\\,2))+gte(t\\,4)*not(mod(n\\,12))' -fps_mode vfr"+
		fmt.Sprintf(" -c:v libx264 -preset ultrafast -bf %d", bFrames)+" -force_key_frames expr:gte(t,n_forced*2) -sc_threshold 0 -g 1000")
	rec := transcodetest.NewRecord()
	runWorker(t, l, 0, "96p30=150k", rec)
	for sequence, want := range []struct{ source, rung int }{{120, 60}, {60, 60}, {10, 10}} {
		for name, want := range map[string]int{sourceName: want.source, "96p30": want.rung} {
			frames := 0
			key := transcodetest.Key(index.Entry{Rendition: name, Sequence: uint64(sequence)})
			for i, part := range rec.Parts[key] {
				samples, _ := samplesOf(t, part)
				frames += len(samples)
				lasts := media.Ticks(0)
				for _, s := range samples {
					lasts += media.Ticks(s.Dur)
				}
				if last := i == len(rec.Parts[key])-1; lasts > rec.About.PartTarget || !last && lasts < rec.About.PartTarget*85/100 {
					t.Errorf("%s, part %d lasts %v, the part target is %v", key, i, lasts, rec.About.PartTarget)
				}
			}
			if frames != want {
				t.Errorf("%s has %d pictures, want %d", key, frames, want)
			}
		}
	}
	decodeAll(t, rec, 2)
	checkTimes(t, rec, 2)
	later := transcodetest.NewRecord()
	runWorker(t, l, 1, "96p30=150k", later)
	for k, sum := range rec.Sums(1) {
		if later.Sums(1)[k] != sum {
			t.Errorf("%s differs from one worker to the next", k)
		}
	}
}
