package encode

import (
	"fmt"
	"strings"
	"testing"

	"millrace/internal/media"
	"millrace/transcode/transcodetest"
)

// The sources of the codecs that Enhanced RTMP brings, with a keyframe each 2 s.
const (
	hevcVideo = "-c:v libx265 -preset ultrafast -tag:v hvc1 -x265-params log-level=error:keyint=60:min-keyint=60:open-gop=0:bframes=3:scenecut=0"
	av1Video  = "-c:v libsvtav1 -preset 12 -g 60"
	opusSound = "-c:a libopus -b:a 96k"
	newSource = "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=frequency=300:sample_rate=48000 -t %d -pix_fmt yuv420p "
)

// A source in any format is passed through as it is, and has rungs in H.264, the
// first as large as itself. Another worker makes the same bytes of all of it from
// any mark on, but for sound that is encoded.
func TestWorkerMakesTheSameBytesOfEveryCodec(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, args   string
		codec        string
		soundEncoded bool
	}{
		{"HEVC and Opus", hevcVideo + " " + opusSound, "hvc1.1.6.", true},
		{"AV1 and AAC", av1Video + " -c:a aac", "av01.0.", false},
	} {
		t.Run(c.name, func(t *testing.T) { // one after the other: their processes need CPU time within a second
			l := transcodetest.MakeLog(t, 0, fmt.Sprintf(newSource, 7)+c.args)
			last := l.Events[l.Marks[len(l.Marks)-1]].Mark.Sequence
			whole := transcodetest.NewRecord()
			runWorker(t, l, 0, "90p30=150k", whole)
			checkRenditions(t, whole, c.codec)
			if n := len(whole.Sums(0)); len(whole.Gaps) > 0 || n != 4*int(last+1) || whole.Pictures.Load() == 0 {
				t.Fatalf("%d segments, %d gaps, %d pictures", n, len(whole.Gaps), whole.Pictures.Load())
			}
			decodeAll(t, whole, last)
			checkTimes(t, whole, last)
			for from := uint64(1); from <= last; from++ {
				again := transcodetest.NewRecord()
				runWorker(t, l, from, "90p30=150k", again)
				got := again.Sums(from)
				for k, sum := range whole.Sums(from) {
					if got[k] != sum && !(c.soundEncoded && strings.HasPrefix(k, audioName)) {
						t.Errorf("from mark %d, %s is %q, want %q", from, k, got[k], sum)
					}
				}
			}
		})
	}
}

// checkRenditions checks what is announced of a source that isn't H.264.
func checkRenditions(t *testing.T, rec *transcodetest.Record, source string) {
	t.Helper()
	var got []string
	for _, r := range rec.About.Renditions {
		got = append(got, fmt.Sprintf("%s %dx%d", r.Name, r.Width, r.Height))
		switch {
		case r.Name == sourceName && !strings.HasPrefix(r.Codec, source),
			r.Kind == media.Audio && r.Codec != "mp4a.40.2",
			r.Kind == media.Video && r.Name != sourceName && !strings.HasPrefix(r.Codec, "avc1."):
			t.Errorf("%s is announced as %s", r.Name, r.Codec)
		}
	}
	if s := strings.Join(got, ", "); s != "source 320x180, 180p30 320x180, 90p30 160x90, audio 0x0" {
		t.Errorf("the renditions are %s", s)
	}
}

// Of a source that browsers may not play the lowest rung is made, whatever room
// there is, and stands in for the others.
func TestLowestRungOfAnyOtherFormatIsAlwaysMade(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -t 5 -pix_fmt yuv420p "+hevcVideo)
	rec := transcodetest.NewRecord()
	w := testWorker(t, "90p30=150k,64p30=80k", rec, func(c *Config) { c.Budget.most.Cores = 0 })
	if err := w.Run(t.Context(), l.Unhurried(0, w.finished.Load)); err != nil {
		t.Fatal(err)
	}
	if n := w.Shed(); n != 2 {
		t.Errorf("%d of 3 rungs are shed, want 2", n)
	}
	sums := rec.Sums(0)
	for seq := range uint64(2) {
		lowest := sums[fmt.Sprintf("64p30/%d", seq)]
		if lowest == "" || lowest != sums[fmt.Sprintf("90p30/%d", seq)] || lowest != sums[fmt.Sprintf("180p30/%d", seq)] {
			t.Errorf("segment %d: %v", seq, sums)
		}
	}
	decodeAll(t, rec, 1)
}
