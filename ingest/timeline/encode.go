package timeline

import (
	"fmt"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// encode returns an entry as the relay sends it. at is the time of those that
// have none themselves.
func encode(e Entry, at media.Ticks) ([]byte, error) {
	ms := uint32(at.Milliseconds())
	switch {
	case e.Mark != nil:
		return relay.AppendMark(nil, *e.Mark)
	case e.Settings != nil:
		return relay.AppendSettings(nil, at, *e.Settings)
	case e.Codec != nil && e.Codec.Format == media.H264:
		return media.AppendVideoConfigTag(nil, ms, e.Codec.Record), nil
	case e.Codec != nil && e.Codec.Format == media.AAC:
		return media.AppendAudioTag(nil, ms, true, e.Codec.Record), nil
	case e.Codec != nil:
		return nil, fmt.Errorf("%s can't be relayed", e.Codec.Format)
	}
	u := e.Unit
	ms = uint32(u.DTS.Milliseconds())
	if u.Track == media.Audio {
		return media.AppendAudioTag(make([]byte, 0, len(u.Payload)+17), ms, false, u.Payload), nil
	}
	tag := media.AccessUnit{Kind: u.Track, DTS: u.DTS, PTS: u.PTS, IDR: u.RandomAccess, Payload: u.Payload}
	return media.AppendVideoTag(make([]byte, 0, len(u.Payload)+20), ms, &tag), nil
}
