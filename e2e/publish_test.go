package e2e

import (
	"math"
	"slices"
	"testing"
	"time"
)

// publishCases are the ways in which encoders are set.
var publishCases = []struct {
	clip clip
	// extra are arguments of the publishing ffmpeg.
	extra []string
	want  []string // the renditions
	// encoded is set where the sound can't be passed through.
	encoded bool
	// long is set where delta updates must have been seen.
	long bool
}{
	{
		clip: clip{name: "bframes", seconds: "36", size: "640x360", rate: "30", video: []string{"-bf", "3", "-g", "60", "-x264-params", "b-adapt=0"}, audio: stereo},
		want: []string{"160p30", "240p30", "audio", "source"}, long: true,
	},
	{
		clip: clip{name: "gop8", seconds: "27", size: "640x360", rate: "30", video: []string{"-g", "240", "-keyint_min", "240"}, audio: stereo},
		want: []string{"160p30", "240p30", "audio", "source"},
	},
	{
		clip: clip{
			name: "irregular", seconds: "20", size: "640x360", rate: "30", audio: stereo,
			video: []string{"-g", "600", "-bf", "2", "-force_key_frames", "expr:eq(mod(n,97),0)+eq(mod(n,41),0)+eq(n,100)"},
		},
		want: []string{"160p30", "240p30", "audio", "source"},
	},
	{
		clip: clip{name: "ntsc", seconds: "14", size: "640x360", rate: "30000/1001", video: []string{"-g", "60"}, audio: stereo},
		want: []string{"160p30", "240p30", "audio", "source"},
	},
	{
		clip: clip{name: "sixty", seconds: "14", size: "640x360", rate: "60", video: []string{"-g", "120", "-bf", "2"}, audio: stereo},
		want: []string{"160p30", "240p30", "audio", "source"},
	},
	{
		clip:  clip{name: "thirtyhours", seconds: "14", size: "640x360", rate: "30", video: []string{"-g", "60", "-bf", "2"}, audio: stereo},
		extra: []string{"-output_ts_offset", "108000"},
		want:  []string{"160p30", "240p30", "audio", "source"},
	},
	{
		clip: clip{name: "soundonly", seconds: "14", audio: stereo},
		want: []string{"audio"},
	},
	{
		clip: clip{name: "pictureonly", seconds: "14", size: "640x360", rate: "30", video: []string{"-g", "60"}},
		want: []string{"160p30", "240p30", "source"},
	},
	{
		clip: clip{name: "mono", seconds: "14", size: "640x360", rate: "30", video: []string{"-g", "60"}, audio: []string{"-c:a", "aac", "-b:a", "64k", "-ac", "1", "-ar", "44100"}},
		want: []string{"160p30", "240p30", "audio", "source"},
	},
	{
		clip: clip{name: "surround", seconds: "14", size: "640x360", rate: "30", video: []string{"-g", "60"}, audio: []string{"-c:a", "aac", "-b:a", "128k", "-ac", "6", "-ar", "48000"}},
		want: []string{"160p30", "240p30", "audio", "source"}, encoded: true,
	},
	{
		clip: clip{name: "portrait", seconds: "14", size: "360x640", rate: "30", video: []string{"-g", "60"}, audio: stereo},
		want: []string{"160p30", "240p30", "audio", "source"},
	},
}

// TestPublish publishes with encoders set in many ways, and checks every
// playlist, every segment and every frame that comes out.
func TestPublish(t *testing.T) {
	s := startAll(t)
	for _, tt := range publishCases {
		t.Run(tt.clip.name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			input := tt.clip.file(t)
			p := s.publishClip(t, s.channel(tt.clip.name), tt.clip, tt.extra...)
			r := follow(t, s.playlist(tt.clip.name), false)
			p.finish(time.Minute)
			r.wait(30 * time.Second)
			if got := r.names(); !slices.Equal(got, tt.want) {
				t.Fatalf("renditions %q, want %q", got, tt.want)
			}
			r.verify()
			for _, x := range r.renditions {
				if x.hints == 0 || x.reloads < 20 {
					t.Errorf("%s: %d reloads, %d hinted parts came", x.name, x.reloads, x.hints)
				}
				if x.swaps > 0 {
					t.Logf("%s: %d changes to another encoding and back: this machine is too slow for it", x.name, x.swaps)
				}
				if tt.long && x.deltas == 0 {
					t.Errorf("%s: no delta update in %d reloads", x.name, x.reloads)
				}
				switch {
				case x.name == "audio" && tt.encoded:
					checkEncodedSound(t, x, input)
				case x.name == "audio":
					checkCarried(t, x, input, "a")
				case x.name == "source":
					checkCarried(t, x, input, "v")
					checkShape(t, x)
				default:
					checkRung(t, x, r.rendition("source"))
					checkShape(t, x)
				}
			}
		})
	}
}

