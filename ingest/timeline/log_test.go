package timeline

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// record keeps what a studio filmed in a log.
func record(t *testing.T, s *studio, maxBytes int) *Log {
	t.Helper()
	l := NewLog(maxBytes)
	for _, e := range s.entries {
		if err := l.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// reading is what a reader of the log gets, entry by entry.
type reading struct {
	settings relay.Settings
	preamble []string // what comes before the first item
	marks    []relay.Mark
	leads    []media.Ticks // times of the sound before the first mark
	pictures int
	ended    bool
}

// readLog reads a log from a segment on, up to what it has.
func readLog(t *testing.T, l *Log, from uint64, newest bool) (r reading) {
	t.Helper()
	preamble, number, oldest, ok := l.From(from, newest)
	if !ok {
		t.Fatalf("the log begins at %d, not at %d", oldest, from)
	}
	for _, e := range parse(t, preamble) {
		switch {
		case e.Settings != nil:
			r.preamble = append(r.preamble, "settings")
			r.settings = *e.Settings
		case e.Codec != nil:
			r.preamble = append(r.preamble, e.Codec.Kind().String())
		}
	}
	buf := make([][]byte, 0, MaxBatch)
	for {
		items, _, lost, ended := l.Read(number, buf)
		if lost {
			t.Fatalf("item %d is lost", number)
		}
		for _, e := range parse(t, items) {
			r.take(e)
		}
		number += uint64(len(items))
		if len(items) == 0 {
			r.ended = ended
			return r
		}
	}
}

// parse reads items as the relay sends them.
func parse(t *testing.T, items [][]byte) (entries []relay.Entry) {
	t.Helper()
	r, err := relay.NewReader(bytes.NewReader(slices.Concat(relay.Header(), slices.Concat(items...))))
	if err != nil {
		t.Fatal(err)
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
}

func (r *reading) take(e relay.Entry) {
	switch {
	case e.Mark != nil:
		r.marks = append(r.marks, *e.Mark)
	case e.Settings != nil:
		r.settings = *e.Settings
	case e.Unit == nil:
	case e.Unit.Track == media.Video:
		r.pictures++
	case len(r.marks) == 0:
		r.leads = append(r.leads, e.Unit.DTS)
	}
}

func TestLogStart(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	s.play(source{rate: 30, gops: []int{30, 240}, seconds: 10, sound: stereo}) // 0, 1<0, 2<0, 3, P4
	s.seq.Pause()
	s.connect(sd, stereo)
	s.play(source{rate: 30, gops: []int{60}, seconds: 4, sound: stereo}) // 4, 5, E6
	s.seq.Finish()
	l := record(t, s, 0)
	for _, c := range []struct {
		name   string
		from   uint64
		newest bool
		first  uint64 // sequence of the first mark
		kind   relay.MarkKind
	}{
		{"an IDR", 3, false, 3, relay.Open},
		{"a cut within a GOP is decoded from its IDR", 2, false, 0, relay.Open},
		{"a reconnect", 4, false, 4, relay.Open},
		{"after a reconnect", 5, false, 5, relay.Open},
		{"not written yet", 99, false, 6, relay.End},
		{"the newest", 0, true, 6, relay.End},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := readLog(t, l, c.from, c.newest)
			if m := r.marks[0]; m.Sequence != c.first || m.Kind != c.kind {
				t.Errorf("the first mark is %+v, want %d", m, c.first)
			}
			if want := []string{"settings", "video", "audio"}; !slices.Equal(r.preamble, want) {
				t.Errorf("%q come first, want %q", r.preamble, want)
			}
			if r.settings.TargetDuration != 4 || !r.ended {
				t.Errorf("settings are %+v, ended is %v", r.settings, r.ended)
			}
			for _, at := range r.leads {
				if at < r.marks[0].Start {
					t.Errorf("sound at %d comes before the mark at %d, which it isn't part of", at, r.marks[0].Start)
				}
			}
		})
	}
	// Without an end the newest segment that begins with an IDR is given.
	live := NewLog(0)
	for _, e := range s.entries {
		if e.Mark != nil && e.Mark.Sequence == 3 {
			break
		}
		if err := live.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	if r := readLog(t, live, 0, true); r.marks[0].Sequence != 0 || r.ended {
		t.Errorf("the newest IDR is %+v, ended is %v", r.marks[0], r.ended)
	}
}

// Sound of a segment that came before its mark is read with it.
func TestLogLead(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	s.play(source{rate: 30, gops: []int{60}, seconds: 4, sound: stereo})
	s.play(source{from: 4, seconds: 0.6, sound: stereo}) // sound runs ahead of pictures
	s.play(source{from: 4, rate: 30, gops: []int{60}, seconds: 2})
	l := record(t, s, 0)
	r := readLog(t, l, 2, false)
	start := r.marks[0].AudioStart.Ticks(stereo.Rate)
	if r.marks[0].Sequence != 2 || len(r.leads) != 29 || r.leads[0] != start {
		t.Errorf("%d frames of sound at %v come before the mark %+v", len(r.leads), r.leads, r.marks[0])
	}
}

func TestLogBounds(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	s.play(source{rate: 30, gops: []int{60}, seconds: 120, sound: stereo})
	for _, c := range []struct {
		name     string
		maxBytes int
		oldest   uint64
	}{
		{"seconds", 0, 40}, // 40 s of 120
		{"bytes", 50_000, 44},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := record(t, s, c.maxBytes)
			if l.Oldest() != c.oldest {
				t.Errorf("the oldest segment is %d, want %d", l.Oldest(), c.oldest)
			}
			if c.maxBytes > 0 && l.Size() > c.maxBytes {
				t.Errorf("%d bytes are held", l.Size())
			}
			if _, _, oldest, ok := l.From(c.oldest-1, false); ok || oldest != c.oldest {
				t.Errorf("a segment that is gone gave %v, oldest %d", ok, oldest)
			}
			if r := readLog(t, l, c.oldest, false); r.marks[0].Sequence != c.oldest || r.settings.TargetDuration != 4 {
				t.Errorf("the first mark is %+v, settings %+v", r.marks[0], r.settings)
			}
			if _, _, lost, _ := l.Read(0, nil); !lost {
				t.Error("the first item isn't lost")
			}
			if len(l.marks) > 22 {
				t.Errorf("%d marks are held", len(l.marks))
			}
		})
	}
}

