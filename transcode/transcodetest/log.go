// Package transcodetest has what the tests of transcode and of its packages
// share: logs of broadcasts made by ffmpeg, and a record of what a worker publishes.
package transcodetest

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/media/mediatest"
	"millrace/internal/relay"
	"millrace/internal/testenv"
	"millrace/transcode/logread"
)

// WithSound are ffmpeg's arguments for a source with sound, of so many seconds (%d).
const WithSound = "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=frequency=300:sample_rate=48000 -t %d -pix_fmt yuv420p -c:a aac -c:v libx264 -preset ultrafast -bf 0 -g 60"

// Ladder is a ladder that costs little.
const Ladder = "96p30=150k,64p30=80k"

// Log is a broadcast's log.
type Log struct {
	Events []relay.Entry
	Marks  []int // where the marks are
}

// From is what a reader gets that asks for a segment.
func (l *Log) From(sequence uint64) []relay.Entry {
	var head []relay.Entry
	for i, e := range l.Events {
		if e.Settings != nil || e.Codec != nil {
			head = append(head, e)
		}
		if e.Mark != nil && e.Mark.Sequence == sequence {
			return slices.Concat(head, l.Events[l.decodeFrom(i):])
		}
	}
	panic("no such mark")
}

func (l *Log) decodeFrom(mark int) int {
	for _, i := range l.Marks {
		if l.Events[i].Mark.Sequence == l.Events[mark].Mark.DecodeFrom {
			return i
		}
	}
	return mark
}

// MakeLog encodes a source with ffmpeg and marks it as ingest would. With cut
// above zero, a segment in the middle of a GOP begins each so many seconds.
func MakeLog(t *testing.T, cut float64, args string) *Log {
	t.Helper()
	video, audio := makeSource(t, args)
	units := merge(video, audio)
	l := &Log{}
	for _, track := range []*mediatest.Track{video, audio} {
		if track != nil {
			l.Events = append(l.Events, relay.Entry{Codec: track.Codec})
		}
	}
	rate := 30.0
	settings := relay.Settings{
		TargetDuration: 4, PartTarget: 33000, PartDuration: 30900, PartHoldBack: 108000,
		Video: true, Audio: audio != nil, FrameRate: rate, FrameStep: 1, Started: time.Unix(1e9, 0).UTC(),
	}
	l.Events = append([]relay.Entry{{Settings: &settings}}, l.Events...)
	var shift media.Ticks
	mark := relay.Mark{Kind: relay.Open, Epoch: 7, Time: settings.Started}
	opened, maxPTS := false, media.Ticks(0)
	origin := media.Samples(-1)
	open := func(at media.Ticks, independent bool) {
		if opened {
			mark.Sequence++
		}
		opened = true
		mark.Start = at
		if independent {
			mark.DecodeFrom = mark.Sequence
		}
		if audio != nil {
			first := media.SamplesOf(at, audio.Codec.Rate) + 1
			if origin < 0 {
				origin = first
			}
			mark.AudioStart = audio.Codec.Grid(origin).AtOrAfter(at)
		}
		m := mark
		l.Marks = append(l.Marks, len(l.Events))
		l.Events = append(l.Events, relay.Entry{Mark: &m})
	}
	for _, u := range units {
		if u.Track == media.Video {
			at := u.DTS + shift
			if u.RandomAccess && (!opened || u.PTS-mark.Start >= 175000) {
				shift = u.PTS - u.DTS
				open(u.PTS, true)
			} else if cut > 0 && (at-mark.Start).Seconds() >= cut && at > maxPTS+1500 {
				open(at, false)
			}
			maxPTS = max(maxPTS, u.PTS)
		}
		l.Events = append(l.Events, relay.Entry{Unit: u})
	}
	end := mark
	end.Kind, end.Sequence, end.Start = relay.End, mark.Sequence+1, maxPTS+3000
	l.Events = append(l.Events, relay.Entry{Mark: &end})
	return l
}

// start is when a source's first access unit comes.
const start = 10 * media.VideoTimescale

