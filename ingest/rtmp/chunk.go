package rtmp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Message types (RTMP sections 5.4, 6.2 and 7.1).
const (
	typeSetChunkSize  = 1
	typeAbort         = 2
	typeAck           = 3
	typeUserControl   = 4
	typeWindowAckSize = 5
	typePeerBandwidth = 6
	typeAudio         = 8
	typeVideo         = 9
	typeDataAMF3      = 15
	typeCommandAMF3   = 17
	typeDataAMF0      = 18
	typeCommandAMF0   = 20
	typeAggregate     = 22
)

const (
	extendedTimestamp = 0xffffff // in the three bytes of a timestamp: four more follow

	// A message's buffer that has grown past this is given back when the message is done.
	keptMessageBuffer = 256 << 10

	// A type 3 chunk that starts a message after a type 0 one repeats its timestamp as a delta up
	// to this many milliseconds; see chunkStream.repeatedDelta.
	maxRepeatedTimestamp = 1000
)

// rtmpMessage is one whole RTMP message.
type rtmpMessage struct {
	kind      byte
	stream    uint32
	timestamp uint32 // absolute, milliseconds, wraps
	payload   []byte // valid until the next message is read
}

// assembler puts RTMP chunks together into messages (RTMP section 5.3). It obeys Set Chunk Size and
// Abort itself. Its memory grows with the bytes that have arrived, never with what is announced.
// Its errors are *filterError for input that it refuses, else the reader's.
type assembler struct {
	r           *bufio.Reader
	beforeChunk func() error        // called before each chunk, e.g. to set a deadline; may be nil
	limit       func(kind byte) int // the most bytes that a message of this type may have
	maxPartial  int                 // the most bytes that unfinished messages may hold together
	maxStreams  int

	chunkSize uint32
	streams   map[int]*chunkStream
	partial   int      // bytes of unfinished messages
	header    [11]byte // the one that is read now
}

// chunkStream is what is remembered of one chunk stream: its last header, and the message that is
// under way.
type chunkStream struct {
	timestamp uint32
	delta     uint32
	length    uint32
	kind      byte
	stream    uint32
	absolute  bool   // the last header was of type 0
	extended  bool   // the last header had an extended timestamp,
	extension uint32 // this one

	underway bool
	payload  []byte
}

func newAssembler(r *bufio.Reader, cfg FilterConfig, limit func(kind byte) int) *assembler {
	return &assembler{
		r:          r,
		limit:      limit,
		maxPartial: cfg.MaxPartial,
		maxStreams: cfg.MaxChunkStreams,
		chunkSize:  128, // "The maximum chunk size defaults to 128 bytes" (5.4.1)
		streams:    map[int]*chunkStream{},
	}
}

// next returns the next message. io.EOF means that the input ended between two chunks.
func (a *assembler) next() (rtmpMessage, error) {
	for {
		if a.beforeChunk != nil {
			if err := a.beforeChunk(); err != nil {
				return rtmpMessage{}, err
			}
		}
		cs, err := a.chunk()
		if err != nil {
			return rtmpMessage{}, err
		}
		if cs.underway {
			continue
		}
		m := rtmpMessage{kind: cs.kind, stream: cs.stream, timestamp: cs.timestamp, payload: cs.payload}
		a.forget(cs)
		switch m.kind {
		case typeSetChunkSize:
			err = a.setChunkSize(m.payload)
		case typeAbort:
			err = a.abort(m.payload)
		default:
			return m, nil
		}
		if err != nil {
			return rtmpMessage{}, err
		}
	}
}

// chunk reads one chunk into the chunk stream that it belongs to.
func (a *assembler) chunk() (*chunkStream, error) {
	format, cs, err := a.basicHeader()
	if err != nil {
		return nil, err
	}
	if cs.underway && format != 3 {
		return nil, rejected("header_inside_message", "a message was broken off by the header of another one")
	}
	if err := a.messageHeader(cs, format); err != nil {
		return nil, short(err)
	}
	if !cs.underway {
		if most := a.limit(cs.kind); int64(cs.length) > int64(most) {
			return nil, rejected("message_too_large", "%s of %d bytes was announced, more than the %d that are allowed",
				kindName(cs.kind), cs.length, most)
		}
		cs.underway = true
	}
	return cs, short(a.body(cs))
}

