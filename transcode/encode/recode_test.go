package encode

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/transcode/transcodetest"
)

// withoutIDR marks a log as ingest does one whose source has no IDR pictures but the
// first: each segment begins with what is shown first in it, and is decoded from
// the one before.
func withoutIDR(l *transcodetest.Log, recode bool) {
	var first *relay.Mark
	var shift media.Ticks
	var sound *media.Codec
	for i, e := range l.Events {
		switch {
		case e.Codec != nil && e.Codec.Kind() == media.Audio:
			sound = e.Codec
		case e.Mark == nil || e.Mark.Kind != relay.Open:
		case first == nil:
			first = e.Mark
			shift = first.Start - nextPicture(l, i).DTS
		default:
			m := e.Mark
			m.DecodeFrom, m.Recode = m.Sequence-1, recode
			m.Start = nextPicture(l, i).DTS + shift
			m.AudioStart = sound.Grid(first.AudioStart).AtOrAfter(m.Start)
		}
	}
}

func nextPicture(l *transcodetest.Log, i int) *media.Unit {
	for ; l.Events[i].Unit == nil || l.Events[i].Unit.Track != media.Video; i++ {
	}
	return l.Events[i].Unit
}

// Where the source's pictures refer past the beginning of their segment, rungs have
// every picture, and can be decoded from each segment on. So can what stands in the
// source's place. Any worker makes the same bytes from any mark on.
func TestSourceWithoutIDR(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, video string
		recode      bool
	}{
		{"open GOP", "-c:v libx264 -preset veryfast -g 60 -bf 2 -x264-params open-gop=1:min-keyint=60:scenecut=0", true},
		{"intra refresh", "-c:v libx264 -preset veryfast -g 60 -x264-params intra-refresh=1:bframes=0:scenecut=0", true},
		{"open GOP of HEVC", strings.Replace(hevcVideo, "open-gop=0", "open-gop=1", 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=frequency=300:sample_rate=48000 -t 8 -pix_fmt yuv420p -c:a aac "+c.video)
			withoutIDR(l, c.recode)
			whole := transcodetest.NewRecord()
			runWorker(t, l, 0, "90p30=150k", whole)
			if len(whole.Gaps) > 0 {
				t.Errorf("gaps: %+v", whole.Gaps)
			}
			checkTimes(t, whole, 3)
			source := ""
			for seq := range uint64(4) {
				for _, r := range whole.About.Renditions {
					if r.Kind != media.Video {
						continue
					}
					e := whole.Entries[transcodetest.Key(index.Entry{Rendition: r.Name, Sequence: seq})]
					if r.Source && seq == 0 {
						source = e.Init
					}
					if r.Source && (e.Init == source) == (c.recode && seq > 0) {
						t.Errorf("segment %d of the source has the header %s", seq, e.Init)
					}
					if !r.Source || c.recode {
						checkAlone(t, whole, r.Name, seq)
					}
				}
			}
			for from := uint64(1); from < 4; from++ {
				again := transcodetest.NewRecord()
				runWorker(t, l, from, "90p30=150k", again)
				got := again.Sums(from)
				for k, sum := range whole.Sums(from) {
					if got[k] != sum {
						t.Errorf("from mark %d, %s is %q, want %q", from, k, got[k], sum)
					}
				}
			}
		})
	}
}

// checkAlone checks that a segment of 2 s has all of its pictures and decodes by itself.
func checkAlone(t *testing.T, rec *transcodetest.Record, name string, sequence uint64) {
	t.Helper()
	k := transcodetest.Key(index.Entry{Rendition: name, Sequence: sequence})
	media := bytes.Join(rec.Parts[k], nil)
	pictures := 0
	file, err := mp4.DecodeFile(bytes.NewReader(media))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range file.Segments {
		for _, f := range s.Fragments {
			pictures += int(f.Moof.Traf.Trun.SampleCount())
		}
	}
	cmd := exec.Command("ffmpeg", "-v", "warning", "-i", "pipe:0", "-f", "null", "-")
	cmd.Stdin = bytes.NewReader(append(bytes.Clone(rec.Inits[name+"/"+rec.Entries[k].Init].Data), media...))
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("%s doesn't decode by itself: %v: %.300s", k, err, out)
	}
	// Leading pictures stand in the segment before the one that begins with them.
	if pictures < 56 || pictures > 64 || sequence == 1 && pictures != 60 {
		t.Errorf("%s has %d pictures", k, pictures)
	}
}
