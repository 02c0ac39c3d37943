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
		var entries []relay.Entry
		s := NewSequencer(1, func(e relay.Entry) { entries = append(entries, e) })
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

// Types of FLV tags, as the corpus has them (Adobe FLV 10.1, E.4.1).
const (
	tagAudio  = 8
	tagVideo  = 9
	tagScript = 18
)

// tag is a legacy FLV tag of H.264 or AAC.
type tag struct {
	kind      byte
	timestamp uint32
	payload   []byte
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
	case tagVideo:
		if len(payload) < 5 || payload[0]&0x8f != 7 || payload[0]>>4 == 5 || !s.Has(media.Video) {
			return
		}
		// PTS - DTS is SI24, in milliseconds.
		composition := media.Ticks(int32(uint32(payload[2])<<24|uint32(payload[3])<<16|uint32(payload[4])<<8)>>8) * media.TicksPerMillisecond
		data := payload[5:]
		switch {
		case payload[1] == 0:
			f.codec(media.H264, data)
		case payload[1] == 1 && s.video != nil && composition <= MaxComposition && composition >= -MaxComposition:
			if key, err := s.video.RandomAccess(data); err == nil {
				s.Push(media.Unit{Track: media.Video, DTS: f.time, PTS: f.time + composition, RandomAccess: key, Payload: data}, now)
			}
		}
	case tagAudio:
		switch {
		case len(payload) < 3 || payload[0]>>4 != 10 || !s.Has(media.Audio):
		case payload[1] == 0:
			f.codec(media.AAC, payload[2:])
		case payload[1] == 1 && s.audio != nil:
			s.Push(media.Unit{Track: media.Audio, DTS: f.time, PTS: f.time, RandomAccess: true, Payload: payload[2:]}, now)
		}
	case tagScript: // the publisher is lost, and another one comes
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
func checkOrder(t *testing.T, entries []relay.Entry) {
	t.Helper()
	var last *relay.Mark
	var dts [3]media.Ticks
	for i, e := range entries {
		switch {
		case e.Unit != nil && e.Unit.Preroll: // decoded again, in the past
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
func script(tags []tag, every byte) (b []byte) {
	for _, m := range tags {
		b = append(b, m.kind)
		b = binary.BigEndian.AppendUint32(b, m.timestamp)
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.payload)))
		b = append(append(b, every), m.payload...)
	}
	return b
}

// smallRecord configures H.264.
var smallRecord = []byte{1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x82, 0x59, 0x10, 0x08, 1, 0, 4, 0x68, 0xce, 0x38, 0x80}

// avcTags are the configurations, then frames of a picture and sound each, from a timestamp on.
func avcTags(from uint32, frames int, step uint32) (tags []tag) {
	tags = append(tags,
		tag{kind: tagVideo, timestamp: from, payload: append([]byte{0x17, 0, 0, 0, 0}, smallRecord...)},
		tag{kind: tagAudio, timestamp: from, payload: []byte{0xaf, 0, 0x11, 0x90}})
	for i := range uint32(frames) {
		nal := byte(0x41)
		if i%30 == 0 {
			nal = 0x65
		}
		tags = append(tags,
			tag{kind: tagVideo, timestamp: from + i*step, payload: []byte{0x27, 1, 0, 0, 0, 0, 0, 0, 2, nal, byte(i)}},
			tag{kind: tagAudio, timestamp: from + i*step, payload: []byte{0xaf, 1, 0x21, byte(i)}})
	}
	return tags
}
