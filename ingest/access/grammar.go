package access

import (
	"millrace/ingest/front"
	"millrace/internal/media"
)

// grammar is what differs between formats: how their parts are packed, and what
// they say.
type grammar interface {
	// configure takes what an encoder sends as its configuration, in place of all
	// parameter sets before. The codec is nil where some are missing still.
	configure(record []byte) (*media.Codec, error)
	// split cuts a payload into its parts. exact: it is as a sample of MP4 has them.
	split(payload []byte) (parts [][]byte, exact bool, fault front.Fault)
	// look finds out what a part is; a parameter set is kept. A part with a fault
	// is dropped. It fails with a [media.BoundError] where a parameter set asks for
	// more than is taken, whether or not it is ever used: decoders make room for it.
	look(data []byte) (part, front.Fault, error)
	// activate returns the codec of a picture by its first slice, nil where it is
	// that of the one before, and the parameter sets that go before the picture
	// since only a keyframe can have another codec.
	activate(first *part, keyframe bool) (codec *media.Codec, inBand [][]byte, err error)
	// pack makes a payload of parts with size bytes in all.
	pack(parts [][]byte, size int) []byte
}

func newGrammar(f media.Format) grammar {
	switch f {
	case media.H264:
		return &h264Grammar{framing: framing{size: 4, plausible: h264Plausible}}
	case media.HEVC:
		return newHEVCGrammar(4)
	}
	return &av1Grammar{}
}

// configured returns the codec of the record that came, if that is exact and can be
// used, else of the one that was made of its sets.
func configured(f media.Format, came []byte, exact bool, made []byte) (*media.Codec, error) {
	if exact {
		if codec, err := media.ParseCodec(f, came); err == nil {
			return codec, nil
		}
	}
	return media.ParseCodec(f, made)
}
