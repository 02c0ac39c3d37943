package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// reader follows one broadcast as a low-latency player does, in all renditions
// at once. It fetches all that the playlists list and takes nothing on trust.
type reader struct {
	t testing.TB
	// lenient is set where workers or publishers are expected to die: hints may
	// fail, reloads may come back unchanged, parts may be unknown.
	lenient bool

	url        string
	main       *multivariant
	renditions []*rendition
	done       chan struct{}
}

// rendition is what a reader knows of one rendition. It is owned by the
// reader's goroutine for it, and by the test once that has ended.
type rendition struct {
	r       *reader
	name    string
	url     *url.URL
	variant *variant // nil for audio beside video

	newest   *mediaPlaylist
	segments map[uint64]*segment
	inits    map[string]*track
	media    map[string][]byte // by URI
	reloads  int
	deltas   int          // delta updates that skipped something
	hints    int          // hinted parts that came
	swaps    int          // changes to another encoding, or back
	paused   bool         // an answer said that the publisher is away
	asked    atomic.Value // string: the newest request for a playlist, and what came
	err      error
}

// segment is a fetched segment.
type segment struct {
	listedSegment
	data []byte
	// parts are those that were listed, all or none.
	parts   []listedPart
	samples []sample
}

func (s *segment) start() int64 { return s.samples[0].pts }

// end is when the last sample is decoded and over.
func (s *segment) end() int64 {
	last := s.samples[len(s.samples)-1]
	return last.dts + last.duration
}

