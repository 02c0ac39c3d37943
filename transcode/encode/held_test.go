package encode

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/transcode/transcodetest"
)

// withoutPictures takes the pictures between two times, in seconds from the log's
// start, out of a log, and holds the last one there as ingest does. back is how many
// pictures that are back come too early to be shown.
func withoutPictures(l *transcodetest.Log, from, to float64, back int) *transcodetest.Log {
	out := &transcodetest.Log{}
	var (
		first, mark relay.Mark
		gop         []*media.Unit
		sound       *media.Codec
		shift       media.Ticks
		held        bool
		sequence    uint64
		decodeFrom  uint64
	)
	put := func(e relay.Entry) {
		if e.Mark != nil {
			out.Marks = append(out.Marks, len(out.Events))
		}
		out.Events = append(out.Events, e)
	}
	open := func(m relay.Mark, independent bool) {
		if m.Sequence = sequence; m.Kind == relay.Open {
			sequence++
		}
		if independent {
			decodeFrom = m.Sequence
		}
		m.DecodeFrom, m.AudioStart = decodeFrom, sound.Grid(first.AudioStart).AtOrAfter(m.Start)
		put(relay.Entry{Mark: &m})
		mark = m
	}
	hold := func(start, end media.Ticks) {
		const every = 343 * media.TicksPerMillisecond
		m := mark
		m.Held, m.Start = true, start
		open(m, true)
		for _, u := range gop {
			again := *u
			again.Preroll = true
			put(relay.Entry{Unit: &again})
		}
		for n, at := 0, start; at+every < end; n, at = n+1, at+every {
			if n > 0 && n%6 == 0 {
				m.Start = at
				open(m, false)
			}
			put(relay.Entry{Unit: &media.Unit{Track: media.Video, DTS: at - shift, PTS: at}})
		}
	}
	for _, e := range l.Events {
		u := e.Unit
		switch {
		case e.Codec != nil && e.Codec.Kind() == media.Audio:
			sound = e.Codec
		case e.Mark != nil:
			if len(out.Marks) == 0 {
				first, mark = *e.Mark, *e.Mark
			}
			if !held {
				open(*e.Mark, e.Mark.Independent())
			}
			continue
		case u != nil && u.Track == media.Video:
			if u.RandomAccess {
				gop, shift = nil, u.PTS-u.DTS
			}
			at := u.DTS + shift
			switch since := (at - first.Start).Seconds(); {
			case since >= from && since < to:
				if !held {
					hold(at, first.Start+media.Ticks(to*media.VideoTimescale))
				}
				held = true
				gop = append(gop, u)
				continue
			case held && back > 0:
				back--
				early := *u
				early.Preroll = true
				e.Unit = &early
			case held:
				held = false
				m := mark
				m.Held, m.Start = false, at
				open(m, u.RandomAccess)
			}
			gop = append(gop, u)
		}
		put(e)
	}
	return out
}

// Held pictures have every rendition of the last picture, the source's stand-in is as
// large as itself, and any worker makes the same bytes of them from any mark on; as it
// does of what follows, which only who decodes on can make.
func TestHeldPictures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, video string
		to          float64
		back        int
	}{
		{"back with a keyframe", "-c:v libx264 -preset veryfast -bf 0 -g 60", 6, 0},
		{"back within a group of pictures", "-c:v libx264 -preset veryfast -bf 0 -g 90", 5, 3},
		{"AV1", av1Video, 6, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=frequency=300:sample_rate=48000 -t 9 -pix_fmt yuv420p -c:a aac "+c.video)
			l = withoutPictures(l, 2.5, c.to, c.back)
			last := l.Events[l.Marks[len(l.Marks)-1]].Mark.Sequence - 1
			whole := transcodetest.NewRecord()
			runWorker(t, l, 0, "90p30=150k", whole)
			if len(whole.Gaps) > 0 {
				t.Errorf("gaps: %+v", whole.Gaps)
			}
			checkTimes(t, whole, last)
			checkHeld(t, l, whole)
			for from := uint64(2); from < 5 && c.video != av1Video; from++ {
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

// checkHeld checks that each segment has what stands for it, and that players which
// begin there can decode it.
func checkHeld(t *testing.T, l *transcodetest.Log, rec *transcodetest.Record) {
	t.Helper()
	broken := false
	source := ""
	for _, n := range l.Marks {
		m := l.Events[n].Mark
		if m.Kind != relay.Open {
			continue
		}
		broken = m.Held || broken && !m.Independent()
		e := rec.Entries[transcodetest.Key(index.Entry{Rendition: sourceName, Sequence: m.Sequence})]
		if source == "" {
			source = e.Init
		}
		if (e.Init != source) != broken || !e.Independent {
			t.Errorf("segment %d (held %v) of the source has the header %s, independent %v", m.Sequence, m.Held, e.Init, e.Independent)
		}
		for _, r := range rec.About.Renditions {
			k := transcodetest.Key(index.Entry{Rendition: r.Name, Sequence: m.Sequence})
			file := append(bytes.Clone(rec.Inits[r.Name+"/"+rec.Entries[k].Init].Data), bytes.Join(rec.Parts[k], nil)...)
			cmd := exec.Command("ffmpeg", "-v", "warning", "-i", "pipe:0", "-f", "null", "-")
			cmd.Stdin = bytes.NewReader(file)
			if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "" {
				t.Errorf("%s doesn't decode by itself: %v: %.300s", k, err, out)
			}
		}
	}
}