// A cut within a GOP whose IDR is gone can't be started at.
func TestLogLostIDR(t *testing.T) {
	s := newStudio()
	s.connect(hd, stereo)
	s.play(source{rate: 30, gops: []int{30, 30 * 60}, seconds: 60, sound: stereo})
	l := record(t, s, 0)
	last := l.marks[len(l.marks)-1].mark
	if last.Independent() || l.Oldest() != last.Sequence+1 {
		t.Errorf("the oldest segment is %d, the newest mark %+v", l.Oldest(), last)
	}
	for _, newest := range []bool{false, true} {
		if _, _, oldest, ok := l.From(last.Sequence, newest); ok || oldest != last.Sequence+1 {
			t.Errorf("it can be started at, oldest %d", oldest)
		}
	}
}

// A reader that is there first gets everything.
func TestLogEmpty(t *testing.T) {
	l := NewLog(0)
	_, number, _, ok := l.From(7, false)
	items, changed, lost, ended := l.Read(number, nil)
	if !ok || len(items) != 0 || lost || ended {
		t.Fatalf("an empty log gave %v, %d items, lost %v, ended %v", ok, len(items), lost, ended)
	}
	if err := l.Append(relay.Entry{Mark: &relay.Mark{Kind: relay.End}}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("readers aren't woken")
	}
	if items, _, _, ended = l.Read(number, nil); len(items) != 1 || ended {
		t.Errorf("%d items, ended %v", len(items), ended)
	}
	if _, _, _, ended = l.Read(number+1, nil); !ended {
		t.Error("it doesn't end")
	}
}
