package media_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

// clipSets are the parameter sets of a clip's record, and nalus the NAL units of
// a sample.
func clipSets(t testing.TB, record []byte) *media.ParameterSets {
	t.Helper()
	sets := &media.ParameterSets{}
	n := int(binary.BigEndian.Uint16(record[6:]))
	sps, err := media.ParseSPS(record[8 : 8+n])
	if err != nil {
		t.Fatal(err)
	}
	rest := record[8+n+1:]
	pps, err := media.ParsePPS(rest[2 : 2+int(binary.BigEndian.Uint16(rest))])
	if err != nil {
		t.Fatal(err)
	}
	sets.SPS[sps.ID], sets.PPS[pps.ID] = sps, pps
	return sets
}

func nalus(sample []byte) (list [][]byte) {
	for len(sample) > 4 {
		n := int(binary.BigEndian.Uint32(sample))
		list, sample = append(list, sample[4:4+n]), sample[4+n:]
	}
	return list
}

// The headers of what x264 encodes tell its pictures apart, with B-frames too.
func TestSlices(t *testing.T) {
	video, _ := mediatest.Clip(t, "h264-opus")
	sets := clipSets(t, video.Codec.Record)
	var last *media.Slice
	references := 0
	for i, u := range video.Units {
		for _, nalu := range nalus(u.Payload) {
			if kind := nalu[0] & 0x1f; kind != media.H264Slice && kind != media.H264IDR {
				continue
			}
			s, err := media.ParseSlice(nalu, sets)
			if err != nil {
				t.Fatalf("unit %d: %v", i, err)
			}
			if s.IDR != (i == 0) || s.Intra != (i == 0) || s.FirstMB != 0 || s.Field {
				t.Errorf("unit %d: %+v", i, s)
			}
			if last != nil && last.SamePicture(&s) || !s.SamePicture(&s) {
				t.Errorf("unit %d can't be told from the one before: %+v, %+v", i, last, s)
			}
			if s.Reference {
				references++
			}
			last = &s
		}
	}
	if last == nil || references == 0 || references == len(video.Units) {
		t.Errorf("%d of %d pictures are referred to", references, len(video.Units))
	}
	if _, err := media.ParseSlice(nalus(video.Units[1].Payload)[0], &media.ParameterSets{}); !errors.Is(err, media.ErrNoParameterSet) {
		t.Errorf("without parameter sets: %v", err)
	}
	if _, err := media.ParseSlice([]byte{0x41, 0x9a}, sets); err == nil {
		t.Error("two bytes are taken for a slice")
	}
}

func TestRecoveryPoint(t *testing.T) {
	for _, c := range []struct {
		name   string
		sei    string
		frames int
		ok     bool
	}{
		{"x264's, with intra refresh", "\x06\x06\x02\x80\xc0\x80", 0, true},
		{"after 14 frames", "\x06\x06\x03\x1e\x40\x40\x80", 14, true},
		{"behind another message", "\x06\x05\x03abc\x06\x01\xc4\x80", 0, true},
		{"behind one of 300 bytes", "\x06\x05\xff\x2d" + string(make([]byte, 300)) + "\x06\x01\xc4\x80", 0, true},
		{"another message", "\x06\x05\x03abc\x80", 0, false},
		{"cut short", "\x06\x06\x20\x80", 0, false},
		{"nothing", "\x06", 0, false},
	} {
		if frames, ok := media.RecoveryPoint([]byte(c.sei)); frames != c.frames || ok != c.ok {
			t.Errorf("%s: %d, %v, want %d, %v", c.name, frames, ok, c.frames, c.ok)
		}
	}
}
