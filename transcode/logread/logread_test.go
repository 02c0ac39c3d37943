package logread

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// A log that ends in good order is told from one that is cut, and from one that
// isn't there.
func TestRun(t *testing.T) {
	whole := relay.Header()
	for _, e := range []relay.Entry{
		{Settings: &relay.Settings{PartTarget: 1, Audio: true}}, {Codec: media.StereoAAC()},
		{Unit: &media.Unit{Track: media.Audio, DTS: 90, PTS: 90, Payload: []byte("sound")}},
	} {
		var err error
		if whole, err = e.Append(whole); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		status int
		body   []byte
		want   error
		events int
	}{
		{"whole", http.StatusOK, whole, ErrEnded, 3},
		{"cut in an entry", http.StatusOK, whole[:len(whole)-1], io.ErrUnexpectedEOF, 2},
		{"no log", http.StatusOK, []byte("<html></html>"), nil, 0},
		{"gone", http.StatusGone, nil, nil, 0},
		{"not there", http.StatusNotFound, []byte("no such broadcast"), nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(relay.OldestHeader, strconv.Itoa(7))
				w.WriteHeader(c.status)
				_, _ = w.Write(c.body)
			}))
			defer server.Close()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			l, err := Open(client, req)
			if c.want == nil {
				var gone *GoneError
				if err == nil || errors.As(err, &gone) != (c.status == http.StatusGone) || gone != nil && gone.Oldest != 7 {
					t.Errorf("gave %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			out := make(chan relay.Entry, 8)
			if err := l.Run(t.Context(), out); !errors.Is(err, c.want) || len(out) != c.events {
				t.Errorf("ended with %v after %d entries", err, len(out))
			}
		})
	}
}

// Whoever doesn't take entries any more ends the reading.
func TestRunEndsWithItsContext(t *testing.T) {
	body, err := relay.Entry{Codec: media.StereoAAC()}.Append(relay.Header())
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	go func() { _, _ = w.Write(body) }()
	l, err := NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx, make(chan relay.Entry)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := w.Write(body); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the body isn't closed: %v", err)
	}
}
