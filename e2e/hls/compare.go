package hls

import (
	"bytes"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"millrace/internal/testenv"
)

// CheckCarried checks that what was published came out: every frame, in its order
// and at its time.
func CheckCarried(t testing.TB, x *Rendition, input, selector string) {
	t.Helper()
	files := x.Files()
	if len(files) != 1 {
		t.Fatalf("%s: %d pieces, want 1", x.Name, len(files))
	}
	want, got := frames(t, input, selector), frames(t, files[0], selector)
	// Sound from before the first keyframe may be left out.
	skipped := 0
	for selector == "a" && skipped < len(want) && len(got) > 0 && want[skipped].hash != got[0].hash {
		skipped++
	}
	if want = want[skipped:]; skipped > 5 || len(want) != len(got) {
		t.Errorf("%s: %d frames came out, %d went in (and %d before them)", x.Name, len(got), len(want), skipped)
	}
	for i := range min(len(want), len(got)) {
		off := got[i].at - got[0].at - (want[i].at - want[0].at)
		// FLV's times are milliseconds; sound lies on its own grid.
		if got[i].hash != want[i].hash || math.Abs(off) > 0.025 {
			t.Errorf("%s: frame %d of %d is %s at %g s, want %s at %g s", x.Name, i, len(got), got[i].hash, got[i].at-got[0].at, want[i].hash, want[i].at-want[0].at)
			return
		}
	}
}

// CheckEncodedSound checks that sound lasts as long as what was published.
func CheckEncodedSound(t testing.TB, x *Rendition, input string) {
	t.Helper()
	want := frames(t, input, "a")
	samples := x.samples()
	lasts := float64(samples[len(samples)-1].PTS-samples[0].PTS) / float64(x.Inits[x.newest.Segments[0].Map].Timescale)
	if off := lasts - (want[len(want)-1].at - want[0].at); math.Abs(off) > 0.2 {
		t.Errorf("%s lasts %g s longer than what was published", x.Name, off)
	}
}

// CheckRung checks that a rung shows the source's frames, or every second one
// of them, at their times.
func CheckRung(t testing.TB, x, source *Rendition) {
	t.Helper()
	want, got := instants(source), instants(x)
	step := 1
	if len(want) > len(got)*3/2 {
		step = 2
	}
	if len(got) != (len(want)+step-1)/step {
		t.Errorf("%s has %d frames, the source %d", x.Name, len(got), len(want))
		return
	}
	for i := range got {
		if math.Abs(got[i]-want[i*step]) > 0.0025 {
			t.Errorf("%s: frame %d at %g s, in the source at %g s", x.Name, i, got[i], want[i*step])
			return
		}
	}
}

// CheckPictures checks that there is a picture at least each part: those that stop are
// shown again.
func CheckPictures(t testing.TB, x *Rendition) {
	t.Helper()
	list := instants(x)
	for i := 1; i < len(list); i++ {
		if d := list[i] - list[i-1]; d > x.newest.PartTarget {
			t.Errorf("%s: no picture for %g s after %g s", x.Name, d, list[i-1]-list[0])
		}
	}
}

// instants are the presentation times of a rendition in seconds, in order.
func instants(x *Rendition) []float64 {
	var list []float64
	for _, s := range x.List() {
		for _, a := range s.Samples {
			list = append(list, float64(a.PTS)/float64(x.Inits[s.Map].Timescale))
		}
	}
	slices.Sort(list)
	return list
}

// CheckShape checks that the multivariant playlist tells the truth.
func CheckShape(t testing.TB, x *Rendition) {
	t.Helper()
	v := x.variant
	ratio, want := float64(v.Width)/float64(v.Height), float64(x.r.main.Variants[0].Width)/float64(x.r.main.Variants[0].Height)
	if math.Abs(ratio/want-1) > 0.02 {
		t.Errorf("%s is %dx%d, another shape than the source", x.Name, v.Width, v.Height)
	}
	list := instants(x)
	rate := float64(len(list)-1) / (list[len(list)-1] - list[0])
	if math.Abs(rate/v.FrameRate-1) > 0.02 {
		t.Errorf("%s: FRAME-RATE=%g, %g frames a second came", x.Name, v.FrameRate, rate)
	}
	for _, s := range x.List() {
		if x.standsIn(s) {
			continue // that has the bits of what it shows
		}
		if bits := 8 * float64(len(s.Data)) / s.Duration; s.Duration >= 1 && bits > 1.1*float64(v.Bandwidth) {
			t.Errorf("%s: segment %d has %g bits a second, BANDWIDTH says %d", x.Name, s.Sequence, bits, v.Bandwidth)
		}
	}
}

// standsIn reports whether a segment is another rendition's: a rung that can't be
// encoded in time shows the next lower one, or the source.
func (x *Rendition) standsIn(s *Segment) bool {
	for _, other := range x.r.Renditions {
		if other == x || x.Name == "source" || other.variant == nil {
			continue
		}
		same := other.Segments[s.Sequence]
		if (other.Name == "source" || other.variant.Bandwidth < x.variant.Bandwidth) && same != nil && bytes.Equal(same.Data, s.Data) {
			return true
		}
	}
	return false
}

// CheckHeard checks that sound isn't silent.
func CheckHeard(t testing.TB, x *Rendition) {
	t.Helper()
	for _, file := range x.Files() {
		out, err := exec.Command("nice", "-n", "19", testenv.FFmpeg(t), "-hide_banner", "-nostdin", "-nostats", "-i", file, "-af", "volumedetect", "-f", "null", "-").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", x.Name, err, out)
		}
		m := regexp.MustCompile(`mean_volume: (-?[0-9.]+) dB`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("%s: ffmpeg says nothing of its volume:\n%s", x.Name, out)
		}
		if volume, err := strconv.ParseFloat(string(m[1]), 64); err != nil || volume < -30 {
			t.Errorf("%s: its mean volume is %s dB", x.Name, m[1])
		}
	}
}
