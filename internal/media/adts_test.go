package media

import (
	"bytes"
	"slices"
	"testing"
)

// adts builds a frame of ADTS of blocks, for the object type, the index of the rate
// and the channel configuration.
func adts(object, rateIndex, layout int, checksum bool, blocks ...[]byte) []byte {
	w := &bitAppender{}
	head, body := adtsHead, bytes.Join(blocks, nil)
	if checksum {
		head += adtsWord * len(blocks)
		body = append(bytes.Join(blocks, []byte{0xcc, 0xcc}), 0xcc, 0xcc)
		if len(blocks) == 1 {
			body = blocks[0] // its checksum stands in the header
		}
	}
	bare := 1
	if checksum {
		bare = 0
	}
	for _, f := range [][2]int{
		{0xfff, 12}, {0, 1}, {0, 2}, {bare, 1}, {object - 1, 2}, {rateIndex, 4}, {0, 1}, {layout, 3}, {0, 4},
		{head + len(body), 13}, {0x7ff, 11}, {len(blocks) - 1, 2},
	} {
		w.write(f[0], f[1])
	}
	if checksum {
		at := 0
		for _, b := range blocks[:len(blocks)-1] {
			at += len(b) + adtsWord
			w.write(at, 16)
		}
		w.write(0xcccc, 16)
	}
	return append(w.b, body...)
}

func TestSplitADTS(t *testing.T) {
	a, b, c := []byte{0x21, 1, 2, 3}, []byte{0x21, 4, 5}, []byte{0x20, 6, 7, 8, 9}
	for _, x := range []struct {
		name    string
		payload []byte
		blocks  [][]byte
		joined  int
	}{
		{"one frame", adts(aacLC, 3, 2, false, a), [][]byte{a}, 1},
		{"with a checksum", adts(aacLC, 3, 2, true, a), [][]byte{a}, 1},
		{"three frames", slices.Concat(adts(aacLC, 3, 2, false, a), adts(aacLC, 3, 2, true, b), adts(aacLC, 3, 2, false, c)), [][]byte{a, b, c}, 1},
		{"three blocks with checksums", adts(aacLC, 3, 2, true, a, b, c), [][]byte{a, b, c}, 1},
		{"three blocks without", adts(aacLC, 3, 2, false, a, b, c), [][]byte{slices.Concat(a, b, c)}, 3},
	} {
		frames, err := SplitADTS(x.payload)
		if err != nil || !IsADTS(x.payload) {
			t.Errorf("%s: %v", x.name, err)
		}
		var blocks [][]byte
		for _, f := range frames {
			blocks = append(blocks, f.Blocks...)
			if f.Joined != x.joined || f.Header != (ADTSHeader{aacLC, 3, 2}) {
				t.Errorf("%s: %+v", x.name, f)
			}
		}
		if !slices.EqualFunc(blocks, x.blocks, bytes.Equal) {
			t.Errorf("%s: %v, want %v", x.name, blocks, x.blocks)
		}
	}
}

// What is cut short gives the frames before it.
func TestSplitADTSMalformed(t *testing.T) {
	whole := adts(aacLC, 3, 2, false, []byte{0x21, 1, 2, 3})
	misplaced := adts(aacLC, 3, 2, true, []byte{0x21, 1, 2}, []byte{0x21, 4})
	misplaced[8] = 200
	for name, tail := range map[string][]byte{
		"cut short": whole[:9], "no header": {1, 2, 3}, "a reserved rate": adts(aacLC, 13, 2, false, []byte{0x21}),
		"nothing in it": adts(aacLC, 3, 2, false), "a block past its end": misplaced,
		"too many": bytes.Repeat(whole, maxADTS+1),
	} {
		frames, err := SplitADTS(slices.Concat(whole, tail))
		if err == nil || len(frames) == 0 {
			t.Errorf("%s: %d frames, %v", name, len(frames), err)
		}
	}
}

