package media

import (
	"errors"
	"fmt"
)

const (
	mp3Head = 4 // bytes of a frame's header
	// maxMP3 is how many frames a payload may hold.
	maxMP3 = 64
)

// The tables of MPEG-1 (ISO/IEC 11172-3, 2.4.2.3), of its half and its quarter rates (MPEG-2, ISO/IEC
// 13818-3, 2.4.2.3; and what decoders call MPEG-2.5).
var (
	mp3Rates        = [3]int{44100, 48000, 32000}
	mp3Bitrates     = [15]int{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320} // kb/s
	mp3HalfBitrates = [15]int{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160}
)

var errMP3 = errors.New("there is no header of MPEG Layer III")

// mp3Header is what the header of a frame says.
type mp3Header struct {
	rate, channels int
	samples        Samples
	size           int // of the whole frame, in bytes
}

func parseMP3Header(b []byte) (h mp3Header, err error) {
	if len(b) < mp3Head || b[0] != 0xff || b[1]&0xe0 != 0xe0 {
		return h, errMP3
	}
	version, layer := b[1]>>3&3, b[1]>>1&3
	bitrate, rate := b[2]>>4, b[2]>>2&3
	if version == 1 || layer != 1 || bitrate == 0 || bitrate == 15 || rate == 3 {
		return h, errMP3
	}
	kilobits := mp3HalfBitrates[bitrate]
	h.rate, h.samples, h.channels = mp3Rates[rate], 576, 2
	switch version {
	case 3: // MPEG-1
		kilobits, h.samples = mp3Bitrates[bitrate], 1152
	case 2: // MPEG-2
		h.rate /= 2
	default: // MPEG-2.5
		h.rate /= 4
	}
	if b[3]>>6 == 3 {
		h.channels = 1
	}
	h.size = int(h.samples)/8*kilobits*1000/h.rate + int(b[2]>>1&1)
	return h, nil
}

// mp3Bitrate is the lowest one with room for the side information of a frame of silence.
const mp3Bitrate = 4

// SplitMP3 takes a payload apart that holds whole frames of MP3, up to 64. With an error it
// returns the frames before what makes no sense. The frames share the payload's memory.
func SplitMP3(payload []byte) (frames [][]byte, err error) {
	for len(payload) > 0 {
		h, err := parseMP3Header(payload)
		switch {
		case err != nil:
			return frames, fmt.Errorf("parse MP3: %w", err)
		case h.size > len(payload):
			return frames, errors.New("parse MP3: a frame is cut short")
		case len(frames) == maxMP3:
			return frames, errors.New("parse MP3: there are too many frames")
		}
		frames, payload = append(frames, payload[:h.size]), payload[h.size:]
	}
	return frames, nil
}

// MP3Config returns the configuration of a frame of MP3: its header, less all that
// may differ from frame to frame. MP3 itself has none.
func MP3Config(frame []byte) ([]byte, error) {
	h, err := parseMP3Header(frame)
	if err != nil {
		return nil, fmt.Errorf("parse MP3: %w", err)
	}
	layout := byte(0)
	if h.channels == 1 {
		layout = 3 << 6
	}
	return []byte{0xff, frame[1] | 1, mp3Bitrate<<4 | frame[2]&0x0c, layout}, nil
}

func parseMP3(record []byte) (c Codec, err error) {
	h, err := parseMP3Header(record)
	if err != nil {
		return c, err
	}
	c.Name, c.Variety = "mp4a.40.34", "MP3"
	c.Rate, c.Channels, c.FrameSamples = h.rate, h.channels, h.samples
	return c, nil
}

// mp3Silence is a frame whose side information says that there is nothing in it.
func mp3Silence(c *Codec) []byte {
	h, err := parseMP3Header(c.Record)
	if err != nil {
		return nil
	}
	return append(c.Record[:mp3Head:mp3Head], make([]byte, h.size-mp3Head)...)
}