// makeSource encodes a source with ffmpeg; audio is nil when it has no sound.
func makeSource(t *testing.T, args string) (video, audio *mediatest.Track) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "source.mp4")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ffmpeg", append(strings.Fields("-y -nostdin -hide_banner -loglevel error "+args),
		"-movflags", "+frag_keyframe+delay_moov+default_base_moof", "-video_track_timescale", "90000", file)...)
	cmd.Env = append(os.Environ(), "SVT_LOG=1") // errors only
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make source: %v: %s", err, out)
	}
	data, err := os.ReadFile(file)
	if err == nil {
		video, audio, err = mediatest.Parse(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return video, audio
}

// merge returns the tracks' units as a publisher sends them: in order of their
// decode times, which are rounded to milliseconds.
func merge(tracks ...*mediatest.Track) (units []*media.Unit) {
	round := func(at media.Ticks) media.Ticks {
		return (at + media.TicksPerMillisecond/2) / media.TicksPerMillisecond * media.TicksPerMillisecond
	}
	for _, track := range tracks {
		if track == nil {
			continue
		}
		for _, u := range track.Units {
			u.DTS, u.PTS = start+round(u.DTS), start+round(u.PTS)
			units = append(units, &u)
		}
	}
	slices.SortStableFunc(units, func(a, b *media.Unit) int { return cmp.Compare(a.DTS, b.DTS) })
	return units
}

type testWriter struct{ t *testing.T }

// Write logs one line.
func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// Newest is what a reader gets that asks for a segment: if there is none yet,
// it begins at the newest one.
func (l *Log) Newest(sequence uint64, now media.Ticks) []relay.Entry {
	have := uint64(0)
	for _, i := range l.Marks {
		if m := l.Events[i].Mark; m.Start <= now {
			have = m.Sequence
		}
	}
	return l.From(min(sequence, have))
}

// Encode returns an entry as the relay writes it.
func Encode(t *testing.T, e relay.Entry) []byte {
	b, err := e.Append(nil)
	if err != nil {
		t.Error(err)
	}
	return b
}

// Until returns the log up to the end of segment sequence and a mark of a kind there.
func (l *Log) Until(sequence uint64, kind relay.MarkKind) *Log {
	for n, i := range l.Marks {
		if m := *l.Events[i].Mark; m.Sequence == sequence+1 {
			m.Kind = kind
			return &Log{Events: append(slices.Clone(l.Events[:i]), relay.Entry{Mark: &m}), Marks: l.Marks[:n]}
		}
	}
	panic("no such segment")
}

// ReadUntil returns what a worker that was at a carry's end had read of the log,
// closed as that says.
func (l *Log) ReadUntil(c relay.Handoff) *Log {
	out := &Log{}
	step := media.Ticks(3000)
	for i, e := range l.Events {
		if e.Unit != nil && e.Unit.Track == media.Video && e.Unit.DTS > c.Mark.Start-step/2 {
			break
		}
		if slices.Contains(l.Marks, i) {
			out.Marks = append(out.Marks, len(out.Events))
		}
		out.Events = append(out.Events, e)
	}
	end := c.Mark
	end.Kind = relay.End
	out.Events = append(out.Events, relay.Entry{Mark: &end})
	return out
}

// Live returns what reads l at the pace of a live broadcast until after its last
// mark but one, and waits.
func (l *Log) Live() func(context.Context, chan<- relay.Entry) error {
	began := time.Now()
	return func(ctx context.Context, out chan<- relay.Entry) error {
		first := l.Events[l.Marks[0]].Mark.Start
		for _, e := range l.From(0) {
			if e.Unit != nil {
				select {
				case <-time.After(time.Until(began.Add((e.Unit.DTS - first).Duration()))):
				case <-ctx.Done():
				}
			}
			if e.Mark != nil && e.Mark.Kind == relay.End {
				break
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// Patient is the tolerance of workers whose bytes a test compares: a machine that
// has much else to do makes them late, never others.
const Patient = 60

// FirstGrant is that of a broadcast that no worker had before.
var FirstGrant = jobs.Grant{Epoch: jobs.Epoch{Lease: 7, Grant: 1}}

// Unhurried returns what reads the log from a segment on as fast as a worker takes
// it, waiting at each mark until the segment before it is finished: no more is
// encoded side by side than live.
func (l *Log) Unhurried(from uint64, finished func() uint64) func(context.Context, chan<- relay.Entry) error {
	return func(ctx context.Context, out chan<- relay.Entry) error {
		for _, e := range l.From(from) {
			if e.Mark != nil && e.Mark.Sequence > from+1 {
				testenv.Await(ctx, func() bool { return finished()+1 >= e.Mark.Sequence })
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return logread.ErrEnded
	}
}

// Logger writes to the test's log.
func Logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }
