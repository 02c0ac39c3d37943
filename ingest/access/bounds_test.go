package access

import (
	"errors"
	"slices"
	"testing"

	"millrace/ingest/front"
	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

// obu returns an open bitstream unit with its size.
func obu(kind byte, body []byte) []byte {
	return append([]byte{kind<<3 | 2, byte(len(body))}, body...)
}

// Parameter sets that come amid the pictures and ask for more than is taken end the
// publisher, wherever they stand, and whether or not a picture uses them: a decoder reads
// them all. It is told by its name.
func TestParameterSetsBeyondTheBounds(t *testing.T) {
	large := mediatest.Skipped{Width: 512, Height: 512, Refs: 16}
	h264 := encode(t, "-c:v", "libx264", "-preset", "veryfast", "-g", "10", "-bf", "0")
	hevc, _ := mediatest.Clip(t, "hevc-opus")
	av1, _ := mediatest.Clip(t, "av1-aac")
	sets := map[media.Format][]byte{media.H264: large.SPS(), media.HEVC: mediatest.HEVCSPS(8192, 8192, 16), media.AV1: obu(obuSequenceHeader, mediatest.AV1Sequence(65536, 65536))}
	for _, track := range []*mediatest.Track{h264, hevc, av1} {
		format := track.Codec.Format
		for _, at := range []int{0, 3, 10} {
			list := plain(track)
			if at >= len(list) {
				continue
			}
			m := &list[at]
			if format == media.AV1 {
				m.payload = slices.Concat(sets[format], m.payload)
			} else {
				*m = withSets(*m, sets[format])
			}
			for _, record := range [][]byte{track.Codec.Record, nil} {
				r := &recorder{}
				a := New(format, r)
				if record != nil {
					if err := a.Config(record); err != nil {
						t.Fatal(err)
					}
				}
				var err error
				for _, m := range list {
					if err = a.Take(m.dts, m.composition, false, slices.Clone(m.payload)); err != nil {
						break
					}
				}
				var why *front.Refusal
				if !errors.As(err, &why) || why.Reason != front.PictureBounds || !slices.Contains(r.faults, front.FaultBounds) {
					t.Errorf("%s, before picture %d: %v, faults %q", format, at, err, r.faults)
				}
			}
		}
	}
}

// A configuration that is far too long is not kept.
func TestLongConfigurations(t *testing.T) {
	for _, format := range []media.Format{media.H264, media.HEVC, media.AV1} {
		a := New(format, &recorder{})
		for _, record := range [][]byte{make([]byte, 3<<20), append([]byte{1, 66, 0, 30, 0xff, 0xff}, make([]byte, 3<<20)...), append([]byte{0, 0, 0, 1}, make([]byte, 3<<20)...)} {
			if err := a.Config(record); err == nil && format == media.AV1 {
				t.Errorf("%s: it was taken", format)
			}
			if len(a.record) > media.MaxRecord {
				t.Errorf("%s: %d bytes of it are kept", format, len(a.record))
			}
		}
	}
}
