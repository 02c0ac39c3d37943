package logread

import (
	"errors"
	"io"

	"millrace/internal/flv"
	"millrace/internal/media"
	"millrace/internal/relay"
)

// flvLog reads the log's earlier form, FLV in which marks and settings are
// script data, until no ingest writes it.
type flvLog struct {
	r      io.Reader
	video  *media.Codec
	newest media.Ticks // of the newest mark or access unit
}

// Next returns the next entry, skipping tags that say nothing to us.
func (l *flvLog) Next() (relay.Entry, error) {
	for {
		t, err := flv.ReadTag(l.r)
		if err != nil {
			return relay.Entry{}, err
		}
		e, ok, err := l.parse(t)
		if err != nil {
			return relay.Entry{}, err
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

// parse decodes one tag; ok is false for foreign ones.
func (l *flvLog) parse(t flv.Tag) (e relay.Entry, ok bool, err error) {
	at := unwrap(t.Timestamp, l.newest)
	switch t.Type {
	case flv.TagScript:
		e.Mark, e.Settings, err = relay.ParseScript(t.Payload)
		if errors.Is(err, relay.ErrForeign) {
			return relay.Entry{}, false, nil
		}
		return e, err == nil, err
	case flv.TagVideo:
		v, err := flv.ParseVideo(t.Payload)
		switch {
		case err != nil:
			return e, false, err
		case v.Kind == flv.Config:
			e.Codec, err = media.ParseCodec(v.Format, v.Data)
			l.video = e.Codec
			return e, err == nil, err
		case v.Kind == flv.Frame && l.video != nil:
			e.Unit = &media.Unit{Track: media.Video, DTS: at, PTS: at + v.Composition, Payload: v.Data}
			e.Unit.RandomAccess, err = l.video.RandomAccess(v.Data)
			return e, err == nil, err
		}
	case flv.TagAudio:
		a, err := flv.ParseAudio(t.Payload)
		switch {
		case err != nil:
			return e, false, err
		case a.Kind == flv.Config:
			e.Codec, err = media.ParseCodec(a.Format, a.Data)
			return e, err == nil, err
		case a.Kind == flv.Frame:
			e.Unit = &media.Unit{Track: media.Audio, DTS: at, PTS: at, RandomAccess: true, Payload: a.Data}
			return e, true, nil
		}
	}
	return relay.Entry{}, false, nil
}
