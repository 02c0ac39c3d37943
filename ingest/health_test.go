package ingest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/internal/media"
)

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		name    string
		frame   func(i int, u *media.Unit, at *time.Duration) // changes frame i of 30 a second
		nominal float64
		quiet   int // the frame from which there is no sound; 0: there is always
		want    []problem
		text    string // what one of them says
	}{
		{name: "good"},
		{
			name: "keyframe interval", want: []problem{problemKeyframes}, text: "keyframe interval is 8 s, set it to 2 s",
			frame: func(i int, u *media.Unit, _ *time.Duration) { u.RandomAccess = i%250 == 0 },
		},
		{
			name: "no keyframe", want: []problem{problemNoKeyframe}, text: "no keyframe for 10 s",
			frame: func(i int, u *media.Unit, _ *time.Duration) { u.RandomAccess = i == 0 },
		},
		{
			name: "bitrate swings", want: []problem{problemBitrate}, text: "bitrate swings between 1.2 and 4.8 Mb/s",
			frame: func(i int, u *media.Unit, _ *time.Duration) { u.Payload = make([]byte, 5000+15000*(i/300%2)) },
		},
		{
			name: "frame rate", nominal: 60, want: []problem{problemRate}, text: "30.0 frames a second arrive of 60",
		},
		{
			name: "late frames", want: []problem{problemLate}, text: "frames arrive 3",
			frame: func(_ int, _ *media.Unit, at *time.Duration) { *at += *at / 10 },
		},
		{
			name:  "a slow clock of ours is no lateness",
			frame: func(_ int, _ *media.Unit, at *time.Duration) { *at -= *at / 10 },
		},
		{
			name: "no sound", quiet: 450, want: []problem{problemNoAudio}, text: "no sound for",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := health{nominal: c.nominal}
			start := time.Unix(1_800_000_000, 0)
			var found []problem
			var texts strings.Builder
			var sums int
			for i := range 1000 {
				u := media.Unit{DTS: media.Ticks(i * 3000), RandomAccess: i%60 == 0, Payload: make([]byte, 5000)}
				at := time.Duration(i) * time.Second / 30
				if c.frame != nil {
					c.frame(i, &u, &at)
				}
				u.PTS = u.DTS
				if c.quiet == 0 || i < c.quiet {
					h.audio(u.DTS)
				}
				advices, sum := h.video(&u, start.Add(at))
				for _, a := range advices {
					found = append(found, a.Problem)
					texts.WriteString(a.Text)
				}
				if sum != nil {
					sums++
				}
			}
			slices.Sort(found)
			if found = slices.Compact(found); !slices.Equal(found, c.want) {
				t.Errorf("found %v, want %v", found, c.want)
			}
			if !strings.Contains(texts.String(), c.text) {
				t.Errorf("the advice is %q", &texts)
			}
			if sums != 3 {
				t.Errorf("%d windows were judged", sums)
			}
		})
	}
}

// Timestamps that jump with the clock standing still are no lateness.
func TestHealthAfterJump(t *testing.T) {
	var h health
	now := time.Unix(1_800_000_000, 0)
	frame := func(i int) *summary {
		_, sum := h.video(&media.Unit{DTS: media.Ticks(i * 3000), PTS: media.Ticks(i * 3000), RandomAccess: true, Payload: []byte{1}}, now)
		return sum
	}
	frame(0)
	now = now.Add(time.Minute) // the encoder slept; the timeline is closed up
	h.jumped()
	for i := 1; ; i++ {
		if sum := frame(i); sum != nil {
			if sum.Late != 0 || sum.BFrames || sum.FrameRate < 29.9 || sum.FrameRate > 30.2 {
				t.Errorf("%+v", sum)
			}
			return
		}
		now = now.Add(time.Second / 30)
	}
}

// What comes before the first keyframe isn't measured: viewers never get it. It
// is told by its own name, if it is long.
func TestHealthOfABeginningInMidGOP(t *testing.T) {
	for _, c := range []struct {
		name  string
		late  int // seconds until the first keyframe
		every int // frames until the next one
		want  []problem
		text  string
	}{
		{"at once", 0, 60, nil, ""},
		{"1 s", 1, 60, nil, ""},
		{"5 s", 5, 60, []problem{problemBeginning}, "the first 5 s couldn't be shown: the stream began without a keyframe"},
		{"11 s", 11, 60, []problem{problemBeginning, problemNoKeyframe}, "the first 11 s couldn't be shown"},
		{"5 s, in GOPs of 8 s", 5, 240, []problem{problemKeyframes, problemBeginning}, "keyframe interval is 8 s"},
	} {
		h := health{nominal: 30}
		var found []problem
		var texts strings.Builder
		for i := range 1500 {
			now := time.Unix(1_800_000_000, 0).Add(time.Duration(i) * time.Second / 30)
			var advices []advice
			var sum *summary
			if since := i - 30*c.late; since < 0 {
				advices = h.dropped(&media.Unit{}, now)
			} else {
				at := media.Ticks(since * 3000) // the timeline begins with the first keyframe
				advices, sum = h.video(&media.Unit{DTS: at, PTS: at, RandomAccess: since%c.every == 0, Payload: make([]byte, 5000)}, now)
			}
			for _, a := range advices {
				found = append(found, a.Problem)
				texts.WriteString(a.Text)
			}
			if sum != nil && (sum.FrameRate != 30 || sum.KeyframeInterval > 8*time.Second) {
				t.Errorf("%s: %+v was measured", c.name, sum)
			}
		}
		slices.Sort(found)
		if found = slices.Compact(found); !slices.Equal(found, c.want) || !strings.Contains(texts.String(), c.text) {
			t.Errorf("%s: found %v, want %v; %s", c.name, found, c.want, &texts)
		}
	}
}

// What the API shows is measured, but no noise.
func TestHealthFrameRate(t *testing.T) {
	for _, c := range []struct{ settled, measured, want float64 }{
		{30, 0, 30}, {30000.0 / 1001, 30, 30000.0 / 1001}, {30, 60, 60}, {30, 4.9, 4.9}, {240, 29.97, 29.97},
	} {
		h := health{rate: c.measured}
		if got := h.frameRate(c.settled); got != c.want {
			t.Errorf("settled on %v, measured %v: %v, want %v", c.settled, c.measured, got, c.want)
		}
	}
}
