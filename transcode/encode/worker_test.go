package encode

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/prometheus/client_golang/prometheus"

	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/transcode/transcodetest"
)

var testFFmpeg = sync.OnceValues(func() (*FFmpeg, error) { return FindFFmpeg(context.Background(), "ffmpeg") })

// runWorker feeds a log to a worker as fast as it takes it, waiting at each
// mark until the segment before it is published: no more is encoded side by
// side than live.
func runWorker(t *testing.T, l *transcodetest.Log, from uint64, ladder string, rec *transcodetest.Record) {
	t.Helper()
	runWorkerShedding(t, l, from, ladder, 0, rec)
}

// testWorker is a worker with room that publishes into rec, and doesn't mind
// how busy the machine is.
func testWorker(t *testing.T, ladder string, rec *transcodetest.Record, change func(*Config)) *Worker {
	t.Helper()
	f, err := testFFmpeg()
	if err != nil {
		t.Fatal(err)
	}
	specs, err := ParseLadder(ladder)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBudget(64, 0)
	c := Config{
		Grant: jobs.Grant{Epoch: jobs.Epoch{Lease: 1, Grant: 1}}, FFmpeg: f, Preset: "ultrafast", Ladder: specs, Budget: b, Publish: rec,
		Tolerance: transcodetest.Patient,
		Metrics:   NewMetrics(prometheus.NewRegistry(), b), Log: transcodetest.Logger(t),
	}
	if change != nil {
		change(&c)
	}
	return New(c)
}

func runWorkerShedding(t *testing.T, l *transcodetest.Log, from uint64, ladder string, shed int, rec *transcodetest.Record) {
	t.Helper()
	w := testWorker(t, ladder, rec, func(c *Config) {
		c.From, c.Grant.Live, c.Grant.Backfill = from, from, from
	})
	w.encoding.shed = shed
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := w.Run(ctx, l.Unhurried(from, w.finished.Load)); err != nil {
		t.Fatalf("worker from segment %d: %v", from, err)
	}
	rec.Check(t)
}

// decodeAll has ffmpeg decode every rendition whole; it must not complain.
func decodeAll(t *testing.T, rec *transcodetest.Record, last uint64) {
	t.Helper()
	for _, r := range rec.About.Renditions {
		var file bytes.Buffer
		for k, init := range rec.Inits {
			if strings.HasPrefix(k, r.Name+"/") {
				file.Write(init.Data)
				break
			}
		}
		for seq := range last + 1 {
			file.Write(bytes.Join(rec.Parts[fmt.Sprintf("%s/%d", r.Name, seq)], nil))
		}
		cmd := exec.Command("ffmpeg", "-v", "warning", "-i", "pipe:0", "-f", "null", "-")
		cmd.Stdin = &file
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s doesn't decode cleanly: %v: %.500s", r.Name, err, out)
		}
	}
}

// checkTimes checks that each segment begins where the one before it ended.
func checkTimes(t *testing.T, rec *transcodetest.Record, last uint64) {
	t.Helper()
	for _, r := range rec.About.Renditions {
		next := uint64(0)
		for seq := range last + 1 {
			f, err := mp4.DecodeFile(bytes.NewReader(bytes.Join(rec.Parts[fmt.Sprintf("%s/%d", r.Name, seq)], nil)))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range f.Segments {
				for i, frag := range s.Fragments {
					at := frag.Moof.Traf.Tfdt.BaseMediaDecodeTime()
					if next != 0 && at != next {
						t.Errorf("%s segment %d part %d begins at %d, the one before it ended at %d", r.Name, seq, i, at, next)
					}
					next = at
					for _, sample := range frag.Moof.Traf.Trun.Samples {
						next += uint64(sample.Dur)
					}
				}
			}
		}
	}
}

func TestWorkerMakesTheSameBytesFromEveryMark(t *testing.T) {
	t.Parallel()
	const av = "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=frequency=300:sample_rate=44100 -t 9 -pix_fmt yuv420p -c:a aac -c:v libx264 "
	for _, c := range []struct {
		name, args string
		cut        float64
	}{
		{"B-frames", av + "-preset veryfast -bf 3 -g 60", 0},
		{"a GOP cut in the middle", av + "-preset veryfast -bf 2 -g 240 -sc_threshold 0", 2},
		{"irregular keyframes", av + "-preset ultrafast -bf 0 -g 250 -force_key_frames 0,0.7,2.3,4.9,6", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := transcodetest.MakeLog(t, c.cut, c.args)
			last := l.Events[l.Marks[len(l.Marks)-1]].Mark.Sequence
			whole := transcodetest.NewRecord()
			runWorker(t, l, 0, "90p30=150k,64p30=80k", whole)
			if len(whole.Gaps) > 0 || whole.Pictures.Load() == 0 {
				t.Errorf("%d gaps, %d thumbnails", len(whole.Gaps), whole.Pictures.Load())
			}
			if n := len(whole.Sums(0)); n != 4*int(last+1) {
				t.Fatalf("%d segments in 4 renditions, want %d in each", n, last+1)
			}
			decodeAll(t, whole, last)
			checkTimes(t, whole, last)
			for from := uint64(1); from <= last; from++ {
				again := transcodetest.NewRecord()
				runWorker(t, l, from, "90p30=150k,64p30=80k", again)
				want, got := whole.Sums(from), again.Sums(from)
				for k, sum := range want {
					if got[k] != sum {
						t.Errorf("from mark %d, %s is %q, want %q", from, k, got[k], sum)
					}
				}
			}
		})
	}
}

// The source rendition holds the log's access units, byte for byte and shown at
// the same times.
func TestSourceIsRepackagedUnchanged(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=sample_rate=48000 -t 5 -pix_fmt yuv420p -c:a aac -ac 1 -c:v libx264 -preset veryfast -bf 2 -g 60")
	rec := transcodetest.NewRecord()
	runWorker(t, l, 0, "none", rec)
	want := map[media.Kind][]*media.Unit{}
	for _, e := range l.Events {
		if e.Unit != nil {
			want[e.Unit.Track] = append(want[e.Unit.Track], e.Unit)
		}
	}
	for name, kind := range map[string]media.Kind{sourceName: media.Video, audioName: media.Audio} {
		n := 0
		if kind == media.Audio {
			// Sound from before the first picture is left out.
			for n < len(want[kind]) && !bytes.Contains(rec.Parts["audio/0"][0][:800], want[kind][n].Payload) {
				n++
			}
		}
		for seq := uint64(0); rec.Entries[fmt.Sprintf("%s/%d", name, seq)].Type != ""; seq++ {
			f, err := mp4.DecodeFile(bytes.NewReader(bytes.Join(rec.Parts[fmt.Sprintf("%s/%d", name, seq)], nil)))
			if err != nil {
				t.Fatal(err)
			}
			for _, frag := range f.Segments[0].Fragments {
				samples, err := frag.GetFullSamples(&mp4.TrexBox{TrackID: 1})
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range samples {
					u := want[kind][n]
					n++
					if !bytes.Equal(s.Data, u.Payload) {
						t.Fatalf("%s sample %d has other bytes", name, n)
					}
					if kind == media.Video && media.Ticks(s.PresentationTime()) != u.PTS {
						t.Fatalf("picture %d is shown at %d, want %d", n, s.PresentationTime(), u.PTS)
					}
				}
			}
		}
		if n != len(want[kind]) {
			t.Errorf("%s has %d samples, the log has %d", name, n, len(want[kind]))
		}
	}
}
