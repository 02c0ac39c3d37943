package media

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/opus"
)

const (
	// opusRate is the rate at which Opus is timed, whatever was recorded (RFC 7845, 4).
	opusRate = 48000
	// opusFrame is how many samples an encoder's packet has unless it says otherwise: 20 ms.
	opusFrame Samples = 960
	// opusHeader is the size of an identification header without a mapping table, in bytes.
	opusHeader = 19
)

var opusMagic = []byte("OpusHead")

func parseOpus(record []byte) (c Codec, err error) {
	if len(record) < opusHeader || !bytes.HasPrefix(record, opusMagic) {
		return c, errors.New("it is no identification header")
	}
	c.Channels = int(record[9])
	family := record[18]
	switch {
	case record[8]>>4 != 0: // the major version
		return c, errors.New("its version is unknown")
	case c.Channels < 1 || c.Channels > 8 || family == 0 && c.Channels > 2:
		return c, errors.New("the number of channels is out of range")
	case family != 0 && len(record) < opusHeader+2+c.Channels:
		return c, errors.New("its mapping table is cut short")
	}
	c.Name, c.Rate, c.FrameSamples = "opus", opusRate, opusFrame
	return c, nil
}

// OpusSamples returns how many samples a packet of Opus holds; 0 of one that is malformed.
func OpusSamples(packet []byte) Samples {
	const longest = opusRate * 120 / 1000 // RFC 6716, 3.4 R5
	if n := Samples(opus.PacketDuration2(packet)); n <= longest {
		return n
	}
	return 0
}

// opusSilences are packets of silence of one channel by their samples: a table
// of contents (RFC 6716, 3.1) for CELT, full band, and frames that are all silence.
var opusSilences = map[Samples][]byte{
	120:  {28 << 3, 0xff, 0xfe},
	240:  {29 << 3, 0xff, 0xfe},
	480:  {30 << 3, 0xff, 0xfe},
	960:  {31 << 3, 0xff, 0xfe},
	1920: {31<<3 | 1, 0xff, 0xfe, 0xff, 0xfe},
	2880: {31<<3 | 3, 3, 0xff, 0xfe, 0xff, 0xfe, 0xff, 0xfe},
}

// opusSilence: a mono packet is silence in stereo, too. An unusual length gets
// what is nearest below it.
func opusSilence(c *Codec) []byte {
	var best Samples
	for n := range opusSilences {
		if n <= c.FrameSamples && n > best {
			best = n
		}
	}
	return opusSilences[max(best, 120)]
}

func opusBox(c *Codec) (mp4.Box, error) {
	r := c.Record
	b := &mp4.DopsBox{
		OutputChannelCount:   r[9],
		PreSkip:              binary.LittleEndian.Uint16(r[10:]),
		InputSampleRate:      binary.LittleEndian.Uint32(r[12:]),
		OutputGain:           int16(binary.LittleEndian.Uint16(r[16:])),
		ChannelMappingFamily: r[18],
	}
	if b.ChannelMappingFamily != 0 {
		b.StreamCount, b.CoupledCount, b.ChannelMapping = r[19], r[20], r[21:21+c.Channels]
	}
	return b, nil
}
