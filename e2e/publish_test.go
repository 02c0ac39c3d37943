package e2e

import (
	"slices"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// publishCases are the ways in which encoders are set. Where rungs aren't what a case is about,
// its pictures are small, and so there is one rung.
var publishCases = []struct {
	clip harness.Clip
	// extra are arguments of the publishing ffmpeg.
	extra []string
	want  []string // the renditions
	// encoded is set where the sound can't be passed through.
	encoded bool
	// long is set where delta updates must have been seen.
	long bool
	// hole is set where pictures stop for a while and sound goes on.
	hole bool
	// varies is set where the frame rate isn't the same all the time.
	varies bool
}{
	{
		clip: harness.Clip{Name: "bframes", Seconds: "36", Size: "640x360", Rate: "30", Video: []string{"-bf", "3", "-g", "60", "-x264-params", "b-adapt=0"}, Audio: harness.Stereo},
		want: []string{"160p30", "240p30", "audio", "source"}, long: true,
	},
	{
		clip: harness.Clip{Name: "gop8", Seconds: "27", Size: "424x240", Rate: "30", Video: []string{"-g", "240", "-keyint_min", "240"}, Audio: harness.Stereo},
		want: []string{"160p30", "audio", "source"},
	},
	{
		clip: harness.Clip{
			Name: "irregular", Seconds: "20", Size: "424x240", Rate: "30", Audio: harness.Stereo,
			Video: []string{"-g", "600", "-bf", "2", "-force_key_frames", "expr:eq(mod(n,97),0)+eq(mod(n,41),0)+eq(n,100)"},
		},
		want: []string{"160p30", "audio", "source"},
	},
	{
		clip: harness.Clip{Name: "ntsc", Seconds: "14", Size: "424x240", Rate: "30000/1001", Video: []string{"-g", "60"}, Audio: harness.Stereo},
		want: []string{"160p30", "audio", "source"},
	},
	{
		clip: harness.Clip{Name: "sixty", Seconds: "14", Size: "424x240", Rate: "60", Video: []string{"-g", "120", "-bf", "2"}, Audio: harness.Stereo},
		want: []string{"160p30", "audio", "source"},
	},
	{
		clip:  harness.Clip{Name: "thirtyhours", Seconds: "14", Size: "424x240", Rate: "30", Video: []string{"-g", "60", "-bf", "2"}, Audio: harness.Stereo},
		extra: []string{"-output_ts_offset", "108000"},
		want:  []string{"160p30", "audio", "source"},
	},
	{
		clip: harness.Clip{Name: "soundonly", Seconds: "14", Audio: harness.Stereo},
		want: []string{"audio"},
	},
	{
		clip: harness.Clip{Name: "mp3", Seconds: "10", Audio: []string{"-c:a", "libmp3lame", "-b:a", "96k", "-ar", "44100"}},
		want: []string{"audio"}, encoded: true,
	},
	{
		clip: harness.Clip{Name: "pictureonly", Seconds: "14", Size: "424x240", Rate: "30", Video: []string{"-g", "60"}},
		want: []string{"160p30", "audio", "source"}, // silence, until sound may come
	},
	{
		clip: harness.Clip{
			Name: "mono", Seconds: "14", Size: "640x360", Rate: "30", Audio: []string{"-c:a", "aac", "-b:a", "64k", "-ac", "1", "-ar", "44100"},
			Video: []string{"-g", "600", "-bf", "0", "-force_key_frames", "expr:gte(t,n_forced*2)", "-vf", "select='not(between(t,4,8))+not(mod(n,6))'", "-fps_mode", "passthrough"},
		},
		want: []string{"160p30", "240p30", "audio", "source"}, varies: true,
	},
	{
		clip: harness.Clip{Name: "surround", Seconds: "14", Size: "424x240", Rate: "30", Video: []string{"-g", "60"}, Audio: []string{"-c:a", "aac", "-b:a", "128k", "-ac", "6", "-ar", "48000"}},
		want: []string{"160p30", "audio", "source"}, encoded: true,
	},
	{
		clip: harness.Clip{
			Name: "stillscreen", Seconds: "14", Size: "640x360", Rate: "30", Audio: harness.Stereo,
			Video: []string{"-g", "60", "-bf", "2", "-vf", "select='not(between(t,5.2,9.3))'", "-fps_mode", "passthrough"},
		},
		// Without it, ffmpeg keeps the sound back until there are pictures again.
		extra: []string{"-max_interleave_delta", "1"},
		want:  []string{"160p30", "240p30", "audio", "source"}, hole: true,
	},
	{
		clip: harness.Clip{Name: "portrait", Seconds: "14", Size: "240x424", Rate: "30", Video: []string{"-g", "60"}, Audio: harness.Stereo},
		want: []string{"160p30", "audio", "source"},
	},
}

// TestPublish publishes with encoders set in many ways, and checks every
// playlist, every segment and every frame that comes out.
func TestPublish(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t)
	for _, tt := range publishCases {
		t.Run(tt.clip.Name, func(t *testing.T) {
			t.Parallel()
			s := s.In(t)
			input := tt.clip.File(t)
			p := s.PublishClip(t, s.Channel(tt.clip.Name), tt.clip, tt.extra...)
			r := hls.Follow(t, s.Playlist(tt.clip.Name), false)
			p.Finish(time.Minute)
			r.Wait(30 * time.Second)
			if got := r.Names(); !slices.Equal(got, tt.want) {
				t.Fatalf("renditions %q, want %q", got, tt.want)
			}
			r.Verify()
			for _, x := range r.Renditions {
				if x.Hints == 0 || x.Reloads < 20 {
					t.Errorf("%s: %d reloads, %d hinted parts came", x.Name, x.Reloads, x.Hints)
				}
				if x.Swaps > 0 {
					t.Logf("%s: %d changes to another encoding and back: this machine is too slow for it", x.Name, x.Swaps)
				}
				if tt.long && x.Deltas == 0 {
					t.Errorf("%s: no delta update in %d reloads", x.Name, x.Reloads)
				}
				switch {
				case x.Name == "audio" && tt.clip.Audio == nil: // there is nothing to compare silence with
				case x.Name == "audio" && tt.encoded:
					hls.CheckEncodedSound(t, x, input)
				case x.Name == "audio":
					hls.CheckCarried(t, x, input, "a")
				case tt.hole:
					hls.CheckPictures(t, x)
				case x.Name == "source":
					hls.CheckCarried(t, x, input, "v")
				default:
					hls.CheckRung(t, x, r.Rendition("source"))
				}
				if x.Name != "audio" && !tt.hole && !tt.varies { // FRAME-RATE is the highest
					hls.CheckShape(t, x)
				}
			}
		})
	}
}
