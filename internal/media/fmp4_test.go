package media

import (
	"bytes"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"
)

func TestInitKeepsTheRecord(t *testing.T) {
	c, err := ParseCodec(H264, record)
	if err != nil {
		t.Fatal(err)
	}
	init, err := c.Init()
	if err != nil {
		t.Fatal(err)
	}
	track := parse(t, init.Data).Init.Moov.Trak
	entry := track.Mdia.Minf.Stbl.Stsd.AvcX
	var kept bytes.Buffer
	if err := entry.AvcC.DecConfRec.Encode(&kept); err != nil {
		t.Fatal(err)
	}
	if track.Mdia.Mdhd.Timescale != VideoTimescale || entry.Width != 320 || entry.Height != 180 || !bytes.Equal(kept.Bytes(), record) {
		t.Errorf("timescale %d, %dx%d, configuration %x", track.Mdia.Mdhd.Timescale, entry.Width, entry.Height, kept.Bytes())
	}
	for _, asc := range [][]byte{SilentStereo48k, {0x12, 0x08}, {0x10, 0x10}} { // the last one has 96 kHz
		c, err := ParseCodec(AAC, asc)
		if err != nil {
			t.Fatal(err)
		}
		init, err := c.Init()
		if err != nil {
			t.Fatal(err)
		}
		track := parse(t, init.Data).Init.Moov.Trak
		entry := track.Mdia.Minf.Stbl.Stsd.Mp4a
		if int(track.Mdia.Mdhd.Timescale) != c.Rate || int(entry.ChannelCount) != c.Channels ||
			!bytes.Equal(entry.Esds.DecConfigDescriptor.DecSpecificInfo.DecConfig, asc) {
			t.Errorf("%x gave %+v", asc, entry)
		}
	}
}

func TestFragment(t *testing.T) {
	want := Fragment{Number: 7, DecodeTime: 1 << 40, Samples: []Sample{
		{Duration: 3000, CompositionOffset: 0, Sync: true, Payload: []byte("IDR")},
		{Duration: 3003, CompositionOffset: -6000, Payload: []byte("B")},
		{Duration: 2997, CompositionOffset: 6000, Payload: nil},
	}}
	f := parse(t, want.Append([]byte("before"))[len("before"):])
	if len(f.Segments) != 1 || len(f.Segments[0].Fragments) != 1 {
		t.Fatalf("%d segments", len(f.Segments))
	}
	got := f.Segments[0].Fragments[0]
	if got.Moof.Mfhd.SequenceNumber != want.Number || got.Moof.Traf.Tfdt.BaseMediaDecodeTime() != want.DecodeTime {
		t.Errorf("number %d, decode time %d", got.Moof.Mfhd.SequenceNumber, got.Moof.Traf.Tfdt.BaseMediaDecodeTime())
	}
	samples, err := got.GetFullSamples(nil)
	if err != nil || len(samples) != len(want.Samples) {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	for i, s := range samples {
		w := want.Samples[i]
		if s.Dur != w.Duration || s.CompositionTimeOffset != w.CompositionOffset || s.IsSync() != w.Sync || !bytes.Equal(s.Data, w.Payload) {
			t.Errorf("sample %d is %+v, want %+v", i, s, w)
		}
	}
}

func parse(t *testing.T, b []byte) *mp4.File {
	t.Helper()
	f, err := mp4.DecodeFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return f
}
