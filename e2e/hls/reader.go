package hls

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"sync"
	"testing"
	"time"
)

// Reader follows one broadcast as a low-latency player does, in all renditions
// at once. It fetches all that the playlists list and takes nothing on trust.
type Reader struct {
	t testing.TB
	// lenient is set where workers or publishers are expected to die: hints may
	// fail, reloads may come back unchanged, parts may be unknown.
	lenient bool

	main       *Multivariant
	Renditions []*Rendition
	done       chan struct{}
}

// Open waits for a channel to be live, and returns a reader that knows the
// broadcast's renditions and has read nothing of them.
func Open(t testing.TB, address string, lenient bool) *Reader {
	t.Helper()
	r := &Reader{t: t, lenient: lenient, done: make(chan struct{})}
	text := awaitPlaylist(t, address)
	var err error
	if r.main, err = ParseMultivariant(text); err != nil {
		t.Fatalf("multivariant playlist: %v\n%s", err, text)
	}
	base, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	for i, uri := range r.main.Renditions() {
		at, err := base.Parse(uri)
		if err != nil {
			t.Fatalf("multivariant playlist: %v", err)
		}
		x := &Rendition{
			r: r, Name: path.Base(path.Dir(at.Path)), url: at,
			Segments: make(map[uint64]*Segment), Inits: make(map[string]*Track), media: make(map[string][]byte),
		}
		if i < len(r.main.Variants) {
			x.variant = &r.main.Variants[i]
		}
		r.Renditions = append(r.Renditions, x)
	}
	return r
}

// awaitPlaylist fetches a playlist that is there soon.
func awaitPlaylist(t testing.TB, address string) string {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		a, err := Fetch(t.Context(), Client, address)
		if err == nil && a.Status == http.StatusOK {
			return string(a.Body)
		}
		if time.Now().After(end) {
			t.Fatalf("GET %s: %v %d %s", address, err, a.Status, a.Body)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Follow waits for a channel to be live and reads the broadcast to its end.
func Follow(t testing.TB, address string, lenient bool) *Reader {
	t.Helper()
	r := Open(t, address, lenient)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, x := range r.Renditions {
		group.Go(func() {
			if x.err = x.read(ctx); x.err != nil {
				x.err = fmt.Errorf("%s, reload %d: %w", x.Name, x.Reloads, x.err)
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

// Wait waits until all renditions have come to their end.
func (r *Reader) Wait(limit time.Duration) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(limit):
		for _, x := range r.Renditions {
			r.t.Logf("%s: %v", x.Name, x.asked.Load())
		}
		r.t.Fatalf("the broadcast hasn't ended after %s", limit)
	}
	for _, x := range r.Renditions {
		if x.err != nil {
			r.t.Error(x.err)
		}
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// Rendition returns one by name.
func (r *Reader) Rendition(name string) *Rendition {
	r.t.Helper()
	for _, x := range r.Renditions {
		if x.Name == name {
			return x
		}
	}
	r.t.Fatalf("there is no rendition %q", name)
	return nil
}

// Names are those of the renditions, sorted.
func (r *Reader) Names() []string {
	var list []string
	for _, x := range r.Renditions {
		list = append(list, x.Name)
	}
	slices.Sort(list)
	return list
}
