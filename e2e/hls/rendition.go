package hls

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Rendition is what a reader knows of one rendition. It is owned by the
// reader's goroutine for it, and by the test once that has ended.
type Rendition struct {
	r       *Reader
	Name    string
	url     *url.URL
	variant *Variant // nil for audio beside video

	newest   *MediaPlaylist
	Segments map[uint64]*Segment
	Inits    map[string]*Track
	media    map[string][]byte // by URI
	Reloads  int
	Deltas   int          // delta updates that skipped something
	Hints    int          // hinted parts that came
	Swaps    int          // changes to another encoding, or back
	paused   bool         // an answer said that the publisher is away
	asked    atomic.Value // string: the newest request for a playlist, and what came
	err      error
}

// Codecs is what the multivariant playlist says of a variant; empty for audio
// beside video.
func (x *Rendition) Codecs() string {
	if x.variant == nil {
		return ""
	}
	return x.variant.Codecs
}

// Segment is a fetched segment.
type Segment struct {
	ListedSegment
	Data []byte
	// parts are those that were listed, all or none.
	parts   []ListedPart
	Samples []Sample
}

// Start is when the first sample is shown.
func (s *Segment) Start() int64 { return s.Samples[0].PTS }

// end is when the last sample is decoded and over.
func (s *Segment) end() int64 {
	last := s.Samples[len(s.Samples)-1]
	return last.DTS + last.duration
}

// read follows one rendition to its end.
func (x *Rendition) read(ctx context.Context) error {
	m, err := x.Load(ctx, "")
	if err != nil {
		return err
	}
	if err := x.refused(ctx, m); err != nil {
		return err
	}
	for {
		hint := x.ask(ctx, m)
		if err := x.Collect(ctx, m); err != nil {
			return err
		}
		if m.Ended {
			return nil
		}
		next, err := x.reload(ctx, m)
		if err != nil {
			return err
		}
		if err := CheckSuccessor(m, next); err != nil {
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

// Load fetches and parses the media playlist.
func (x *Rendition) Load(ctx context.Context, query string) (*MediaPlaylist, error) {
	address := x.url.String()
	if query != "" {
		address += "?" + query
	}
	x.asked.Store(fmt.Sprintf("asked for %s at %s", address, time.Now().Format("15:04:05.000")))
	a, err := Fetch(ctx, Client, address)
	if err != nil {
		return nil, err
	}
	x.asked.Store(fmt.Sprintf("asked for %s, and got %d by %s:\n%s", address, a.Status, time.Now().Format("15:04:05.000"), a.Body))
	if a.Status != http.StatusOK {
		return nil, &statusError{address, a.Status, string(a.Body)}
	}
	m, err := ParseMedia(string(a.Body))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w\n%s", address, err, a.Body)
	}
	return m, nil
}

// statusError is an answer other than 200.
type statusError struct {
	url    string
	status int
	body   string
}

// Error names the address, the status and the body.
func (e *statusError) Error() string { return fmt.Sprintf("GET %s: %d %s", e.url, e.status, e.body) }

// refused checks the directives that must be refused (6.2.5.2).
func (x *Rendition) refused(ctx context.Context, m *MediaPlaylist) error {
	sequence, _ := m.Next()
	for _, query := range []string{
		"_HLS_part=0", "_HLS_msn=x", "_HLS_msn=-1",
		fmt.Sprintf("_HLS_msn=%d", sequence+9), fmt.Sprintf("_HLS_msn=%d&_HLS_part=500", sequence+1),
	} {
		var status *statusError
		if _, err := x.Load(ctx, query); !errors.As(err, &status) || status.status != http.StatusBadRequest {
			return fmt.Errorf("%s?%s: %w, want 400", x.Name, query, err)
		}
	}
	return nil
}

// reload asks for the next part, now and then for the next segment, and every
// second time for a delta update.
func (x *Rendition) reload(ctx context.Context, m *MediaPlaylist) (*MediaPlaylist, error) {
	x.Reloads++
	sequence, part := m.Next()
	query := fmt.Sprintf("_HLS_msn=%d&_HLS_part=%d", sequence, part)
	whole := x.Reloads%15 == 7
	if whole {
		query = fmt.Sprintf("_HLS_msn=%d", sequence)
	}
	delta := x.Reloads%2 == 0
	if delta {
		query += "&_HLS_skip=YES"
	}
	next, err := x.Load(ctx, query)
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
		s := next.Find(sequence)
		there = s != nil && !s.Open()
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
func (x *Rendition) merge(ctx context.Context, m, delta *MediaPlaylist, query string) (*MediaPlaylist, error) {
	merged, err := delta.merge(m)
	if err != nil {
		return nil, err
	}
	x.Deltas++
	full, err := x.Load(ctx, strings.TrimSuffix(query, "&_HLS_skip=YES"))
	if err != nil {
		return nil, err
	}
	a, b := merged.last()
	if c, d := full.last(); a != c || b != d || full.Ended != merged.Ended || full.paused() != merged.paused() {
		return full, nil // something came in between
	}
	return full, checkMerged(merged, full)
}

// checkReports checks that each other rendition is reported once, and that no
// report is far from where this playlist is: all are cut at the same instants.
func (x *Rendition) checkReports(m *MediaPlaylist) error {
	var want, got []string
	for _, other := range x.r.Renditions {
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

func (x *Rendition) resolve(uri string) string {
	u, err := x.url.Parse(uri)
	if err != nil {
		return uri
	}
	return u.String()
}

// Collect fetches what a playlist lists and isn't here yet.
func (x *Rendition) Collect(ctx context.Context, m *MediaPlaylist) error {
	x.newest = m
	for i := range m.Segments {
		listed := m.Segments[i]
		if s := x.Segments[listed.Sequence]; s != nil || listed.Gap {
			continue
		}
		if x.Inits[listed.Map] == nil {
			data, err := x.fetch(ctx, listed.Map)
			if err != nil {
				return err
			}
			if x.Inits[listed.Map], err = ParseInit(data); err != nil {
				return fmt.Errorf("%s: %w", listed.Map, err)
			}
		}
		for _, p := range listed.Parts {
			if _, err := x.fetch(ctx, p.URI); err != nil && !p.Gap {
				return err
			}
		}
		if listed.Open() {
			continue
		}
		s := &Segment{ListedSegment: listed, parts: listed.Parts}
		var err error
		if s.Data, err = x.fetch(ctx, listed.URI); err != nil {
			return err
		}
		if err := x.checkMedia(s); err != nil {
			return fmt.Errorf("segment %d: %w", s.Sequence, err)
		}
		x.Segments[listed.Sequence] = s
	}
	return nil
}

// fetch returns what is behind a URI of the playlist.
func (x *Rendition) fetch(ctx context.Context, uri string) ([]byte, error) {
	if data := x.media[uri]; data != nil {
		return data, nil
	}
	address := x.resolve(uri)
	a, err := Fetch(ctx, Client, address)
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK || len(a.Body) == 0 {
		return nil, &statusError{address, a.Status, string(a.Body)}
	}
	x.media[uri] = a.Body
	return a.Body, nil
}

// Skip gives the oldest segment up that isn't here.
func (x *Rendition) Skip(m *MediaPlaylist) {
	for i := range m.Segments {
		if s := &m.Segments[i]; x.Segments[s.Sequence] == nil && !s.Gap {
			x.Segments[s.Sequence] = &Segment{ListedSegment: *s, Data: x.media[s.URI]}
			return
		}
	}
}