// follow waits for a channel to be live and reads the broadcast to its end.
func follow(t testing.TB, address string, lenient bool) *reader {
	t.Helper()
	r := &reader{t: t, lenient: lenient, url: address, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var text []byte
	eventually(t, 30*time.Second, func() error {
		a, err := fetch(ctx, client, address)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("GET %s: %d %s", address, a.status, a.body)
		}
		text = a.body
		return err
	})
	var err error
	if r.main, err = parseMultivariant(string(text)); err != nil {
		t.Fatalf("multivariant playlist: %v\n%s", err, text)
	}
	base, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i, uri := range r.main.renditions() {
		at, err := base.Parse(uri)
		if err != nil {
			t.Fatalf("multivariant playlist: %v", err)
		}
		x := &rendition{
			r: r, name: path.Base(path.Dir(at.Path)), url: at,
			segments: make(map[uint64]*segment), inits: make(map[string]*track), media: make(map[string][]byte),
		}
		if i < len(r.main.Variants) {
			x.variant = &r.main.Variants[i]
		}
		r.renditions = append(r.renditions, x)
		group.Go(func() {
			if x.err = x.read(ctx); x.err != nil {
				x.err = fmt.Errorf("%s, reload %d: %w", x.name, x.reloads, x.err)
			}
		})
	}
	go func() {
		group.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

// wait waits until all renditions have come to their end.
func (r *reader) wait(limit time.Duration) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(limit):
		for _, x := range r.renditions {
			r.t.Logf("%s: %v", x.name, x.asked.Load())
		}
		r.t.Fatalf("the broadcast hasn't ended after %s", limit)
	}
	for _, x := range r.renditions {
		if x.err != nil {
			r.t.Error(x.err)
		}
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// rendition returns one by name.
func (r *reader) rendition(name string) *rendition {
	r.t.Helper()
	for _, x := range r.renditions {
		if x.name == name {
			return x
		}
	}
	r.t.Fatalf("there is no rendition %q", name)
	return nil
}

// names are those of the renditions, sorted.
func (r *reader) names() []string {
	var list []string
	for _, x := range r.renditions {
		list = append(list, x.name)
	}
	slices.Sort(list)
	return list
}

// read follows one rendition to its end.
func (x *rendition) read(ctx context.Context) error {
	m, err := x.load(ctx, "")
	if err != nil {
		return err
	}
	if err := x.refused(ctx, m); err != nil {
		return err
	}
	for {
		hint := x.ask(ctx, m)
		if err := x.collect(ctx, m); err != nil {
			return err
		}
		if m.Ended {
			return nil
		}
		next, err := x.reload(ctx, m)
		if err != nil {
			return err
		}
		if err := checkSuccessor(m, next); err != nil {
			return err
		}
		if err := x.checkReports(next); err != nil {
			return err
		}
		if err := x.checkHint(m, next, hint); err != nil {
			return err
		}
		m = next
	}
}

// load fetches and parses the media playlist.
func (x *rendition) load(ctx context.Context, query string) (*mediaPlaylist, error) {
	address := x.url.String()
	if query != "" {
		address += "?" + query
	}
	x.asked.Store(fmt.Sprintf("asked for %s at %s", address, time.Now().Format("15:04:05.000")))
	a, err := fetch(ctx, client, address)
	if err != nil {
		return nil, err
	}
	x.asked.Store(fmt.Sprintf("asked for %s, and got %d by %s:\n%s", address, a.status, time.Now().Format("15:04:05.000"), a.body))
	if a.status != http.StatusOK {
		return nil, &statusError{address, a.status, string(a.body)}
	}
	m, err := parseMedia(string(a.body))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w\n%s", address, err, a.body)
	}
	return m, nil
}

// statusError is an answer other than 200.
type statusError struct {
	url    string
	status int
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("GET %s: %d %s", e.url, e.status, e.body) }

// refused checks the directives that must be refused (6.2.5.2).
func (x *rendition) refused(ctx context.Context, m *mediaPlaylist) error {
	sequence, _ := m.next()
	for _, query := range []string{
		"_HLS_part=0", "_HLS_msn=x", "_HLS_msn=-1",
		fmt.Sprintf("_HLS_msn=%d", sequence+9), fmt.Sprintf("_HLS_msn=%d&_HLS_part=500", sequence+1),
	} {
		var status *statusError
		if _, err := x.load(ctx, query); !errors.As(err, &status) || status.status != http.StatusBadRequest {
			return fmt.Errorf("%s?%s: %w, want 400", x.name, query, err)
		}
	}
	return nil
}

// reload asks for the next part, now and then for the next segment, and every
// second time for a delta update.
func (x *rendition) reload(ctx context.Context, m *mediaPlaylist) (*mediaPlaylist, error) {
	x.reloads++
	sequence, part := m.next()
	query := fmt.Sprintf("_HLS_msn=%d&_HLS_part=%d", sequence, part)
	whole := x.reloads%15 == 7
	if whole {
		query = fmt.Sprintf("_HLS_msn=%d", sequence)
	}
	delta := x.reloads%2 == 0
	if delta {
		query += "&_HLS_skip=YES"
	}
	next, err := x.load(ctx, query)
	var status *statusError
	if x.r.lenient && errors.As(err, &status) && status.status == http.StatusServiceUnavailable {
		return m, pause(ctx)
	}
	if err != nil {
		return nil, err
	}
	if next.Skipped > 0 {
		if !delta {
			return nil, errors.New("a delta update that wasn't asked for")
		}
		if next, err = x.merge(ctx, m, next, query); err != nil {
			return nil, err
		}
	}
	there := next.has(sequence, part)
	if whole {
		s := next.find(sequence)
		there = s != nil && !s.open()
	}
	switch {
	case there || next.Ended:
		if there && x.paused && !x.r.lenient {
			return nil, errors.New("the broadcast goes on after a pause")
		}
		return next, nil
	case next.paused():
		x.paused = true
		return next, pause(ctx)
	case x.r.lenient:
		return next, pause(ctx)
	}
	last, lastPart := next.last()
	return nil, fmt.Errorf("the answer to ?%s ends with %d.%d", query, last, lastPart)
}

// paused reports whether the publisher is away: no part can be promised then.
// The grace period before the end of each broadcast is such a time.
func (m *mediaPlaylist) paused() bool { return m.Hint == "" && !m.Ended && len(m.Segments) > 0 }

// pause is between reloads that bring nothing new.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(300 * time.Millisecond):
		return nil
	}
}

// merge applies a delta update and compares it with the full playlist, if that
// is still the same.
func (x *rendition) merge(ctx context.Context, m, delta *mediaPlaylist, query string) (*mediaPlaylist, error) {
	merged, err := delta.merge(m)
	if err != nil {
		return nil, err
	}
	x.deltas++
	full, err := x.load(ctx, strings.TrimSuffix(query, "&_HLS_skip=YES"))
	if err != nil {
		return nil, err
	}
	a, b := merged.last()
	if c, d := full.last(); a != c || b != d || full.Ended != merged.Ended || full.paused() != merged.paused() {
		return full, nil // something came in between
	}
	return full, checkMerged(merged, full)
}

// hinted is a request for a hinted part.
type hinted struct {
	uri    string
	answer chan hintAnswer
}

type hintAnswer struct {
	answer
	err error
}

// ask asks for the hinted part, before it exists.
func (x *rendition) ask(ctx context.Context, m *mediaPlaylist) *hinted {
	if m.Hint == "" {
		return nil
	}
	h := &hinted{m.Hint, make(chan hintAnswer, 1)}
	address := x.resolve(m.Hint)
	go func() {
		a, err := fetch(ctx, client, address)
		h.answer <- hintAnswer{a, err}
	}()
	return h
}