// checkCarried checks that what was published came out: every frame, in its order
// and at its time.
func checkCarried(t *testing.T, x *rendition, input, selector string) {
	t.Helper()
	files := x.files()
	if len(files) != 1 {
		t.Fatalf("%s: %d pieces, want 1", x.name, len(files))
	}
	want, got := frames(t, input, selector), frames(t, files[0], selector)
	// Sound from before the first keyframe may be left out.
	skipped := 0
	for selector == "a" && skipped < len(want) && len(got) > 0 && want[skipped].hash != got[0].hash {
		skipped++
	}
	if want = want[skipped:]; skipped > 5 || len(want) != len(got) {
		t.Errorf("%s: %d frames came out, %d went in (and %d before them)", x.name, len(got), len(want), skipped)
	}
	for i := range min(len(want), len(got)) {
		off := got[i].at - got[0].at - (want[i].at - want[0].at)
		// FLV's times are milliseconds; sound lies on its own grid.
		if got[i].hash != want[i].hash || math.Abs(off) > 0.025 {
			t.Errorf("%s: frame %d of %d is %s at %g s, want %s at %g s", x.name, i, len(got), got[i].hash, got[i].at-got[0].at, want[i].hash, want[i].at-want[0].at)
			return
		}
	}
}

// checkEncodedSound checks that sound lasts as long as what was published.
func checkEncodedSound(t *testing.T, x *rendition, input string) {
	t.Helper()
	want := frames(t, input, "a")
	samples := x.samples()
	lasts := float64(samples[len(samples)-1].pts-samples[0].pts) / float64(x.inits[x.newest.Segments[0].Map].timescale)
	if off := lasts - (want[len(want)-1].at - want[0].at); math.Abs(off) > 0.2 {
		t.Errorf("%s lasts %g s longer than what was published", x.name, off)
	}
}

// checkRung checks that a rung shows the source's frames, or every second one
// of them, at their times.
func checkRung(t *testing.T, x, source *rendition) {
	t.Helper()
	want, got := instants(source), instants(x)
	step := 1
	if len(want) > len(got)*3/2 {
		step = 2
	}
	if len(got) != (len(want)+step-1)/step {
		t.Errorf("%s has %d frames, the source %d", x.name, len(got), len(want))
		return
	}
	for i := range got {
		if math.Abs(got[i]-want[i*step]) > 0.0025 {
			t.Errorf("%s: frame %d at %g s, in the source at %g s", x.name, i, got[i], want[i*step])
			return
		}
	}
}

// instants are the presentation times of a rendition in seconds, in order.
func instants(x *rendition) []float64 {
	var list []float64
	for _, s := range x.list() {
		for _, a := range s.samples {
			list = append(list, float64(a.pts)/float64(x.inits[s.Map].timescale))
		}
	}
	slices.Sort(list)
	return list
}

// checkShape checks that the multivariant playlist tells the truth.
func checkShape(t *testing.T, x *rendition) {
	t.Helper()
	v := x.variant
	ratio, want := float64(v.Width)/float64(v.Height), float64(x.r.main.Variants[0].Width)/float64(x.r.main.Variants[0].Height)
	if math.Abs(ratio/want-1) > 0.02 {
		t.Errorf("%s is %dx%d, another shape than the source", x.name, v.Width, v.Height)
	}
	list := instants(x)
	rate := float64(len(list)-1) / (list[len(list)-1] - list[0])
	if math.Abs(rate/v.FrameRate-1) > 0.02 {
		t.Errorf("%s: FRAME-RATE=%g, %g frames a second came", x.name, v.FrameRate, rate)
	}
	for _, s := range x.list() {
		if bits := 8 * float64(len(s.data)) / s.Duration; s.Duration >= 1 && bits > 1.1*float64(v.Bandwidth) {
			t.Errorf("%s: segment %d has %g bits a second, BANDWIDTH says %d", x.name, s.Sequence, bits, v.Bandwidth)
		}
	}
}
