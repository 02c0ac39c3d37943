package media

import (
	"bytes"
	"encoding/binary"
	"reflect"
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

// An init section tells the shape of samples and the colours, and says nothing
// where the source doesn't.
func TestInitTellsShapeAndColour(t *testing.T) {
	for name, want := range map[string]struct {
		coded, shown [2]int
		pasp         *mp4.PaspBox
		colr         *mp4.ColrBox
	}{
		"plain":    {[2]int{352, 288}, [2]int{352, 288}, nil, nil},
		"sar":      {[2]int{352, 288}, [2]int{512, 288}, &mp4.PaspBox{HSpacing: 16, VSpacing: 11}, nil},
		"anamorph": {[2]int{1440, 1080}, [2]int{1920, 1080}, &mp4.PaspBox{HSpacing: 4, VSpacing: 3}, nil},
		"h5sar":    {[2]int{352, 288}, [2]int{512, 288}, &mp4.PaspBox{HSpacing: 16, VSpacing: 11}, nil},
		"bt709": {[2]int{352, 288}, [2]int{352, 288}, nil,
			&mp4.ColrBox{ColorType: "nclx", ColorPrimaries: 1, TransferCharacteristics: 1, MatrixCoefficients: 1}},
		"full": {[2]int{352, 288}, [2]int{352, 288}, nil,
			&mp4.ColrBox{ColorType: "nclx", ColorPrimaries: 1, TransferCharacteristics: 13, MatrixCoefficients: 6, FullRangeFlag: true}},
		"h5hdpq": {[2]int{1920, 1080}, [2]int{1920, 1080}, nil,
			&mp4.ColrBox{ColorType: "nclx", ColorPrimaries: 9, TransferCharacteristics: 16, MatrixCoefficients: 9}},
	} {
		c, err := ParseCodec(madeRecord(t, name))
		if err != nil {
			t.Fatal(err)
		}
		init, err := c.Init()
		if err != nil {
			t.Fatal(err)
		}
		track := parse(t, init.Data).Init.Moov.Trak
		entry := track.Mdia.Minf.Stbl.Stsd.Children[0].(*mp4.VisualSampleEntryBox)
		var colr *mp4.ColrBox
		for _, b := range entry.Children {
			if found, ok := b.(*mp4.ColrBox); ok {
				colr = found
			}
		}
		coded, shown := [2]int{int(entry.Width), int(entry.Height)}, [2]int{int(track.Tkhd.Width >> 16), int(track.Tkhd.Height >> 16)}
		if coded != want.coded || shown != want.shown || !reflect.DeepEqual(entry.Pasp, want.pasp) || !reflect.DeepEqual(colr, want.colr) {
			t.Errorf("%s: %v shown as %v, %+v, %+v", name, coded, shown, entry.Pasp, colr)
		}
	}
}

// A record stands in the init section as it came, whatever its profile.
func TestInitKeepsEveryRecord(t *testing.T) {
	for _, name := range []string{"plain", "ten", "ten422", "crop444", "mono", "h5ten422", "a1444"} {
		format, record := madeRecord(t, name)
		c, err := ParseCodec(format, record)
		if err != nil {
			t.Fatal(err)
		}
		init, err := c.Init()
		if err != nil {
			t.Fatal(err)
		}
		box := binary.BigEndian.AppendUint32(nil, uint32(8+len(record)))
		box = append(append(box, map[Format]string{H264: "avcC", HEVC: "hvcC", AV1: "av1C"}[format]...), record...)
		if !bytes.Contains(init.Data, box) {
			t.Errorf("%s: the record isn't there", name)
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
