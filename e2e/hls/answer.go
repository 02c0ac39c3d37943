package hls

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// Client is for all requests of the tests.
var Client = &http.Client{
	Timeout:   time.Minute,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second},
}

// Answer is a response with its whole body.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Proto  string
}

// Fetch is a GET whose body is read.
func Fetch(ctx context.Context, c *http.Client, url string, header ...string) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("GET %s: %w", url, err)
	}
	return Answer{resp.StatusCode, resp.Header, body, resp.Proto}, nil
}

// Get fetches what must be there.
func Get(t testing.TB, url string, header ...string) Answer {
	t.Helper()
	a, err := Fetch(t.Context(), Client, url, header...)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", url, a.Status, a.Body)
	}
	return a
}

// MediaOf fetches a media playlist; it must be there soon.
func MediaOf(t testing.TB, address string) *MediaPlaylist {
	t.Helper()
	text := awaitPlaylist(t, address)
	m, err := ParseMedia(text)
	if err != nil {
		t.Fatalf("GET %s: %v\n%s", address, err, text)
	}
	return m
}
