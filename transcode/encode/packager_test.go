package encode

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"
	"pgregory.net/rapid"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/relay"
)

// frameTimes are those of n frames at rate, rounded to FLV's milliseconds.
func frameTimes(n int, rate float64) []media.Ticks {
	times := make([]media.Ticks, n)
	for i := range times {
		times[i] = media.Ticks(math.Round(float64(i)*1000/rate)) * media.TicksPerMillisecond
	}
	return times
}

func TestTimelineCuts(t *testing.T) {
	for _, c := range []struct {
		name   string
		rate   float64
		step   int
		limit  float64 // seconds
		frames int
		drop   int // this frame never came; 0: none
		want   string
	}{
		{"30 fps", 30, 1, 0.343, 60, 0, "10 10 10 10 10 10"},
		{"29.97 fps", 30000.0 / 1001, 1, 0.343, 60, 0, "10 10 10 10 10 10"},
		{"25 fps", 25, 1, 0.330, 50, 0, "8 8 8 8 8 8 2"},
		{"60 fps in pairs", 60, 2, 0.340, 120, 0, "20 20 20 20 20 20"},
		{"an odd number of frames", 60, 2, 0.340, 41, 0, "20 20 1"},
		{"one frame", 30, 1, 0.343, 1, 0, "1"},
		{"a frame lost after a part", 30, 1, 0.343, 30, 10, "9 9 10 1"},
		{"a frame lost within a part", 30, 1, 0.343, 30, 5, "9 10 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl := newTimeline(relay.Mark{}, relay.Settings{
				PartDuration: media.Ticks(c.limit * media.VideoTimescale), FrameRate: c.rate, FrameStep: c.step,
			})
			times := frameTimes(c.frames+1, c.rate)
			for i, at := range times[:c.frames] {
				if i != c.drop || i == 0 {
					tl.add(at)
				}
			}
			tl.close(times[c.frames])
			var got []string
			for n := 0; ; n++ {
				from, to, last, ok := tl.part(n)
				if !ok {
					t.Fatalf("part %d isn't settled in a closed segment", n)
				}
				got = append(got, fmt.Sprint(to.frame-from.frame))
				if last {
					break
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("parts of %s frames, want %s", s, c.want)
			}
		})
	}
}

// settledOn are the settings of a broadcast that was settled on a frame rate, with
// sound at 48 kHz.
func settledOn(rate float64) relay.Settings {
	s := relay.Settings{FrameRate: rate, FrameStep: 1, PartDuration: 30900, PartTarget: 32910}
	switch rate {
	case 60:
		s.FrameStep, s.PartDuration, s.PartTarget = 2, 30600, 32610
	case 25:
		s.PartDuration, s.PartTarget = 29700, 31710
	case 5:
		s.PartDuration, s.PartTarget = 36900, 38910
	}
	return s
}

// checkCuts checks that parts divide a segment, and that none but the last is
// shorter than 85 % of the part target. It returns the longest one.
func checkCuts(t fataler, tl *timeline) (longest media.Ticks) {
	t.Helper()
	next := cut{at: tl.mark.Start}
	for n := 0; ; n++ {
		from, to, last, ok := tl.part(n)
		if !ok || from != next || to.at <= from.at || to.frame <= from.frame {
			t.Fatalf("part %d: from %+v to %+v, settled %v; the one before ended at %+v", n, from, to, ok, next)
		}
		if to.at-from.at < tl.least && !last {
			t.Fatalf("part %d lasts %v, the least is %v", n, to.at-from.at, tl.least)
		}
		longest = max(longest, to.at-from.at)
		next = to
		if last {
			break
		}
	}
	if next.at != tl.end || next.frame != len(tl.times) {
		t.Fatalf("the parts end at %+v, the segment at %v with %d frames", next, tl.end, len(tl.times))
	}
	return longest
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Whatever the frames' times: parts divide the segment, none but the last is too
// short, and where there are frames enough, none is too long.
func TestTimelineLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tl := newTimeline(relay.Mark{}, settledOn(rapid.SampledFrom([]float64{5, 24, 25, 30, 60}).Draw(t, "rate")))
		distance := rapid.IntRange(1, 400).Draw(t, "longest distance")
		at := media.Ticks(0)
		for range rapid.IntRange(1, 200).Draw(t, "frames") {
			tl.add(at)
			at += media.Ticks(rapid.IntRange(1, distance).Draw(t, "milliseconds")) * media.TicksPerMillisecond
		}
		tl.close(at)
		if longest := checkCuts(t, tl); longest > tl.limit && distance < 125 {
			t.Fatalf("a part lasts %v, the limit is %v", longest, tl.limit)
		}
	})
}

