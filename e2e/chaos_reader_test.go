//go:build chaos

package e2e

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// observer follows all renditions of a broadcast as the strict reader does, but
// goes on after what it finds wrong: it notes that.
type observer struct {
	t      testing.TB
	r      *reader
	cancel context.CancelFunc
	done   chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// arrivals are the parts in the order in which they were first listed.
	arrivals map[string][]arrival
	// violations are what a playlist said that it must not say.
	violations []string
	// regressions are those in which something went back.
	regressions int
	// gaps are the segments listed with EXT-X-GAP.
	gaps map[string]bool
	// troubles are requests that failed, in order, and how often.
	troubles map[string]int
	breaks   map[string]uint64 // discontinuities since the start, by rendition
	firsts   map[string]uint64
}

// arrival is the first sight of a part.
type arrival struct {
	sequence uint64
	part     int
	at       time.Time
	// begins and due are the wall-clock times of its start and end, by EXT-X-PROGRAM-DATE-TIME.
	begins, due   time.Time
	discontinuity uint64
}

// observe starts to follow a channel's broadcast.
func observe(t testing.TB, address string) *observer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{
		t: t, r: &reader{t: t, lenient: true, url: address}, cancel: cancel, done: make(chan struct{}),
		arrivals: make(map[string][]arrival), gaps: make(map[string]bool), troubles: make(map[string]int),
		breaks: make(map[string]uint64), firsts: make(map[string]uint64),
	}
	t.Cleanup(o.stop)
	base, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error {
		a, err := fetch(ctx, client, address)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("GET %s: %d %s", address, a.status, a.body)
		}
		if err == nil {
			o.r.main, err = parseMultivariant(string(a.body))
		}
		return err
	})
	var group sync.WaitGroup
	for i, uri := range o.r.main.renditions() {
		at, err := base.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		x := &rendition{
			r: o.r, name: path.Base(path.Dir(at.Path)), url: at,
			segments: make(map[uint64]*segment), inits: make(map[string]*track), media: make(map[string][]byte),
		}
		if i < len(o.r.main.Variants) {
			x.variant = &o.r.main.Variants[i]
		}
		o.r.renditions = append(o.r.renditions, x)
		lists := make(chan *mediaPlaylist, 1)
		group.Go(func() { o.follow(ctx, x, lists) })
		group.Go(func() { o.collect(ctx, x, lists) })
	}
	go func() {
		group.Wait()
		close(o.done)
	}()
	return o
}

// stop ends it; what it has is then the test's. It may be called again.
func (o *observer) stop() {
	o.cancel()
	if o.r.renditions != nil {
		<-o.done
	}
}

// follow reloads one media playlist to its end.
func (o *observer) follow(ctx context.Context, x *rendition, lists chan *mediaPlaylist) {
	defer close(lists)
	var before *mediaPlaylist
	plain := true
	for ctx.Err() == nil {
		query := ""
		if !plain {
			sequence, part := before.next()
			query = fmt.Sprintf("_HLS_msn=%d&_HLS_part=%d", sequence, part)
		}
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		m, err := x.load(one, query)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				o.trouble(x, "playlist", err)
				plain = true
				nap(ctx, 50*time.Millisecond)
			}
			continue
		}
		news := o.note(x, before, m)
		if before != nil {
			forgetParts(before, m)
			if err := checkSuccessor(before, m); err != nil {
				o.violation(x, err)
			}
		}
		before, plain = m, len(m.Segments) == 0
		select { // the newest replaces one that wasn't taken
		case <-lists:
		default:
		}
		lists <- m
		if m.Ended {
			return
		}
		if !news {
			nap(ctx, 100*time.Millisecond)
		}
	}
}

// forgetParts takes the parts from a segment that was open, when it is so far
// behind the end that they needn't be listed any more (4.4.4.9): that is so when
// much comes at once.
func forgetParts(before, after *mediaPlaylist) {
	if len(before.Segments) == 0 {
		return
	}
	open, behind := &before.Segments[len(before.Segments)-1], 0.0
	for i := range after.Segments {
		s := &after.Segments[i]
		if s.Sequence > open.Sequence {
			behind += s.Duration
			for _, p := range s.Parts {
				if s.open() {
					behind += p.Duration
				}
			}
		}
	}
	if open.open() && behind >= 3*float64(after.TargetDuration) {
		open.Parts = nil
	}
}

