package timeline

import (
	"encoding/binary"
	"testing"
	"time"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// FuzzBroadcast gives publishers of one broadcast any tags at any times: configurations, frames,
// metadata, disconnects. However odd, the log that comes of it keeps its order, and no tag makes
// more of it than a gap's silence.
func FuzzBroadcast(f *testing.F) {
	f.Add(script(avcTags(0, 90, 33), 33))
	f.Add(script(avcTags(0xffff00, 60, 40), 40))
	f.Add(script(avcTags(0xfffff000, 60, 17), 17))
	f.Fuzz(func(t *testing.T, b []byte) {
		var entries []Entry
		s := NewSequencer(1, func(e Entry) { entries = append(entries, e) })
		s.Attach(false)
		f := feeder{seq: s}
		now := time.Unix(1_800_000_000, 0)
		for steps := 0; len(b) >= 8 && steps < 5000; steps++ {
			kind, at, n := b[0], binary.BigEndian.Uint32(b[1:]), int(b[5])<<8|int(b[6])
			now = now.Add(time.Duration(b[7]) * time.Millisecond)
			b = b[8:]
			n = min(n, len(b))
			payload := b[:n]
			b = b[n:]
			before := len(entries)
			f.tag(kind, at, payload, now)
			if made := len(entries) - before; made > 2*maxGather+2*maxFill {
				t.Fatalf("one tag made %d entries", made)
			}
		}
		s.Finish()
		checkOrder(t, entries)
	})
}

// feeder gives a sequencer what a publisher's FLV tags hold.
type feeder struct {
	seq  *Sequencer
	raw  uint32
	time media.Ticks // of raw, unwrapped
}

func (f *feeder) tag(kind byte, at uint32, payload []byte, now time.Time) {
	s := f.seq
	f.time += media.Ticks(int32(at-f.raw)) * media.TicksPerMillisecond
	f.raw = at
	switch kind {
	case media.TagVideo:
		tag, err := media.ParseVideoTag(payload)
		switch {
		case err != nil || !s.Has(media.Video):
		case tag.Config:
			f.codec(media.H264, tag.Data)
		case s.video != nil && len(tag.Data) > 0 && tag.CompositionTime <= 10_000 && tag.CompositionTime >= -10_000:
			if key, err := s.video.RandomAccess(tag.Data); err == nil {
				s.Push(media.Unit{
					Track: media.Video, DTS: f.time, PTS: f.time + media.Ticks(tag.CompositionTime)*media.TicksPerMillisecond,
					RandomAccess: key, Payload: tag.Data,
				}, now)
			}
		}
	case media.TagAudio:
		tag, err := media.ParseAudioTag(payload)
		switch {
		case err != nil || !s.Has(media.Audio):
		case tag.Config:
			f.codec(media.AAC, tag.Data)
		case s.audio != nil && len(tag.Data) > 0:
			s.Push(media.Unit{Track: media.Audio, DTS: f.time, PTS: f.time, RandomAccess: true, Payload: tag.Data}, now)
		}
	case media.TagScript: // the publisher is lost, and another one comes
		s.Pause()
		s.Attach(true)
	}
}

func (f *feeder) codec(of media.Format, record []byte) {
	if c, err := media.ParseCodec(of, record); err == nil {
		f.seq.SetCodec(c)
	}
}

// checkOrder checks what every reader of a log relies on, whatever was published.
func checkOrder(t *testing.T, entries []Entry) {
	t.Helper()
	var last *relay.Mark
	var dts [3]media.Ticks
	for i, e := range entries {
		switch {
		case e.Unit != nil:
			if e.Unit.DTS <= dts[e.Unit.Track] {
				t.Fatalf("entry %d: %v at %d follows %d", i, e.Unit.Track, e.Unit.DTS, dts[e.Unit.Track])
			}
			dts[e.Unit.Track] = e.Unit.DTS
		case e.Mark != nil:
			m := e.Mark
			if last != nil && (m.Sequence < last.Sequence || m.Sequence > last.Sequence+1 || m.Start < last.Start || m.Time.Before(last.Time) ||
				m.Discontinuity < last.Discontinuity || m.Discontinuity > last.Discontinuity+1 || m.DecodeFrom > m.Sequence) {
				t.Fatalf("entry %d: %+v follows %+v", i, m, last)
			}
			last = m
		}
	}
}

// script writes tags as FuzzBroadcast reads them, each so many milliseconds of our clock after
// the one before.
func script(tags []media.Tag, every byte) (b []byte) {
	for _, m := range tags {
		b = append(b, m.Type)
		b = binary.BigEndian.AppendUint32(b, m.Timestamp)
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.Payload)))
		b = append(append(b, every), m.Payload...)
	}
	return b
}

// avcTags are the configurations, then frames of a picture and sound each, from a timestamp on.
func avcTags(from uint32, frames int, step uint32) (tags []media.Tag) {
	record := []byte{1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x82, 0x59, 0x10, 0x08, 1, 0, 4, 0x68, 0xce, 0x38, 0x80}
	tags = append(tags,
		media.Tag{Type: media.TagVideo, Timestamp: from, Payload: append([]byte{0x17, 0, 0, 0, 0}, record...)},
		media.Tag{Type: media.TagAudio, Timestamp: from, Payload: []byte{0xaf, 0, 0x11, 0x90}})
	for i := range uint32(frames) {
		nal := byte(0x41)
		if i%30 == 0 {
			nal = 0x65
		}
		tags = append(tags,
			media.Tag{Type: media.TagVideo, Timestamp: from + i*step, Payload: []byte{0x27, 1, 0, 0, 0, 0, 0, 0, 2, nal, byte(i)}},
			media.Tag{Type: media.TagAudio, Timestamp: from + i*step, Payload: []byte{0xaf, 1, 0x21, byte(i)}})
	}
	return tags
}
