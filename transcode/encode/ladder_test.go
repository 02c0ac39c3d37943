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
		format        media.Format
		width, height int
		rate          float64
		step          int
		want          string
	}{
		{"", media.H264, 1920, 1080, 60, 2, "720p60 1280x720/1 480p30 854x480/2 360p30 640x360/2 160p30 284x160/2"},
		{"", media.H264, 1920, 1080, 30, 1, "720p30 1280x720/1 480p30 854x480/1 360p30 640x360/1 160p30 284x160/1"},
		{"", media.H264, 1280, 720, 29.97, 1, "480p30 854x480/1 360p30 640x360/1 160p30 284x160/1"},
		{"", media.H264, 1280, 720, 25, 1, "480p25 854x480/1 360p25 640x360/1 160p25 284x160/1"},
		{"", media.H264, 1280, 720, 50, 2, "480p25 854x480/2 360p25 640x360/2 160p25 284x160/2"},
		{"", media.H264, 1920, 1080, 120, 4, "720p30 1280x720/4 480p30 854x480/4 360p30 640x360/4 160p30 284x160/4"},
		{"", media.H264, 640, 360, 30, 1, "240p30 426x240/1 160p30 284x160/1"},
		{"", media.H264, 720, 1280, 30, 1, "480p30 480x854/1 360p30 360x640/1 160p30 160x284/1"},
		{"", media.H264, 284, 160, 30, 1, ""},
		{"", media.H264, 100, 50, 30, 1, ""},
		{"none", media.H264, 1920, 1080, 30, 1, ""},
		{"540p60=2000k, 180p30=100k", media.H264, 1920, 1080, 60, 2, "540p60 960x540/1 180p30 320x180/2"},
		{"", media.HEVC, 1920, 1080, 60, 2, "1080p60 1920x1080/1 720p60 1280x720/1 480p30 854x480/2 360p30 640x360/2 160p30 284x160/2"},
		{"", media.HEVC, 1280, 720, 29.97, 1, "720p30 1280x720/1 480p30 854x480/1 360p30 640x360/1 160p30 284x160/1"},
		{"", media.AV1, 2560, 1440, 30, 1, "1440p30 2560x1440/1 720p30 1280x720/1 480p30 854x480/1 360p30 640x360/1 160p30 284x160/1"},
		{"", media.AV1, 720, 1280, 30, 1, "720p30 720x1280/1 480p30 480x854/1 360p30 360x640/1 160p30 160x284/1"},
		{"", media.AV1, 853, 479, 25, 1, "479p25 854x480/1 360p25 642x360/1 160p25 284x160/1"},
		{"none", media.HEVC, 284, 160, 30, 1, "160p30 284x160/1"},
		{"720p60=3000k", media.AV1, 1280, 720, 60, 2, "720p60 1280x720/1"},
	} {
		specs, err := ParseLadder(c.ladder)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range BuildLadder(specs, Source{Format: c.format, Rare: c.format != media.H264, Width: c.width, Height: c.height, FrameRate: c.rate, Step: c.step}) {
			got = append(got, fmt.Sprintf("%s %dx%d/%d", r.Name, r.Width, r.Height, r.Step))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q of %s, %dx%d at %v: %q, want %q", c.ladder, c.format, c.width, c.height, c.rate, s, c.want)
		}
	}
}

// The cap of a rung of the source's own size rises with the size, and joins onto
// those of the ladder.
func TestFullRungBitrate(t *testing.T) {
	before := 0
	for lines, want := range map[int]int{160: 230_000, 240: 400_000, 360: 700_000, 480: 1_400_000, 720: 2_000_000, 1080: 4_000_000, 1440: 8_000_000, 2160: 16_000_000} {
		for rate, want := range map[float64]int{29.97: want, 60: want * 3 / 2} {
			if r := fullRung(Source{Format: media.HEVC, Width: lines * 16 / 9, Height: lines, FrameRate: rate, Step: 1}); r.Bitrate != want {
				t.Errorf("%s is capped at %d, want %d", r.Name, r.Bitrate, want)
			}
		}
	}
	for lines := 64; lines <= 4320; lines += 2 {
		r := fullRung(Source{Format: media.AV1, Width: lines, Height: lines, FrameRate: 30, Step: 1})
		if r.Bitrate < before {
			t.Errorf("%s is capped at %d, a smaller one at %d", r.Name, r.Bitrate, before)
		}
		before = r.Bitrate
	}
}

// What not every player can play has a rung of its size, in any format; joining
// fields and mapping HDR cost something.
func TestRareSources(t *testing.T) {
	src := Source{Format: media.H264, Rare: true, Width: 1920, Height: 1080, FrameRate: 25, Step: 1}
	rungs := BuildLadder(nil, src)
	if len(rungs) != 5 || rungs[0].Name != "1080p25" || rungs[0].Width != 1920 {
		t.Fatalf("the rungs of 4:2:2 are %+v", rungs)
	}
	plain := EstimateCost(src, rungs)
	src.Look.Fields = true
	fields := EstimateCost(src, rungs)
	src.Look.Colour.Transfer = 16
	if hdr := EstimateCost(src, rungs); fields <= plain || hdr <= fields {
		t.Errorf("it costs %v, interlaced %v, in HDR %v", plain, fields, hdr)
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
	rungs := BuildLadder(nil, Source{Width: 1280, Height: 720, FrameRate: 30, Step: 1})
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
	for _, format := range []media.Format{media.H264, media.HEVC, media.AV1} {
		for _, rate := range []float64{25, 30, 59.94} {
			testAnnounced(t, format, rate)
		}
	}
}

func testAnnounced(t *testing.T, format media.Format, rate float64) {
	t.Helper()
	{
		step := 1
		if rate > 40 {
			step = 2
		}
		built := BuildLadder(nil, Source{Format: format, Rare: format != media.H264, Width: 1920, Height: 1080, FrameRate: rate, Step: step})
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

// FFmpeg 6 and later refuse -r beside -fps_mode passthrough: x264 is told the
// frame rate by its own parameter.
func TestEncoderIsToldTheFrameRate(t *testing.T) {
	args := (Job{Preset: "veryfast"}).encoder(Rung{Width: 426, Height: 240, FrameRate: 29.97, Bitrate: 400_000})
	if slices.Contains(args, "-r") || !slices.Contains(args, "vbv-init=0.3:fps=29.97") {
		t.Errorf("the encoder's arguments are %q", args)
	}
}