func nap(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// note notes what is new in a playlist, and reports whether anything is.
func (o *observer) note(x *rendition, before, m *mediaPlaylist) bool {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(m.Segments) == 0 {
		return false
	}
	last := m.Segments[len(m.Segments)-1].Discontinuity
	if _, ok := o.firsts[x.name]; !ok {
		o.firsts[x.name] = last
	}
	o.breaks[x.name] = last - o.firsts[x.name]
	news := false
	for i := range m.Segments {
		s := &m.Segments[i]
		if s.Gap {
			o.gaps[fmt.Sprintf("%s/%d", x.name, s.Sequence)] = true
		}
		known := 0
		if before != nil {
			if s.Sequence < before.MediaSequence {
				continue
			}
			if old := before.find(s.Sequence); old != nil {
				known = len(old.Parts)
				if !old.open() {
					continue
				}
			}
		}
		due := s.Time
		for n, p := range s.Parts {
			begins := due
			due = due.Add(time.Duration(p.Duration * float64(time.Second)))
			if n >= known {
				o.arrivals[x.name] = append(o.arrivals[x.name], arrival{s.Sequence, n, now, begins, due, s.Discontinuity})
				news = true
			}
		}
	}
	return news
}

func (o *observer) violation(x *rendition, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := fmt.Sprintf("%s: %v", x.name, err)
	o.violations = append(o.violations, text)
	if strings.Contains(text, "went back") || strings.Contains(text, "is gone") {
		o.regressions++
	}
	o.t.Logf("violation at %s: %s", time.Now().Format("15:04:05.000"), text)
}

func (o *observer) trouble(x *rendition, what string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.troubles[what]++
	if o.troubles[what] <= 5 {
		text := err.Error()
		o.t.Logf("%s of %s failed at %s: %.300s", what, x.name, time.Now().Format("15:04:05.000"), text)
	}
}

// collect fetches and checks what the playlists list.
func (o *observer) collect(ctx context.Context, x *rendition, lists <-chan *mediaPlaylist) {
	tries := 0
	var m *mediaPlaylist
	for {
		next, ok := m, true
		if m == nil {
			next, ok = <-lists
		} else {
			select {
			case next, ok = <-lists:
			case <-time.After(200 * time.Millisecond):
			}
		}
		if !ok && (m == nil || ctx.Err() != nil || tries > 20) {
			return
		}
		if ok {
			m = next
		}
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		err := x.collect(one, m)
		cancel()
		switch {
		case err == nil:
			m, tries = nil, 0
			if !ok {
				return
			}
		case ctx.Err() != nil:
			return
		default:
			tries++
			if strings.Contains(err.Error(), "GET ") || strings.Contains(err.Error(), "Get \"") {
				o.trouble(x, "media", err)
			} else {
				o.violation(x, err)
				tries += 100
			}
			if tries > 50 {
				// What can't be had is skipped: it counts as missing.
				x.skip(m)
				m, tries = nil, 0
			}
			nap(ctx, 100*time.Millisecond)
		}
	}
}

// skip gives the oldest segment up that isn't here.
func (x *rendition) skip(m *mediaPlaylist) {
	for i := range m.Segments {
		if s := &m.Segments[i]; x.segments[s.Sequence] == nil && !s.Gap {
			x.segments[s.Sequence] = &segment{listedSegment: *s, data: x.media[s.URI]}
			return
		}
	}
}

// behind is how far each rendition's newest part's end lies in the past, the worst.
func (o *observer) behind() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	worst := time.Duration(0)
	for _, x := range o.r.renditions {
		if list := o.arrivals[x.name]; len(list) > 0 {
			worst = max(worst, time.Since(list[len(list)-1].due))
		} else {
			worst = time.Hour
		}
	}
	return worst
}

// recovery is what one fault did to the arrival of parts.
type recovery struct {
	// source and rung are from the fault to the first new part, of the slowest rung;
	// negative: none came, of some rung.
	source, rung time.Duration
	// lateSource and lateRung are by how much the latest part came later than
	// parts did before the fault.
	lateSource, lateRung time.Duration
}

