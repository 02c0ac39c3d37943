package e2e

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"millrace/e2e/ertmp"
	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// What encoders of today send besides H.264 and AAC. They speak Enhanced RTMP,
// which Debian's ffmpeg doesn't: package ertmp publishes what it encoded.
var (
	// As many frames of sound as begin before the pictures end: later ones would be
	// left out, and silence takes the place of missing ones.
	aac  = append(slices.Clip(harness.Stereo), "-af", "atrim=end=9.98")
	opus = []string{"-c:a", "libopus", "-b:a", "96k", "-ac", "2"}
	x265 = []string{"-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", "log-level=error:keyint=60:min-keyint=60:scenecut=0:open-gop=0:bframes=3"}
	svt  = []string{"-c:v", "libsvtav1", "-preset", "12", "-g", "60"}

	hevcClip = harness.Clip{Name: "hevc", Seconds: "10", Size: "426x240", Rate: "30", Encoder: x265, Audio: aac, MP4: true}
	av1Clip  = harness.Clip{Name: "av1", Seconds: "10", Size: "426x240", Rate: "30", Encoder: svt, Audio: opus, MP4: true}
	avcClip  = harness.Clip{Name: "avc", Seconds: "10", Size: "426x240", Rate: "30", Video: []string{"-g", "60", "-bf", "2"}, Audio: opus, MP4: true}
)

// enhancedCases are codecs, each with another form of tags.
var enhancedCases = []struct {
	name string
	clip harness.Clip
	form ertmp.Form
	want []string // the renditions
	// source is what CODECS says of the source.
	source string
	opus   bool
}{
	{
		name: "hevc", clip: hevcClip, form: ertmp.Form{Metadata: true},
		want: []string{"160p30", "240p30", "audio", "source"}, source: `^hvc1\.1\.[0-9a-fA-F]+\.L\d+(\.[0-9a-fA-F]{1,2})*,mp4a\.40\.2$`,
	},
	{
		name: "av1", clip: av1Clip, form: ertmp.Form{},
		want: []string{"160p30", "240p30", "audio", "source"}, source: `^av01\.0\.\d\dM\.08(\.[0-9.]+)?,mp4a\.40\.2$`, opus: true,
	},
	{
		name: "modex", clip: avcClip, form: ertmp.Form{ModEx: true, AlwaysComposed: true},
		want: []string{"160p30", "audio", "source"}, source: `^avc1\.[0-9a-f]{6},mp4a\.40\.2$`, opus: true,
	},
	{
		name: "tracks", clip: hevcClip, form: ertmp.Form{Tracks: ertmp.ManyTracks, ModEx: true},
		want: []string{"160p30", "240p30", "audio", "source"}, source: `^hvc1\.`,
	},
}

// publishEnhanced publishes a clip until it is over or stop is called, which
// waits for the end.
func publishEnhanced(t *testing.T, s *harness.Server, key string, clip harness.Clip, o ertmp.Options) (stop func(), done <-chan error) {
	t.Helper()
	source, err := ertmp.Read(clip.File(t))
	if err != nil {
		t.Fatal(err)
	}
	e, err := harness.DialEncoder(s.RTMP)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Publish(key); err != nil {
		e.Close()
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		result <- errors.Join(source.Publish(ctx, e, o), e.End())
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop, result
}

// TestEnhancedRTMP publishes each codec that encoders of today have, and checks
// all that comes out: the source untouched, H.264 for every player, sound as AAC.
func TestEnhancedRTMP(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t)
	for _, tt := range enhancedCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := s.In(t)
			input := tt.clip.File(t)
			_, done := publishEnhanced(t, s, s.Channel(tt.name), tt.clip, ertmp.Options{Form: tt.form})
			r := hls.Follow(t, s.Playlist(tt.name), false)
			if err := <-done; err != nil {
				t.Errorf("publish: %v", err)
			}
			r.Wait(30 * time.Second)
			if got := r.Names(); !slices.Equal(got, tt.want) {
				t.Fatalf("renditions %q, want %q", got, tt.want)
			}
			r.Verify()
			for _, x := range r.Renditions {
				switch {
				case x.Name == "audio" && tt.opus:
					hls.CheckEncodedSound(t, x, input)
					hls.CheckHeard(t, x)
				case x.Name == "audio":
					hls.CheckCarried(t, x, input, "a")
				case x.Name == "source":
					hls.CheckCarried(t, x, input, "v")
					hls.CheckShape(t, x)
					checkCodecs(t, x, tt.source)
				default:
					hls.CheckRung(t, x, r.Rendition("source"))
					hls.CheckShape(t, x)
					// Levels 1 to 2.1: guesses at the rate of frames have led to 4.2 and 6.2.
					checkCodecs(t, x, `^avc1\.6400(0[9-d]|1[45]),mp4a\.40\.2$`)
				}
			}
		})
	}
}

func checkCodecs(t *testing.T, x *hls.Rendition, want string) {
	t.Helper()
	if !regexp.MustCompile(want).MatchString(x.Codecs()) {
		t.Errorf("%s: CODECS=%q, want %s", x.Name, x.Codecs(), want)
	}
}

// TestWatchEnhanced plays what isn't H.264 in a browser: AV1 itself, and the H.264
// that is made of HEVC, which this browser doesn't take.
func TestWatchEnhanced(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t)
	b := harness.OpenBrowser(t)
	o := ertmp.Options{Length: 2 * time.Minute}
	for _, tt := range []struct {
		channel string
		clip    harness.Clip
		codec   string // of the level that is chosen, the largest one in it
		heights []int  // that may be shown then: a busy machine may leave out a rung
		levels  int
	}{
		{"av1", av1Clip, "av01", []int{240}, 3},
		{"hevc", hevcClip, "avc1", []int{240, 160}, 2},
	} {
		stop, _ := publishEnhanced(t, s, s.Channel(tt.channel), tt.clip, o)
		b.Open(s.HTTP + "/" + tt.channel)
		b.WaitPlaying(30 * time.Second)
		levels := harness.Eval[[]string](b, "window.millrace.hls.levels.map(l => l.videoCodec)")
		if len(levels) != tt.levels {
			t.Errorf("%s: the player's levels are %q, want %d", tt.channel, levels, tt.levels)
		}
		harness.Eventually(t, 10*time.Second, func() error {
			if now := levelCodec(b); !strings.HasPrefix(now, "avc1") {
				return fmt.Errorf("%s: it began with %q, which not every player has", tt.channel, now)
			}
			return nil
		})
		b.Do(chromedp.Evaluate[chromedp.Void](`{
			const levels = window.millrace.hls.levels
			window.millrace.hls.nextLevel = levels.findLastIndex(l => l.videoCodec.startsWith('` + tt.codec + `') && l.height === 240)
		}`))
		harness.Eventually(t, 15*time.Second, func() error {
			if now, at := levelCodec(b), b.Stats(); !strings.HasPrefix(now, tt.codec) || !slices.Contains(tt.heights, at.Height) || at.Phase != "playing" {
				return fmt.Errorf("%s: it plays %q: %+v", tt.channel, now, at)
			}
			return nil
		})
		playsSmoothly(b, 4*time.Second)
		stop()
	}
}

// levelCodec is the codec of the pictures that the page plays.
func levelCodec(b *harness.Browser) string {
	return harness.Eval[string](b, "window.millrace.hls.levels[window.millrace.hls.currentLevel]?.videoCodec ?? ''")
}