// program is a program config element of front channels: singles, then pairs.
func program(w *bitAppender, singles, pairs int) {
	for _, f := range [][2]int{{0, 4}, {1, 2}, {3, 4}, {singles + pairs, 4}, {0, 4}, {0, 4}, {0, 2}, {0, 3}, {0, 4}, {0, 3}} {
		w.write(f[0], f[1])
	}
	for i := range singles {
		w.write(i, 5)
	}
	for i := range pairs {
		w.write(1<<4|i, 5)
	}
}

// A header without channels takes them from the frame's program config element.
func TestADTSConfig(t *testing.T) {
	block := &bitAppender{}
	block.write(elementProgram, 3)
	program(block, 1, 2)
	block.align()
	block.write(4, 8) // a comment
	block.b = append(block.b, "test\x21\x10"...)
	for _, x := range []struct {
		name           string
		header         ADTSHeader
		rate, channels int
		universal      bool
	}{
		{"stereo", ADTSHeader{aacLC, 3, 2}, 48000, 2, true},
		{"mono by 8 kHz", ADTSHeader{aacLC, 11, 1}, 8000, 1, true},
		{"7.1", ADTSHeader{aacLC, 4, 7}, 44100, 8, false},
		{"Main", ADTSHeader{aacMain, 4, 2}, 44100, 2, false},
		{"LTP", ADTSHeader{aacLTP, 4, 2}, 44100, 2, false},
		{"a program", ADTSHeader{aacLC, 3, 0}, 48000, 5, false},
	} {
		record, err := x.header.Config(block.b)
		if err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		c, err := ParseCodec(AAC, record)
		if err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		if c.Rate != x.rate || c.Channels != x.channels || c.Universal != x.universal || c.FrameSamples != 1024 {
			t.Errorf("%s: %+v", x.name, c)
		}
		if !x.header.Describes(c) || (ADTSHeader{aacLC, 5, 2}).Describes(c) {
			t.Errorf("%s: what describes it is told wrongly", x.name)
		}
	}
	if _, err := (ADTSHeader{aacLC, 3, 0}).Config([]byte{0x21, 1, 2}); err == nil {
		t.Error("a header without channels was taken")
	}
	if _, err := (ADTSHeader{aacLC, 3, 0}).Config(block.b[:6]); err == nil {
		t.Error("a program that is cut short was taken")
	}
}

func FuzzSplitADTS(f *testing.F) {
	f.Add(adts(aacLC, 3, 2, true, []byte{0x21, 1, 2}, []byte{0x21, 4}))
	f.Add(adts(aacLC, 3, 0, false, []byte{0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9}))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, _ := SplitADTS(b)
		if len(frames) > maxADTS {
			t.Fatalf("%d frames", len(frames))
		}
		for _, x := range frames {
			for _, block := range x.Blocks {
				if len(block) == 0 {
					t.Fatal("an empty block")
				}
				record, err := x.Header.Config(block)
				if err != nil {
					continue
				}
				if c, err := ParseCodec(AAC, record); err == nil && !x.Header.Describes(c) {
					t.Fatalf("%+v doesn't describe %+v", x.Header, c)
				}
				_, _ = FirstAACElement(block)
			}
		}
	})
}

// FuzzSplitMP3: whole frames come out, each of which says how it is configured, in the order of the payload.
func FuzzSplitMP3(f *testing.F) {
	frame := append([]byte{0xff, 0xfb, 0x14, 0x40}, make([]byte, 92)...)
	f.Add(frame)
	f.Add(append(frame, frame[:40]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, err := SplitMP3(b)
		whole := bytes.Join(frames, nil)
		if !bytes.HasPrefix(b, whole) || err == nil && len(whole) != len(b) {
			t.Fatalf("%d of %d bytes came out, error %v", len(whole), len(b), err)
		}
		for _, frame := range frames {
			record, err := MP3Config(frame)
			if err != nil {
				t.Fatal(err)
			}
			c, err := ParseCodec(MP3, record)
			if err != nil || c.Rate < 8000 || c.FrameSamples != 576 && c.FrameSamples != 1152 || len(c.Silence()) < mp3Head+9 {
				t.Fatalf("%x: %+v, %v", record, c, err)
			}
		}
	})
}