// recovered measures what lies between a fault and the time until.
func (o *observer) recovered(fault, until time.Time) recovery {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := recovery{source: -1, rung: -1}
	var rungs []time.Duration
	for _, x := range o.r.renditions {
		if x.name == "audio" {
			continue
		}
		first, late := time.Duration(-1), time.Duration(0)
		var usual []time.Duration
		for _, a := range o.arrivals[x.name] {
			switch lag := a.at.Sub(a.due); {
			case a.at.Before(fault):
				usual = append(usual, lag)
			case a.at.After(until):
			default:
				// What was on its way when it happened isn't a sign of life.
				if since := a.at.Sub(fault); since > 40*time.Millisecond && first < 0 {
					first = since
				}
				late = max(late, lag)
			}
		}
		if len(usual) > 60 {
			usual = usual[len(usual)-60:]
		}
		if len(usual) > 0 {
			slices.Sort(usual)
			late -= usual[len(usual)/2]
		}
		if x.name == "source" {
			r.source, r.lateSource = first, max(late, 0)
		} else {
			rungs = append(rungs, first)
			r.lateRung = max(r.lateRung, late)
		}
	}
	if len(rungs) > 0 && slices.Min(rungs) >= 0 {
		r.rung = slices.Max(rungs)
	}
	return r
}

// between is how many seconds of the source there are from one program
// date-time to another: while the publisher is away, none.
func (o *observer) between(from, to time.Time) float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	total := 0.0
	for _, a := range o.arrivals["source"] {
		begins, due := a.begins, a.due
		if begins.Before(from) {
			begins = from
		}
		if due.After(to) {
			due = to
		}
		total += max(0, due.Sub(begins).Seconds())
	}
	return total
}

// firstAfterBreak is the arrival of the first part after the n-th discontinuity
// of the source since the start, nil if there is none.
func (o *observer) firstAfterBreak(n uint64) *arrival {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.arrivals["source"] {
		if a.discontinuity >= o.firsts["source"]+n {
			return &a
		}
	}
	return nil
}

// discontinuities is the largest number of any rendition.
func (o *observer) discontinuities() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := uint64(0)
	for _, b := range o.breaks {
		n = max(n, b)
	}
	return int(n)
}

// drift is the largest change of the distance between the start of the sound
// and that of the picture over all segments, in milliseconds; NaN without any.
func (o *observer) drift() float64 {
	audio, video := o.find("audio"), o.find("source")
	if audio == nil || video == nil {
		return math.NaN()
	}
	var numbers []uint64
	for n, s := range video.segments {
		if other := audio.segments[n]; other != nil && len(s.samples) > 0 && len(other.samples) > 0 {
			numbers = append(numbers, n)
		}
	}
	if len(numbers) == 0 {
		return math.NaN()
	}
	slices.Sort(numbers)
	base, worst := math.NaN(), 0.0
	for _, n := range numbers {
		v, a := video.segments[n], audio.segments[n]
		off := 1000 * (float64(v.start())/float64(video.inits[v.Map].timescale) - float64(a.start())/float64(audio.inits[a.Map].timescale))
		if math.IsNaN(base) {
			base = off
		}
		worst = max(worst, math.Abs(off-base))
	}
	return worst
}

func (o *observer) find(name string) *rendition {
	for _, x := range o.r.renditions {
		if x.name == name {
			return x
		}
	}
	return nil
}

// holes are the sequence numbers between a rendition's first and last segment
// that were never listed as a whole segment.
func (o *observer) holes() []string {
	var list []string
	for _, x := range o.r.renditions {
		var numbers []uint64
		for n := range x.segments {
			numbers = append(numbers, n)
		}
		if len(numbers) == 0 {
			list = append(list, x.name+" has no segments")
			continue
		}
		for n := slices.Min(numbers); n < slices.Max(numbers); n++ {
			if x.segments[n] == nil && !o.gaps[fmt.Sprintf("%s/%d", x.name, n)] {
				list = append(list, fmt.Sprintf("%s/%d", x.name, n))
			}
		}
	}
	return list
}

// seams checks that segments begin where those before them end.
func (o *observer) seams() []string {
	var list []string
	for _, x := range o.r.renditions {
		for n, s := range x.segments {
			if before := x.segments[n-1]; n > 0 && before != nil && len(before.samples) > 0 && len(s.samples) > 0 {
				if err := x.checkSeam(before, s); err != nil {
					list = append(list, fmt.Sprintf("%s, from segment %d to %d: %v", x.name, n-1, n, err))
				}
			}
		}
	}
	return list
}