// basicHeader reads the chunk's format and finds its chunk stream (5.3.1.1).
func (a *assembler) basicHeader() (format byte, cs *chunkStream, err error) {
	first, err := a.r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	format, id := first>>6, int(first&0x3f)
	if id < 2 { // one or two bytes more
		b := a.header[:2]
		b[1] = 0
		if _, err := io.ReadFull(a.r, b[:id+1]); err != nil {
			return 0, nil, short(err)
		}
		id = int(b[1])<<8 + int(b[0]) + 64
	}
	if cs = a.streams[id]; cs != nil {
		return format, cs, nil
	}
	// "This type MUST be used at the start of a chunk stream" (5.3.1.2.1, of type 0). Type 1 says
	// all that is needed, too, and some encoders start with it.
	if format > 1 {
		return 0, nil, rejected("no_header", "a chunk came that needs the header of one before it, but there was none")
	}
	if len(a.streams) >= a.maxStreams {
		return 0, nil, rejected("too_many_chunk_streams", "more than %d chunk streams were used", a.maxStreams)
	}
	cs = &chunkStream{}
	a.streams[id] = cs
	return format, cs, nil
}

// messageHeader reads the rest of a chunk's header (5.3.1.2, 5.3.1.3).
func (a *assembler) messageHeader(cs *chunkStream, format byte) error {
	b := a.header[:]
	if _, err := io.ReadFull(a.r, b[:[...]int{11, 7, 3, 0}[format]]); err != nil {
		return err
	}
	switch format {
	case 0:
		cs.stream = binary.LittleEndian.Uint32(b[7:])
		fallthrough
	case 1:
		cs.length = uint24(b[3:])
		cs.kind = b[6]
	case 3:
		if cs.extended {
			if err := a.repeatedExtension(cs); err != nil {
				return err
			}
		}
		if !cs.underway {
			cs.delta = cs.repeatedDelta()
			cs.timestamp += cs.delta
			cs.absolute = false
		}
		return nil
	}

	t := uint24(b)
	if cs.extended = t == extendedTimestamp; cs.extended {
		if _, err := io.ReadFull(a.r, b[:4]); err != nil {
			return err
		}
		t = binary.BigEndian.Uint32(b)
		cs.extension = t
	}
	if cs.absolute = format == 0; cs.absolute {
		cs.timestamp, cs.delta = t, 0
	} else {
		cs.timestamp, cs.delta = cs.timestamp+t, t
	}
	return nil
}

// repeatedExtension skips the extended timestamp of a type 3 chunk: "This field is present in
// Type 3 chunks when the most recent Type 0, 1, or 2 chunk for the same chunk stream ID indicated
// the presence of an extended timestamp" (5.3.1.3). Inside a message some encoders leave it out,
// so there it is skipped only if it is the one that would be repeated.
func (a *assembler) repeatedExtension(cs *chunkStream) error {
	if cs.underway {
		b, err := a.r.Peek(4)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(b) < 4 || binary.BigEndian.Uint32(b) != cs.extension {
			return nil
		}
	}
	_, err := a.r.Discard(4)
	return err
}

// repeatedDelta is how far a type 3 chunk that starts a message moves the clock. "If a Type 3
// chunk follows a Type 0 chunk, then the timestamp delta for this Type 3 chunk is the same as the
// timestamp of the Type 0 chunk" (5.3.1.2.4), and ffmpeg writes it so. Other senders, and go-rtmp,
// take it to be 0; a big timestamp, which makes no sense as a delta, comes from one of those.
func (cs *chunkStream) repeatedDelta() uint32 {
	switch {
	case !cs.absolute:
		return cs.delta
	case cs.timestamp <= maxRepeatedTimestamp:
		return cs.timestamp
	default:
		return 0
	}
}

