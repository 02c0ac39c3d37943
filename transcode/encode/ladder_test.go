package encode

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"millrace/internal/index"
	"millrace/internal/media"
)

func TestBuildLadder(t *testing.T) {
	for _, c := range []struct {
		ladder        string
		width, height int
		rate          float64
		step          int
		want          string
	}{
		{"", 1920, 1080, 60, 2, "720p60 1280x720/1 480p30 854x480/2 360p30 640x360/2 160p30 284x160/2"},
		{"", 1920, 1080, 30, 1, "720p30 1280x720/1 480p30 854x480/1 360p30 640x360/1 160p30 284x160/1"},
		{"", 1280, 720, 29.97, 1, "480p30 854x480/1 360p30 640x360/1 160p30 284x160/1"},
		{"", 1280, 720, 25, 1, "480p25 854x480/1 360p25 640x360/1 160p25 284x160/1"},
		{"", 1280, 720, 50, 2, "480p25 854x480/2 360p25 640x360/2 160p25 284x160/2"},
		{"", 1920, 1080, 120, 4, "720p30 1280x720/4 480p30 854x480/4 360p30 640x360/4 160p30 284x160/4"},
		{"", 640, 360, 30, 1, "240p30 426x240/1 160p30 284x160/1"},
		{"", 720, 1280, 30, 1, "480p30 480x854/1 360p30 360x640/1 160p30 160x284/1"},
		{"", 284, 160, 30, 1, ""},
		{"", 100, 50, 30, 1, ""},
		{"none", 1920, 1080, 30, 1, ""},
		{"540p60=2000k, 180p30=100k", 1920, 1080, 60, 2, "540p60 960x540/1 180p30 320x180/2"},
	} {
		specs, err := ParseLadder(c.ladder)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range BuildLadder(specs, c.width, c.height, c.rate, c.step) {
			got = append(got, fmt.Sprintf("%s %dx%d/%d", r.Name, r.Width, r.Height, r.Step))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q %dx%d at %v: %q, want %q", c.ladder, c.width, c.height, c.rate, s, c.want)
		}
	}
}

func TestParseLadderRefuses(t *testing.T) {
	for _, text := range []string{"480p", "480p30", "480p30=1400", "481p30=1400k", "9000p30=1400k", "480p0=1400k", "480p15=1400k", "48p30=100k", strings.Repeat("480p30=1400k,", 9) + "480p30=1400k"} {
		if _, err := ParseLadder(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestRefitKeepsNames(t *testing.T) {
	rungs := BuildLadder(nil, 1280, 720, 30, 1)
	small := refit(rungs, 426, 240)
	if len(small) != 3 || small[0].Name != "480p30" || small[0].Height != 240 || small[2].Height != 160 {
		t.Errorf("after the source shrank: %+v", small)
	}
	if back := refit(small, 1280, 720); back[0] != rungs[0] {
		t.Errorf("after it grew again: %+v, want %+v", back[0], rungs[0])
	}
}

// A worker that goes on with a broadcast makes the rungs that were announced,
// and the same ones as a worker that began it with this source.
func TestAnnouncedRungs(t *testing.T) {
	for _, rate := range []float64{25, 30, 59.94} {
		step := 1
		if rate > 40 {
			step = 2
		}
		built := BuildLadder(nil, 1920, 1080, rate, step)
		var about []index.Rendition
		about = append(about, index.Rendition{Name: sourceName, Kind: media.Video, Source: true}, index.Rendition{Name: audioName, Kind: media.Audio})
		for _, r := range built {
			about = append(about, index.Rendition{Name: r.Name, Kind: media.Video, Width: r.Width, Height: r.Height, FrameRate: r.FrameRate, MaxBitrate: r.Bitrate})
		}
		if got := refit(announcedRungs(about, rate), 1920, 1080); !slices.Equal(got, built) {
			t.Errorf("at %v frames a second: %+v, want %+v", rate, got, built)
		}
		smaller := refit(announcedRungs(about, rate), 640, 360)
		for i, r := range smaller {
			if r.Name != built[i].Name || r.Height > 360 {
				t.Errorf("of a smaller source, %s is %+v", built[i].Name, r)
			}
		}
	}
}