// The settings stay; whatever frame rate follows, the parts keep to them.
func TestTimelineOfAnotherFrameRate(t *testing.T) {
	for _, settled := range []float64{5, 24, 25, 30, 60} {
		for rate := 5.0; rate <= 144; rate++ {
			tl := newTimeline(relay.Mark{}, settledOn(settled))
			times := frameTimes(int(3*rate), rate)
			for _, at := range times {
				tl.add(at)
			}
			tl.close(3 * media.VideoTimescale)
			if longest := checkCuts(t, tl); longest > tl.limit {
				t.Errorf("settled on %v fps, %v fps come: a part lasts %v, the limit is %v", settled, rate, longest, tl.limit)
			}
		}
	}
}

// A part that is cut by time doesn't change when pictures are shown.
func TestPicturesAreShownInTime(t *testing.T) {
	for rate, most := range map[float64]float64{5: 0.15, 7: 0, 10: 0, 24: 0, 30: 0, 60: 0} {
		tl := newTimeline(relay.Mark{}, settledOn(30))
		r := newRendering(tl, jobs.Epoch{}, "source", "init", "p", 0)
		times := frameTimes(int(2*rate)+1, rate)
		var shown []media.Ticks
		r.publish = func(part index.Entry, data []byte, _ index.Entry) {
			samples, decoded := samplesOf(t, data)
			if part.Duration > tl.limit {
				t.Errorf("at %v fps a part lasts %v", rate, part.Duration)
			}
			for _, s := range samples {
				shown = append(shown, decoded+media.Ticks(s.CompositionTimeOffset))
				decoded += media.Ticks(s.Dur)
			}
		}
		for i, at := range times[:len(times)-1] {
			tl.add(at)
			r.add(frame{time: int64(at), at: at, key: i == 0, payload: []byte{1}})
			r.advance(false)
		}
		tl.close(times[len(times)-1])
		r.advance(true)
		if len(shown) != len(times)-1 {
			t.Fatalf("at %v fps: %d pictures of %d", rate, len(shown), len(times)-1)
		}
		for i, at := range shown {
			if late := at - times[i]; late < 0 || late.Seconds() > most {
				t.Errorf("at %v fps picture %d is shown %v too late", rate, i, late)
			}
		}
	}
}

// samplesOf returns the samples of a fragment, and when the first one is decoded.
func samplesOf(t *testing.T, data []byte) ([]mp4.Sample, media.Ticks) {
	t.Helper()
	parsed, err := mp4.DecodeFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	traf := parsed.Segments[0].Fragments[0].Moof.Traf
	return traf.Trun.Samples, media.Ticks(traf.Tfdt.BaseMediaDecodeTime())
}

// An encoder that stops in mid-GOP leaves B-frames out: a rung then has no
// picture where the source has a frame. Its samples follow each other all the
// same, and last as long as its entries say.
func TestMissingPictures(t *testing.T) {
	const frames = 31 // in parts of 10, 10, 10 and 1
	for name, missing := range map[string][]int{
		"none": nil, "at a cut and within a part": {10, 15}, "at the end of a part": {9},
		"the last, of the last part": {30}, "the last two": {29, 30},
	} {
		t.Run(name, func(t *testing.T) {
			times := frameTimes(frames+1, 30)
			tl := newTimeline(relay.Mark{}, relay.Settings{PartDuration: 0.343 * media.VideoTimescale, FrameRate: 30})
			for _, at := range times[:frames] {
				tl.add(at)
			}
			r := newRendering(tl, jobs.Epoch{}, "240p30", "init", "p", 0)
			var parts, lasts int
			var next, ends uint64
			var segment index.Entry
			r.publish = func(part index.Entry, data []byte, s index.Entry) {
				segment = s
				if len(data) == 0 {
					return
				}
				parts++
				ends += uint64(part.Duration)
				parsed, err := mp4.DecodeFile(bytes.NewReader(data))
				if err != nil {
					t.Fatal(err)
				}
				traf := parsed.Segments[0].Fragments[0].Moof.Traf
				if begins := traf.Tfdt.BaseMediaDecodeTime(); begins != next {
					t.Errorf("part %d begins at %d, the one before it ends at %d", part.Part, begins, next)
				}
				for _, s := range traf.Trun.Samples {
					next += uint64(s.Dur)
					lasts++
				}
				if next != ends {
					t.Errorf("the samples end at %d after part %d, its entry says %d", next, part.Part, ends)
				}
			}
			for i, at := range times[:frames] {
				if !slices.Contains(missing, i) {
					r.add(frame{time: int64(at), at: at, key: i == 0, payload: []byte{1}})
				}
			}
			tl.close(times[frames])
			r.advance(true)
			if !r.done || lasts != frames-len(missing) {
				t.Fatalf("done %v with %d pictures of %d", r.done, lasts, frames-len(missing))
			}
			if segment.Parts != parts || uint64(segment.Duration) != next {
				t.Errorf("the segment has %d parts of %d, and lasts %d, its samples %d", segment.Parts, parts, segment.Duration, next)
			}
		})
	}
}
