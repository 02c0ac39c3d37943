// Package logread reads the log of a broadcast from its ingest's relay.
package logread

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// Event is one thing read from a broadcast's log: exactly one field is set.
type Event struct {
	Mark     *relay.Mark
	Settings *relay.Settings
	Video    *media.AVCConfig
	Audio    *media.AACConfig
	Unit     *media.AccessUnit
}

// Reader reads the relay of one broadcast.
type Reader struct {
	body   io.ReadCloser
	r      *bufio.Reader
	newest media.Ticks // of the newest mark or access unit
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
	l := NewReader(resp.Body)
	if err := media.ReadFLVHeader(l.r); err != nil {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("read relay: %w", err)
	}
	return l, nil
}

// NewReader reads a log from after its FLV header on. run closes body.
func NewReader(body io.ReadCloser) *Reader {
	return &Reader{body: body, r: bufio.NewReaderSize(body, 64<<10)}
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
func (l *Reader) Run(ctx context.Context, out chan<- Event) error {
	defer l.body.Close()
	for {
		e, err := l.next()
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

// next returns the next event, skipping tags that say nothing to us.
func (l *Reader) next() (Event, error) {
	for {
		t, err := media.ReadTag(l.r)
		if err != nil {
			return Event{}, err
		}
		e, ok, err := Parse(t, l.newest)
		if err != nil {
			return Event{}, err
		}
		if !ok {
			continue
		}
		switch {
		case e.Mark != nil:
			l.newest = e.Mark.Start
		case e.Unit != nil:
			l.newest = e.Unit.DTS
		}
		return e, nil
	}
}

// unwrap returns the time that an FLV timestamp means, of those that are 2^32 ms
// (49.7 days) apart the one nearest to another time of the log.
func unwrap(timestamp uint32, near media.Ticks) media.Ticks {
	ms := near.Milliseconds()
	return media.Ticks(ms+int64(int32(timestamp-uint32(ms)))) * media.TicksPerMillisecond
}

// Parse decodes one tag of the relay, which lies near a time; ok is false
// for foreign ones.
func Parse(t media.Tag, near media.Ticks) (e Event, ok bool, err error) {
	at := unwrap(t.Timestamp, near)
	switch t.Type {
	case media.TagScript:
		e.Mark, e.Settings, err = relay.ParseScript(t.Payload)
		if errors.Is(err, relay.ErrForeign) {
			return Event{}, false, nil
		}
		return e, err == nil, err
	case media.TagVideo:
		v, err := media.ParseVideoTag(t.Payload)
		if err != nil || len(v.Data) == 0 {
			return Event{}, false, err
		}
		if v.Config {
			e.Video, err = media.ParseAVCConfig(v.Data)
			return e, err == nil, err
		}
		idr, err := media.ScanAVC(v.Data)
		if err != nil {
			return Event{}, false, err
		}
		e.Unit = &media.AccessUnit{
			Kind: media.Video, DTS: at, PTS: at + media.Ticks(v.CompositionTime)*media.TicksPerMillisecond,
			IDR: idr, Payload: v.Data,
		}
		return e, true, nil
	case media.TagAudio:
		a, err := media.ParseAudioTag(t.Payload)
		if err != nil || len(a.Data) == 0 {
			return Event{}, false, err
		}
		if a.Config {
			e.Audio, err = media.ParseAACConfig(a.Data)
			return e, err == nil, err
		}
		e.Unit = &media.AccessUnit{Kind: media.Audio, DTS: at, PTS: at, Payload: a.Data}
		return e, true, nil
	}
	return Event{}, false, nil
}
