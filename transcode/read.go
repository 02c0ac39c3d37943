package transcode

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

// logEvent is one thing read from a broadcast's log: exactly one field is set.
type logEvent struct {
	mark     *relay.Mark
	settings *relay.Settings
	video    *media.AVCConfig
	audio    *media.AACConfig
	unit     *media.AccessUnit
}

// logReader reads the relay of one broadcast.
type logReader struct {
	client *http.Client
	body   io.ReadCloser
	r      *bufio.Reader
	newest media.Ticks // of the newest mark or access unit
}

// openLog starts to read at the mark that segment from must be decoded from.
func openLog(client *http.Client, req *http.Request) (*logReader, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read relay: %w", err)
	}
	if resp.StatusCode == http.StatusGone {
		_ = resp.Body.Close()
		oldest, _ := strconv.ParseUint(resp.Header.Get(relay.OldestHeader), 10, 64) // 0: not told
		return nil, &goneError{oldest}
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("read relay %s: %s: %s", req.URL.Path, resp.Status, text)
	}
	l := &logReader{client: client, body: resp.Body, r: bufio.NewReaderSize(resp.Body, 64<<10)}
	if err := media.ReadFLVHeader(l.r); err != nil {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("read relay: %w", err)
	}
	return l, nil
}

// goneError means that the log no longer reaches back so far: oldest is the
// first segment that it has.
type goneError struct{ oldest uint64 }

func (e *goneError) Error() string {
	return fmt.Sprintf("the log begins with segment %d by now", e.oldest)
}

// errLogEnded is returned by run when the relay ends in good order.
var errLogEnded = errors.New("the relay ended")

// run sends what the log says to out until it ends or ctx does.
func (l *logReader) run(ctx context.Context, out chan<- logEvent) error {
	defer l.body.Close()
	for {
		e, err := l.next()
		if errors.Is(err, io.EOF) {
			return errLogEnded
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
func (l *logReader) next() (logEvent, error) {
	for {
		t, err := media.ReadTag(l.r)
		if err != nil {
			return logEvent{}, err
		}
		e, ok, err := parseEvent(t, l.newest)
		if err != nil {
			return logEvent{}, err
		}
		if !ok {
			continue
		}
		switch {
		case e.mark != nil:
			l.newest = e.mark.Start
		case e.unit != nil:
			l.newest = e.unit.DTS
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

// parseEvent decodes one tag of the relay, which lies near a time; ok is false
// for foreign ones.
func parseEvent(t media.Tag, near media.Ticks) (e logEvent, ok bool, err error) {
	at := unwrap(t.Timestamp, near)
	switch t.Type {
	case media.TagScript:
		e.mark, e.settings, err = relay.ParseScript(t.Payload)
		if errors.Is(err, relay.ErrForeign) {
			return logEvent{}, false, nil
		}
		return e, err == nil, err
	case media.TagVideo:
		v, err := media.ParseVideoTag(t.Payload)
		if err != nil || len(v.Data) == 0 {
			return logEvent{}, false, err
		}
		if v.Config {
			e.video, err = media.ParseAVCConfig(v.Data)
			return e, err == nil, err
		}
		idr, err := media.ScanAVC(v.Data)
		if err != nil {
			return logEvent{}, false, err
		}
		e.unit = &media.AccessUnit{
			Kind: media.Video, DTS: at, PTS: at + media.Ticks(v.CompositionTime)*media.TicksPerMillisecond,
			IDR: idr, Payload: v.Data,
		}
		return e, true, nil
	case media.TagAudio:
		a, err := media.ParseAudioTag(t.Payload)
		if err != nil || len(a.Data) == 0 {
			return logEvent{}, false, err
		}
		if a.Config {
			e.audio, err = media.ParseAACConfig(a.Data)
			return e, err == nil, err
		}
		e.unit = &media.AccessUnit{Kind: media.Audio, DTS: at, PTS: at, Payload: a.Data}
		return e, true, nil
	}
	return logEvent{}, false, nil
}
