// Package logread reads the log of a broadcast from its ingest's relay.
package logread

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"millrace/internal/relay"
)

// Reader reads the relay of one broadcast.
type Reader struct {
	body io.ReadCloser
	log  *relay.Reader
}

// Open starts to read at the mark that segment from must be decoded from.
func Open(client *http.Client, req *http.Request) (*Reader, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read relay: %w", err)
	}
	if resp.StatusCode == http.StatusGone {
		_ = resp.Body.Close()
		oldest, _ := strconv.ParseUint(resp.Header.Get(relay.OldestHeader), 10, 64) // 0: not told
		return nil, &GoneError{oldest}
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("read relay %s: %s: %s", req.URL.Path, resp.Status, text)
	}
	return NewReader(resp.Body)
}

// NewReader reads the log that body holds. Run closes body.
func NewReader(body io.ReadCloser) (*Reader, error) {
	log, err := relay.NewReader(body)
	if err != nil {
		_ = body.Close()
		return nil, fmt.Errorf("read relay: %w", err)
	}
	return &Reader{body, log}, nil
}

// GoneError means that the log no longer reaches back so far: oldest is the
// first segment that it has.
type GoneError struct{ Oldest uint64 }

// Error says where the log begins.
func (e *GoneError) Error() string {
	return fmt.Sprintf("the log begins with segment %d by now", e.Oldest)
}

// ErrEnded is returned by run when the relay ends in good order.
var ErrEnded = errors.New("the relay ended")

// Run sends what the log says to out until it ends or ctx does.
func (l *Reader) Run(ctx context.Context, out chan<- relay.Entry) error {
	defer l.body.Close()
	for {
		e, err := l.log.Next()
		if errors.Is(err, io.EOF) {
			return ErrEnded
		}
		if err != nil {
			return fmt.Errorf("read relay: %w", err)
		}
		select {
		case out <- e:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
