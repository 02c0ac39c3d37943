package viewer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// Observer follows all renditions of a broadcast as the strict reader does, but
// goes on after what it finds wrong: it notes that.
type Observer struct {
	t      testing.TB
	Reader *hls.Reader
	cancel context.CancelFunc
	done   chan struct{}

	// mu guards what follows until Stop has returned; then it is the test's.
	mu sync.Mutex
	// arrivals are the parts in the order in which they were first listed.
	arrivals map[string][]Arrival
	// Violations are what a playlist said that it must not say.
	Violations []string
	// Regressions are those in which something went back.
	Regressions int
	// Gaps are the segments listed with EXT-X-GAP.
	Gaps map[string]bool
	// Troubles are requests that failed, in order, and how often.
	Troubles map[string]int
	// Breaks are the discontinuities since the start, by rendition.
	Breaks map[string]uint64
	firsts map[string]uint64
}

// Observe starts to follow a channel's broadcast.
func Observe(t testing.TB, address string) *Observer {
	t.Helper()
	r := hls.Open(t, address, true)
	ctx, cancel := context.WithCancel(context.Background())
	o := &Observer{
		t: t, Reader: r, cancel: cancel, done: make(chan struct{}),
		arrivals: make(map[string][]Arrival), Gaps: make(map[string]bool), Troubles: make(map[string]int),
		Breaks: make(map[string]uint64), firsts: make(map[string]uint64),
	}
	t.Cleanup(o.Stop)
	var group sync.WaitGroup
	for _, x := range r.Renditions {
		lists := make(chan *hls.MediaPlaylist, 1)
		group.Go(func() { o.follow(ctx, x, lists) })
		group.Go(func() { o.collect(ctx, x, lists) })
	}
	go func() {
		group.Wait()
		close(o.done)
	}()
	return o
}

// Stop ends it; what it has is then the test's. It may be called again.
func (o *Observer) Stop() {
	o.cancel()
	<-o.done
}

// follow reloads one media playlist to its end.
func (o *Observer) follow(ctx context.Context, x *hls.Rendition, lists chan *hls.MediaPlaylist) {
	defer close(lists)
	var before *hls.MediaPlaylist
	plain := true
	for ctx.Err() == nil {
		query := ""
		if !plain {
			sequence, part := before.Next()
			query = fmt.Sprintf("_HLS_msn=%d&_HLS_part=%d", sequence, part)
		}
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		m, err := x.Load(one, query)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				o.trouble(x, "playlist", err)
				plain = true
				harness.Nap(ctx, 50*time.Millisecond)
			}
			continue
		}
		news := o.note(x, before, m)
		if before != nil {
			forgetParts(before, m)
			if err := hls.CheckSuccessor(before, m); err != nil {
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
			harness.Nap(ctx, 100*time.Millisecond)
		}
	}
}

// forgetParts takes the parts from a segment that was open, when it is so far
// behind the end that they needn't be listed any more (4.4.4.9): that is so when
// much comes at once.
func forgetParts(before, after *hls.MediaPlaylist) {
	if len(before.Segments) == 0 {
		return
	}
	open, behind := &before.Segments[len(before.Segments)-1], 0.0
	for i := range after.Segments {
		s := &after.Segments[i]
		if s.Sequence > open.Sequence {
			behind += s.Duration
			for _, p := range s.Parts {
				if s.Open() {
					behind += p.Duration
				}
			}
		}
	}
	if open.Open() && behind >= 3*float64(after.TargetDuration) {
		open.Parts = nil
	}
}

// note notes what is new in a playlist, and reports whether anything is.
func (o *Observer) note(x *hls.Rendition, before, m *hls.MediaPlaylist) bool {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(m.Segments) == 0 {
		return false
	}
	last := m.Segments[len(m.Segments)-1].Discontinuity
	if _, ok := o.firsts[x.Name]; !ok {
		o.firsts[x.Name] = last
	}
	o.Breaks[x.Name] = last - o.firsts[x.Name]
	news := false
	for i := range m.Segments {
		s := &m.Segments[i]
		if s.Gap {
			o.Gaps[fmt.Sprintf("%s/%d", x.Name, s.Sequence)] = true
		}
		known := 0
		if before != nil {
			if s.Sequence < before.MediaSequence {
				continue
			}
			if old := before.Find(s.Sequence); old != nil {
				known = len(old.Parts)
				if !old.Open() {
					continue
				}
			}
		}
		due := s.Time
		for n, p := range s.Parts {
			begins := due
			due = due.Add(time.Duration(p.Duration * float64(time.Second)))
			if n >= known {
				o.arrivals[x.Name] = append(o.arrivals[x.Name], Arrival{s.Sequence, n, now, begins, due, s.Discontinuity})
				news = true
			}
		}
	}
	return news
}

func (o *Observer) violation(x *hls.Rendition, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := fmt.Sprintf("%s: %v", x.Name, err)
	o.Violations = append(o.Violations, text)
	if strings.Contains(text, "went back") || strings.Contains(text, "is gone") {
		o.Regressions++
	}
	o.t.Logf("violation at %s: %s", time.Now().Format("15:04:05.000"), text)
}

func (o *Observer) trouble(x *hls.Rendition, what string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Troubles[what]++
	if o.Troubles[what] <= 5 {
		text := err.Error()
		o.t.Logf("%s of %s failed at %s: %.300s", what, x.Name, time.Now().Format("15:04:05.000"), text)
	}
}

// collect fetches and checks what the playlists list.
func (o *Observer) collect(ctx context.Context, x *hls.Rendition, lists <-chan *hls.MediaPlaylist) {
	tries := 0
	var m *hls.MediaPlaylist
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
		err := x.Collect(one, m)
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
				x.Skip(m)
				m, tries = nil, 0
			}
			harness.Nap(ctx, 100*time.Millisecond)
		}
	}
}