// body reads a chunk's payload. A buffer never grows by more than what it holds already, or 4 KiB.
func (a *assembler) body(cs *chunkStream) error {
	left := min(int(cs.length)-len(cs.payload), int(a.chunkSize))
	for left > 0 {
		have := len(cs.payload)
		n := min(left, max(have, 4<<10))
		if a.partial+n > a.maxPartial {
			return rejected("too_many_partials", "unfinished messages hold more than %d bytes", a.maxPartial)
		}
		cs.payload = slices.Grow(cs.payload, n)[:have+n]
		if _, err := io.ReadFull(a.r, cs.payload[have:]); err != nil {
			return err
		}
		a.partial += n
		left -= n
	}
	cs.underway = len(cs.payload) < int(cs.length)
	return nil
}

// forget ends the message that is under way on cs. Its payload stays valid until the next chunk.
func (a *assembler) forget(cs *chunkStream) {
	a.partial -= len(cs.payload)
	cs.underway = false
	if cap(cs.payload) > keptMessageBuffer {
		cs.payload = nil
	}
	cs.payload = cs.payload[:0]
}

func (a *assembler) setChunkSize(payload []byte) error {
	if len(payload) < 4 {
		return rejected("bad_control", "a Set Chunk Size of %d bytes came", len(payload))
	}
	// "the most significant bit MUST be zero", "The chunk size SHOULD be at least 128 bytes, and
	// MUST be at least 1 byte" (5.4.1).
	size := binary.BigEndian.Uint32(payload)
	if size == 0 || size > 0x7fffffff {
		return rejected("bad_control", "a chunk size of %d was asked for", size)
	}
	a.chunkSize = size
	return nil
}

// abort drops what has come of a message (5.4.2).
func (a *assembler) abort(payload []byte) error {
	if len(payload) < 4 {
		return rejected("bad_control", "an Abort of %d bytes came", len(payload))
	}
	if cs := a.streams[int(binary.BigEndian.Uint32(payload))]; cs != nil {
		a.forget(cs)
	}
	return nil
}

// appendChunks appends m as chunks of at most chunkSize bytes on chunk stream id (2 to 63).
func appendChunks(b []byte, id byte, m rtmpMessage, chunkSize int) []byte {
	b = appendHeader(b, id, m)
	for payload := m.payload; ; {
		n := min(len(payload), chunkSize)
		b = append(b, payload[:n]...)
		if payload = payload[n:]; len(payload) == 0 {
			return b
		}
		b = append(b, 3<<6|id)
		if m.timestamp >= extendedTimestamp {
			b = binary.BigEndian.AppendUint32(b, m.timestamp)
		}
	}
}

// appendHeader appends the type 0 header of m's first chunk on chunk stream id (2 to 63).
func appendHeader(b []byte, id byte, m rtmpMessage) []byte {
	b = append(b, id)
	b = appendUint24(b, min(m.timestamp, extendedTimestamp))
	b = appendUint24(b, uint32(len(m.payload)))
	b = append(b, m.kind)
	b = binary.LittleEndian.AppendUint32(b, m.stream)
	if m.timestamp >= extendedTimestamp {
		b = binary.BigEndian.AppendUint32(b, m.timestamp)
	}
	return b
}

func appendUint24(b []byte, n uint32) []byte { return append(b, byte(n>>16), byte(n>>8), byte(n)) }

func uint24(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }

func kindName(kind byte) string {
	switch kind {
	case typeAudio:
		return "an audio message"
	case typeVideo:
		return "a video message"
	case typeDataAMF0, typeDataAMF3:
		return "a data message"
	case typeCommandAMF0, typeCommandAMF3:
		return "a command"
	default:
		return fmt.Sprintf("a message of type %d", kind)
	}
}

// short turns an EOF inside a chunk into io.ErrUnexpectedEOF.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
