package hls

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// hinted is a request for a hinted part.
type hinted struct {
	uri    string
	answer chan hintAnswer
}

type hintAnswer struct {
	Answer
	err error
}

// ask asks for the hinted part, before it exists.
func (x *Rendition) ask(ctx context.Context, m *MediaPlaylist) *hinted {
	if m.Hint == "" {
		return nil
	}
	h := &hinted{m.Hint, make(chan hintAnswer, 1)}
	address := x.resolve(m.Hint)
	go func() {
		a, err := Fetch(ctx, Client, address)
		h.answer <- hintAnswer{a, err}
	}()
	return h
}

func (x *Rendition) checkHint(before, after *MediaPlaylist, h *hinted) error {
	if h == nil {
		if !x.r.lenient && !after.Ended && !before.paused() && len(before.Segments) > 0 {
			return errors.New("no preload hint")
		}
		return nil
	}
	part := firstNewPart(before, after)
	if part == nil {
		return nil // nothing new: the end, or a pause
	}
	uri := part.URI
	if uri != h.uri {
		return x.checkWrongHint(h, uri)
	}
	if part.Gap {
		// What is listed as missing can't be had (4.4.4.9): a worker that showed another
		// rung's media died, and nobody goes on with that. Whether there may be a gap,
		// those say who compare what came.
		if a := <-h.answer; a.err != nil || a.Status != http.StatusNotFound {
			return fmt.Errorf("the hinted part %s is listed as missing: %d %w, want 404", h.uri, a.Status, a.err)
		}
		return nil
	}
	a := <-h.answer
	if x.r.lenient && (a.err != nil || a.Status != http.StatusOK) {
		return nil
	}
	if a.err != nil {
		return a.err
	}
	if a.Status != http.StatusOK {
		return fmt.Errorf("the hinted part %s: %d %s", h.uri, a.Status, a.Body)
	}
	x.Hints++
	x.media[uri] = a.Body
	return nil
}

// checkWrongHint takes the one hint that may be wrong: a rung that can't be
// encoded in time shows another one's media, which has another profile in its
// name. Nobody may be left waiting for what won't come.
func (x *Rendition) checkWrongHint(h *hinted, uri string) error {
	if x.r.lenient {
		return nil
	}
	if withoutProfile(h.uri) != withoutProfile(uri) || x.variant == nil {
		return fmt.Errorf("the hint named %s, then came %s", h.uri, uri)
	}
	x.Swaps++
	if a := <-h.answer; a.err != nil || a.Status != http.StatusNotFound {
		return fmt.Errorf("the hint named %s, then came %s: %d %w, want 404", h.uri, uri, a.Status, a.err)
	}
	return nil
}

// withoutProfile cuts "{profile}.m4s" off.
func withoutProfile(uri string) string {
	name := strings.TrimSuffix(uri, ".m4s")
	return name[:strings.LastIndexByte(name, '.')+1]
}

// firstNewPart returns the part that came first after a playlist, nil for none.
func firstNewPart(before, after *MediaPlaylist) *ListedPart {
	sequence, part := before.Next()
	s := after.Find(sequence)
	if s == nil || part >= len(s.Parts) {
		return nil
	}
	return &s.Parts[part]
}
