//go:build chaos

package chaos

import (
	"fmt"
	"math"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// shown is a media playlist at an edge.
type shown struct {
	*hls.MediaPlaylist
	url *url.URL
}

// media loads a channel's media playlists from an edge, by rendition.
func (c *trial) media(e *harness.Server, channel string) (map[string]shown, error) {
	at, err := url.Parse(e.Playlist(channel))
	if err != nil {
		return nil, err
	}
	text, err := c.load(at)
	if err != nil {
		return nil, err
	}
	main, err := hls.ParseMultivariant(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", channel, err)
	}
	// At once: an edge without news answers after a while.
	var mu sync.Mutex
	var group sync.WaitGroup
	lists, failed := make(map[string]shown), error(nil)
	for _, uri := range main.Renditions() {
		group.Go(func() {
			at, err := at.Parse(uri)
			text, m := "", (*hls.MediaPlaylist)(nil)
			if err == nil {
				text, err = c.load(at)
			}
			if err == nil {
				m, err = hls.ParseMedia(text)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = fmt.Errorf("%s: %w", uri, err)
				return
			}
			lists[path.Base(path.Dir(at.Path))] = shown{m, at}
		})
	}
	group.Wait()
	return lists, failed
}

// load returns what an edge has under an address.
func (c *trial) load(at *url.URL) (string, error) {
	a, err := hls.Fetch(c.t.Context(), hls.Client, at.String())
	if err == nil && a.Status != 200 {
		err = fmt.Errorf("GET %s: %d %.200s", at, a.Status, a.Body)
	}
	return string(a.Body), err
}

// loadSegment checks that a listed segment can be had.
func (c *trial) loadSegment(m shown, s *hls.ListedSegment) error {
	at, err := m.url.Parse(s.URI)
	if err == nil {
		_, err = c.load(at)
	}
	return err
}

// profileOf is the profile in a segment's address: epoch.sequence.profile.m4s.
func profileOf(s *hls.ListedSegment) string {
	fields := strings.Split(path.Base(s.URI), ".")
	if len(fields) != 4 {
		return ""
	}
	return fields[2]
}

// profiles are those of a channel's newest segment that all renditions list.
func (c *trial) profiles(channel string) (map[string]string, error) {
	lists, err := c.media(c.edges[0], channel)
	if err != nil {
		return nil, err
	}
	newest := uint64(math.MaxUint64)
	for _, m := range lists {
		sequence, _ := m.Next()
		newest = min(newest, sequence-1)
	}
	found := make(map[string]string)
	for rendition, m := range lists {
		s := m.Find(newest)
		if s == nil || s.Open() {
			return nil, fmt.Errorf("%s doesn't list segment %d of %s", channel, newest, rendition)
		}
		found[rendition] = profileOf(s)
	}
	return found, nil
}

// sourceGoesOn checks that a channel's source rendition is live.
func (c *trial) sourceGoesOn(channel string) {
	c.t.Helper()
	lists, err := c.media(c.edges[0], channel)
	if err != nil {
		c.problem("%s: %v", channel, err)
		return
	}
	m, ok := lists["source"]
	if !ok || len(m.Segments) == 0 {
		c.problem("%s has no source", channel)
		return
	}
	last := m.Segments[len(m.Segments)-1]
	end := last.Time
	for _, p := range last.Parts {
		end = end.Add(time.Duration(p.Duration * float64(time.Second)))
	}
	if late := time.Since(end); late > 3*time.Second {
		c.problem("%s: the source's newest part ended %.1f s ago", channel, late.Seconds())
	}
}
