package access

import (
	"bytes"
	"testing"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// mp3 is a frame of MPEG-1 Layer III at 32 kb/s: 48 kHz stereo, or 44.1 kHz mono.
func mp3(mono bool) []byte {
	if mono {
		return append([]byte{0xff, 0xfb, 0x10, 0xc0}, make([]byte, 104-4)...)
	}
	return append([]byte{0xff, 0xfb, 0x14, 0x40}, make([]byte, 96-4)...)
}

func TestBareMP3(t *testing.T) {
	stereo, mono := mp3(false), mp3(true)
	var s Bare
	for i, c := range []struct {
		payload        []byte
		frames         int
		rate, channels int
		fault          front.Fault
	}{
		{payload: stereo, frames: 1, rate: 48000, channels: 2},
		{payload: bytes.Repeat(stereo, 3), frames: 3, rate: 48000, channels: 2},
		{payload: mono, fault: front.FaultSoundFrames}, // one frame of other sound
		{payload: stereo, frames: 1, rate: 48000, channels: 2},
		{payload: append(bytes.Clone(stereo), stereo[:50]...), frames: 1, rate: 48000, channels: 2, fault: front.FaultSoundFrames},
		{payload: []byte{1, 2, 3, 4, 5}, fault: front.FaultSoundFrames},
		{payload: append([]byte{0xff, 0xfd, 0x14, 0x40}, make([]byte, 92)...), fault: front.FaultSoundFrames}, // Layer II
		{payload: mono, fault: front.FaultSoundFrames},
		{payload: mono, frames: 1, rate: 44100, channels: 1}, // other sound from here on
	} {
		frames, before, fault := s.Take(media.MP3, 0, c.payload)
		if len(frames) != c.frames || before != 0 || fault != c.fault {
			t.Errorf("message %d gave %d frames, %d before it, fault %q; want %d, fault %q", i, len(frames), before, fault, c.frames, c.fault)
			continue
		}
		for _, f := range frames {
			if f.Codec.Rate != c.rate || f.Codec.Channels != c.channels || f.Codec.FrameSamples != 1152 || f.Codec.Universal {
				t.Errorf("message %d is %+v", i, f.Codec)
			}
		}
	}
}

// G.711 comes in messages of any length; what is short of an access unit waits for the next one.
func TestBareG711(t *testing.T) {
	var s Bare
	var got []byte
	for i, c := range []struct {
		size, frames int
		before       media.Ticks
	}{{100, 0, 0}, {100, 1, 100}, {500, 3, 40}, {1, 0, 60}, {99, 1, 61}} {
		frames, before, fault := s.Take(media.ALaw, 1, bytes.Repeat([]byte{byte(i)}, c.size))
		if want := c.before * media.VideoTimescale / 8000; len(frames) != c.frames || before != want || fault != "" {
			t.Errorf("message %d gave %d frames, %d ticks before it, fault %q; want %d, %d", i, len(frames), before, fault, c.frames, want)
		}
		for _, f := range frames {
			got = append(got, f.Payload...)
		}
	}
	var want []byte
	for i, n := range []int{100, 100, 500, 1, 99} {
		want = append(want, bytes.Repeat([]byte{byte(i)}, n)...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the access units hold %d bytes, want %d, or others", len(got), len(want))
	}
}
