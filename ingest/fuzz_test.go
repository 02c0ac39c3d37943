package ingest

import (
	"encoding/binary"
	"testing"
	"time"
	"unicode/utf8"

	"millrace/internal/media"
	"millrace/internal/relay"
)

// FuzzReadAMF reads what an encoder may send as a command or metadata. What is read is bounded,
// and what can be written again is read as the same.
func FuzzReadAMF(f *testing.F) {
	for _, b := range [][]byte{
		hugeArray, deepNest[:100], hiddenArray, objectForName,
		appendAMF(nil, "connect", 1.0, amfProperties{{"app", "live"}, {"flashVer", "FMLE/3.0"}}),
		appendAMF(nil, "publish", 3.0, nil, "s3cret", "live"),
		{amfDate, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {amfLongString, 0, 0, 0, 1, 0xff}, {amfECMAArray, 0, 0, 0, 9, 0, 0, amfObjectEnd},
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := readAMF(b)
		if err != nil {
			return
		}
		if n := countValues(t, values, 0); n > maxAMFValues {
			t.Fatalf("%d values were read", n)
		}
		for _, v := range values {
			switch v.(type) {
			case string, float64, nil:
			default:
				continue
			}
			if s, ok := v.(string); ok && len(s) > 0xffff {
				continue
			}
			again, err := readAMF(appendAMF(nil, v))
			if err != nil || len(again) != 1 || again[0] != v && v == v { // NaN differs from itself
				t.Fatalf("%v became %v, %v", v, again, err)
			}
		}
	})
}

func countValues(t *testing.T, values []any, depth int) int {
	if depth > maxAMFDepth {
		t.Fatalf("values nest %d deep", depth)
	}
	n := len(values)
	for _, v := range values {
		switch v := v.(type) {
		case string:
			if !utf8.ValidString(v) {
				t.Fatalf("%q isn't UTF-8", v)
			}
		case []any:
			n += countValues(t, v, depth+1)
		case map[string]any:
			for _, inner := range v {
				n += countValues(t, []any{inner}, depth+1)
			}
		}
	}
	return n
}

// FuzzBroadcast gives publishers of one broadcast any tags at any times: configurations, frames,
// metadata, disconnects. However odd, the log that comes of it keeps its order, and no tag makes
// more of it than a gap's silence.
func FuzzBroadcast(f *testing.F) {
	f.Add(script(avcTags(0, 90, 33), 33))
	f.Add(script(avcTags(0xffff00, 60, 40), 40))
	f.Add(script(avcTags(0xfffff000, 60, 17), 17))
	f.Fuzz(func(t *testing.T, b []byte) {
		var entries []entry
		s := newSequencer(1, func(e entry) { entries = append(entries, e) })
		s.attach(false)
		now := time.Unix(1_800_000_000, 0)
		for steps := 0; len(b) >= 8 && steps < 5000; steps++ {
			kind, at, n := b[0], binary.BigEndian.Uint32(b[1:]), int(b[5])<<8|int(b[6])
			now = now.Add(time.Duration(b[7]) * time.Millisecond)
			b = b[8:]
			n = min(n, len(b))
			payload := b[:n]
			b = b[n:]
			before := len(entries)
			fuzzTag(s, kind, at, payload, now)
			if made := len(entries) - before; made > 2*maxGather+2*maxFill {
				t.Fatalf("one tag made %d entries", made)
			}
		}
		s.finish()
		checkOrder(t, entries)
	})
}

// fuzzTag does with one tag what a publisher does.
func fuzzTag(s *sequencer, kind byte, at uint32, payload []byte, now time.Time) {
	switch kind {
	case typeVideo:
		tag, err := media.ParseVideoTag(payload)
		switch {
		case err != nil || s.settled && !s.settings.Video:
		case tag.Config:
			if c, err := media.ParseAVCConfig(tag.Data); err == nil {
				s.setVideo(c)
			}
		case s.video != nil && len(tag.Data) > 0 && tag.CompositionTime <= maxComposition && tag.CompositionTime >= -maxComposition:
			if idr, err := media.ScanAVC(tag.Data); err == nil {
				s.pushVideo(at, media.Ticks(tag.CompositionTime)*media.TicksPerMillisecond, idr, tag.Data, now)
			}
		}
	case typeAudio:
		tag, err := media.ParseAudioTag(payload)
		switch {
		case err != nil || s.settled && !s.settings.Audio:
		case tag.Config:
			if c, err := media.ParseAACConfig(tag.Data); err == nil {
				s.setAudio(c)
			}
		case s.audio != nil && len(tag.Data) > 0:
			s.pushAudio(at, tag.Data, now)
		}
	case typeDataAMF0: // the publisher is lost, and another one comes
		s.pause()
		s.attach(true)
	}
}

// checkOrder checks what every reader of a log relies on, whatever was published.
func checkOrder(t *testing.T, entries []entry) {
	t.Helper()
	var last *relay.Mark
	var dts [3]media.Ticks
	for i, e := range entries {
		switch {
		case e.unit != nil:
			if e.unit.DTS <= dts[e.unit.Kind] {
				t.Fatalf("entry %d: %v at %d follows %d", i, e.unit.Kind, e.unit.DTS, dts[e.unit.Kind])
			}
			dts[e.unit.Kind] = e.unit.DTS
		case e.mark != nil:
			m := e.mark
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
func script(tags []rtmpMessage, every byte) (b []byte) {
	for _, m := range tags {
		b = append(b, m.kind)
		b = binary.BigEndian.AppendUint32(b, m.timestamp)
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.payload)))
		b = append(append(b, every), m.payload...)
	}
	return b
}

// avcTags are the configurations, then frames of a picture and sound each, from a timestamp on.
func avcTags(from uint32, frames int, step uint32) (tags []rtmpMessage) {
	record := []byte{1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x82, 0x59, 0x10, 0x08, 1, 0, 4, 0x68, 0xce, 0x38, 0x80}
	tags = append(tags,
		rtmpMessage{kind: typeVideo, timestamp: from, payload: append([]byte{0x17, 0, 0, 0, 0}, record...)},
		rtmpMessage{kind: typeAudio, timestamp: from, payload: []byte{0xaf, 0, 0x11, 0x90}})
	for i := range uint32(frames) {
		nal := byte(0x41)
		if i%30 == 0 {
			nal = 0x65
		}
		tags = append(tags,
			rtmpMessage{kind: typeVideo, timestamp: from + i*step, payload: []byte{0x27, 1, 0, 0, 0, 0, 0, 0, 2, nal, byte(i)}},
			rtmpMessage{kind: typeAudio, timestamp: from + i*step, payload: []byte{0xaf, 1, 0x21, byte(i)}})
	}
	return tags
}