func (x *rendition) checkHint(before, after *mediaPlaylist, h *hinted) error {
	if h == nil {
		if !x.r.lenient && !after.Ended && !before.paused() && len(before.Segments) > 0 {
			return errors.New("no preload hint")
		}
		return nil
	}
	uri := firstNewPart(before, after)
	if uri == "" {
		return nil // nothing new: the end, or a pause
	}
	if uri != h.uri {
		return x.checkWrongHint(h, uri)
	}
	a := <-h.answer
	if x.r.lenient && (a.err != nil || a.status != http.StatusOK) {
		return nil
	}
	if a.err != nil {
		return a.err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("the hinted part %s: %d %s", h.uri, a.status, a.body)
	}
	x.hints++
	x.media[uri] = a.body
	return nil
}

// checkWrongHint takes the one hint that may be wrong: a rung that can't be
// encoded in time shows another one's media, which has another profile in its
// name. Nobody may be left waiting for what won't come.
func (x *rendition) checkWrongHint(h *hinted, uri string) error {
	if x.r.lenient {
		return nil
	}
	if withoutProfile(h.uri) != withoutProfile(uri) || x.variant == nil {
		return fmt.Errorf("the hint named %s, then came %s", h.uri, uri)
	}
	x.swaps++
	if a := <-h.answer; a.err != nil || a.status != http.StatusNotFound {
		return fmt.Errorf("the hint named %s, then came %s: %d %w, want 404", h.uri, uri, a.status, a.err)
	}
	return nil
}

// withoutProfile cuts "{profile}.m4s" off.
func withoutProfile(uri string) string {
	name := strings.TrimSuffix(uri, ".m4s")
	return name[:strings.LastIndexByte(name, '.')+1]
}

// firstNewPart returns the URI of the part that came first after a playlist.
func firstNewPart(before, after *mediaPlaylist) string {
	sequence, part := before.next()
	s := after.find(sequence)
	if s == nil || part >= len(s.Parts) {
		return ""
	}
	return s.Parts[part].URI
}

// checkReports checks that each other rendition is reported once, and that no
// report is far from where this playlist is: all are cut at the same instants.
func (x *rendition) checkReports(m *mediaPlaylist) error {
	var want, got []string
	for _, other := range x.r.renditions {
		if other != x {
			want = append(want, other.url.String())
		}
	}
	last, _ := m.last()
	for _, report := range m.Reports {
		got = append(got, x.resolve(report.URI))
		if !x.r.lenient && (report.Sequence > last+2 || report.Sequence+2 < last) {
			return fmt.Errorf("%s is reported at %d.%d, this playlist ends with segment %d", report.URI, report.Sequence, report.Part, last)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return fmt.Errorf("rendition reports of %q, want %q", got, want)
	}
	return nil
}

func (x *rendition) resolve(uri string) string {
	u, err := x.url.Parse(uri)
	if err != nil {
		return uri
	}
	return u.String()
}

// collect fetches what a playlist lists and isn't here yet.
func (x *rendition) collect(ctx context.Context, m *mediaPlaylist) error {
	x.newest = m
	for i := range m.Segments {
		listed := m.Segments[i]
		if s := x.segments[listed.Sequence]; s != nil || listed.Gap {
			continue
		}
		if x.inits[listed.Map] == nil {
			data, err := x.fetch(ctx, listed.Map)
			if err != nil {
				return err
			}
			if x.inits[listed.Map], err = parseInit(data); err != nil {
				return fmt.Errorf("%s: %w", listed.Map, err)
			}
		}
		for _, p := range listed.Parts {
			if _, err := x.fetch(ctx, p.URI); err != nil && !p.Gap {
				return err
			}
		}
		if listed.open() {
			continue
		}
		s := &segment{listedSegment: listed, parts: listed.Parts}
		var err error
		if s.data, err = x.fetch(ctx, listed.URI); err != nil {
			return err
		}
		if err := x.checkMedia(s); err != nil {
			return fmt.Errorf("segment %d: %w", s.Sequence, err)
		}
		x.segments[listed.Sequence] = s
	}
	return nil
}

// fetch returns what is behind a URI of the playlist.
func (x *rendition) fetch(ctx context.Context, uri string) ([]byte, error) {
	if data := x.media[uri]; data != nil {
		return data, nil
	}
	address := x.resolve(uri)
	a, err := fetch(ctx, client, address)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK || len(a.body) == 0 {
		return nil, &statusError{address, a.status, string(a.body)}
	}
	x.media[uri] = a.body
	return a.body, nil
}
