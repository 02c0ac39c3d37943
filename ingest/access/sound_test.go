package access

import (
	"bytes"
	"slices"
	"testing"

	"millrace/ingest/front"
	"millrace/internal/media"
)

func aac(t testing.TB, record ...byte) *media.Codec {
	t.Helper()
	c, err := media.ParseCodec(media.AAC, record)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Access units of AAC, as far as anybody looks into them here.
var (
	stereo = []byte{0x21, 0x10, 0x04, 0x60}
	mono   = []byte{0x01, 0x18, 0x20, 0x07}
)

// adts is a frame of ADTS without a checksum, of AAC-LC by an index of the rate and a
// channel configuration; blocks is how many raw data blocks it says that it has.
func adts(rateIndex, layout, blocks int, payload []byte) []byte {
	n := 7 + len(payload)
	return append([]byte{0xff, 0xf1, byte(1<<6 | rateIndex<<2 | layout>>2), byte(layout<<6 | n>>11), byte(n >> 3), byte(n<<5 | 0x1f), byte(0xfc | blocks - 1)}, payload...)
}

func TestSound(t *testing.T) {
	lc48, lc44, lcMono := aac(t, 0x11, 0x90), aac(t, 0x12, 0x10), aac(t, 0x11, 0x88)
	plain := adts(3, 2, 1, stereo)
	// message is what comes, and what is made of it.
	type message struct {
		config  *media.Codec
		payload []byte
		frames  int
		codec   *media.Codec
		fault   front.Fault
	}
	for name, messages := range map[string][]message{
		"raw":                          {{config: lc48}, {payload: stereo, frames: 1, codec: lc48}},
		"ADTS under its configuration": {{config: lc48}, {payload: plain, frames: 1, codec: lc48, fault: front.FaultADTS}},
		"ADTS without a configuration": {{payload: adts(4, 2, 1, stereo), frames: 1, codec: lc44, fault: front.FaultADTS}},
		"ADTS that says otherwise": {
			{config: lc44}, {payload: plain, frames: 1, codec: lc48, fault: front.FaultADTS}, {payload: plain, frames: 1, codec: lc48, fault: front.FaultADTS},
		},
		"ADTS under HE-AAC": {{config: aac(t, 0x2b, 0x11, 0x88, 0x00)}, {payload: adts(6, 2, 1, stereo), frames: 1, codec: aac(t, 0x2b, 0x11, 0x88, 0x00), fault: front.FaultADTS}},
		"several frames":    {{payload: slices.Concat(plain, plain, plain), frames: 3, codec: lc48, fault: front.FaultADTS}},
		"several blocks":    {{payload: adts(3, 2, 3, stereo), frames: 1, codec: lc48.WithFrame(3072), fault: front.FaultADTS}},
		"cut short":         {{config: lc48}, {payload: slices.Concat(plain, plain[:9]), frames: 1, codec: lc48, fault: front.FaultSoundFrames}},
		"a frame of other sound amid the stream": {
			{config: lc48}, {payload: stereo, frames: 1, codec: lc48},
			{payload: adts(4, 2, 1, stereo), fault: front.FaultSoundFrames},
			{payload: stereo, frames: 1, codec: lc48},
			{payload: adts(4, 2, 1, stereo), fault: front.FaultSoundFrames},
		},
		"other sound from the middle on": {
			{config: lc48}, {payload: stereo, frames: 1, codec: lc48},
			{payload: adts(4, 2, 1, stereo), fault: front.FaultSoundFrames},
			{payload: adts(4, 2, 1, stereo), frames: 1, codec: lc44, fault: front.FaultADTS},
		},
		"a sync word amid the stream": {{config: lc48}, {payload: []byte{0xff, 0xf1, 1}, fault: front.FaultSoundFrames}, {payload: stereo, frames: 1, codec: lc48}},
		"an end without a beginning":  {{config: lc48}, {payload: []byte{0xe0}, fault: front.FaultSoundFrames}},
		"mono that is called stereo": {
			{config: lc48}, {payload: mono, frames: 1, codec: lcMono, fault: front.FaultSoundConfig}, {payload: mono, frames: 1, codec: lcMono},
		},
		"mono amid stereo": {
			{config: lc48}, {payload: stereo, frames: 1, codec: lc48}, {payload: mono, fault: front.FaultSoundFrames}, {payload: stereo, frames: 1, codec: lc48},
		},
		"a new configuration": {{config: lc48}, {payload: stereo, frames: 1, codec: lc48}, {config: lc44}, {payload: stereo, frames: 1, codec: lc44}},
		"nothing known":       {{payload: stereo}},
	} {
		var s Sound
		for i, m := range messages {
			if m.config != nil {
				s.Config(m.config)
				continue
			}
			frames, fault := s.Take(bytes.Clone(m.payload))
			if len(frames) != m.frames || fault != m.fault {
				t.Errorf("%s: message %d gave %d frames, %q", name, i, len(frames), fault)
			}
			for _, f := range frames {
				if !f.Codec.Equal(m.codec) || f.Codec.Universal != (m.codec.Universal) {
					t.Errorf("%s: message %d is of %+v", name, i, f.Codec)
				}
			}
		}
	}
}

// Sound for which no configuration comes is told of after a while.
func TestSoundWithoutConfiguration(t *testing.T) {
	var s Sound
	for i := range 60 {
		if _, fault := s.Take(stereo); (fault == front.FaultSoundConfig) != (i >= earliest-1) {
			t.Fatalf("unit %d gave %q", i, fault)
		}
	}
}

func FuzzSound(f *testing.F) {
	f.Add(true, adts(3, 2, 3, stereo), stereo)
	f.Add(false, stereo, adts(4, 0, 1, mono))
	f.Fuzz(func(t *testing.T, configured bool, a, b []byte) {
		var s Sound
		if configured {
			s.Config(aac(t, 0x11, 0x90))
		}
		for _, payload := range [][]byte{a, b, a, a, b} {
			frames, fault := s.Take(payload)
			if len(frames) == 0 && fault == "" && configured {
				t.Fatalf("% x is left out, and nobody is told", payload)
			}
			for _, x := range frames {
				if len(x.Payload) == 0 || x.Codec == nil || media.IsADTS(x.Payload) && x.Codec.Universal && !media.IsADTS(payload) {
					t.Fatalf("% x gave % x", payload, x.Payload)
				}
			}
		}
	})
}
