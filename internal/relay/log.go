package relay

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"millrace/internal/media"
)

// Entry is one thing in a log: exactly one field is set.
type Entry struct {
	Mark     *Mark
	Settings *Settings
	// Codec is in force on its track from here on.
	Codec *media.Codec
	Unit  *media.Unit
}

// The form of a log: magic, then records. A record is a byte that tells what it
// is, the size of its body in 4 bytes, and the body. Numbers are big-endian.
const (
	// magic names the form and its version.
	magic = "MRLOG\x00\x00\x01"

	recordMark     = 'm' // a Mark as JSON
	recordSettings = 's' // Settings as JSON
	recordCodec    = 'c' // the format's 4 characters, 4 bytes of samples in a frame, the record
	// Units: a byte of flags, the decode time in 8 bytes, the presentation time less
	// that in 4, the payload, which may be empty for a picture.
	recordVideo = 'v'
	recordAudio = 'a'

	flagRandomAccess = 1 << 0
	flagPreroll      = 1 << 1

	recordHead = 5
	codecHead  = 8
	unitHead   = 13
)

// MaxPayload is the largest payload of a unit in a log, in bytes.
const MaxPayload = 4 << 20

// The largest bodies that a [Reader] accepts, in bytes.
const (
	MaxUnit  = MaxPayload + unitHead
	maxOther = 64 << 10
)

// Header is what a log's body starts with.
func Header() []byte { return []byte(magic) }

// Append appends an entry's record to b.
func (e Entry) Append(b []byte) ([]byte, error) {
	switch {
	case e.Mark != nil:
		return appendJSON(b, recordMark, e.Mark)
	case e.Settings != nil:
		return appendJSON(b, recordSettings, e.Settings)
	case e.Codec != nil:
		c := e.Codec
		b = appendHead(b, recordCodec, codecHead+len(c.Record))
		b = append(b, c.Format...)
		b = binary.BigEndian.AppendUint32(b, uint32(c.FrameSamples))
		return append(b, c.Record...), nil
	case e.Unit != nil:
		return appendUnit(b, e.Unit), nil
	}
	return b, errors.New("encode log entry: it is empty")
}

// Size is how many bytes the record of a unit takes.
func Size(u *media.Unit) int { return recordHead + unitHead + len(u.Payload) }

func appendUnit(b []byte, u *media.Unit) []byte {
	kind, flags := byte(recordVideo), byte(0)
	if u.Track == media.Audio {
		kind = recordAudio
	}
	if u.RandomAccess {
		flags |= flagRandomAccess
	}
	if u.Preroll {
		flags |= flagPreroll
	}
	b = appendHead(b, kind, unitHead+len(u.Payload))
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(u.DTS))
	b = binary.BigEndian.AppendUint32(b, uint32(u.PTS-u.DTS))
	return append(b, u.Payload...)
}

func appendHead(b []byte, kind byte, size int) []byte {
	return binary.BigEndian.AppendUint32(append(b, kind), uint32(size))
}

func appendJSON(b []byte, kind byte, v any) ([]byte, error) {
	doc, err := json.Marshal(v)
	if err != nil {
		return b, fmt.Errorf("encode log entry: %w", err)
	}
	return append(appendHead(b, kind, len(doc)), doc...), nil
}

// Reader reads a log's body. It is not safe for concurrent use.
type Reader struct{ r *bufio.Reader }

// NewReader reads and checks the header of a log.
func NewReader(r io.Reader) (*Reader, error) {
	var head [len(magic)]byte
	br := bufio.NewReaderSize(r, 64<<10)
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return nil, fmt.Errorf("read log header: %w", err)
	}
	if string(head[:]) != magic {
		return nil, errors.New("read log header: this is no log of this version")
	}
	return &Reader{br}, nil
}

// Next returns the next entry. It returns io.EOF only between records, and
// refuses a body that is too large before any memory is taken for it.
func (r *Reader) Next() (Entry, error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return Entry{}, err
	}
	kind, size := head[0], int64(binary.BigEndian.Uint32(head[1:]))
	bound := int64(maxOther)
	if kind == recordVideo || kind == recordAudio {
		bound = MaxUnit
	}
	if size > bound {
		return Entry{}, fmt.Errorf("read log entry %q: %d bytes announced, at most %d are accepted", kind, size, bound)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r.r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Entry{}, fmt.Errorf("read log entry: %w", err)
	}
	return parseEntry(kind, body)
}

func parseEntry(kind byte, body []byte) (e Entry, err error) {
	switch kind {
	case recordMark:
		e.Mark = new(Mark)
		if err = json.Unmarshal(body, e.Mark); err == nil {
			err = e.Mark.validate()
		}
	case recordSettings:
		e.Settings = new(Settings)
		err = json.Unmarshal(body, e.Settings)
	case recordCodec:
		e.Codec, err = parseCodec(body)
	case recordVideo, recordAudio:
		e.Unit, err = parseUnit(kind, body)
	default:
		err = errors.New("its kind is unknown")
	}
	if err != nil {
		return Entry{}, fmt.Errorf("decode log entry %q: %w", kind, err)
	}
	return e, nil
}

func (m *Mark) validate() error {
	if m.Kind != Open && m.Kind != Pause && m.Kind != End {
		return fmt.Errorf("a mark of the unknown kind %q", m.Kind)
	}
	return nil
}

func parseCodec(body []byte) (*media.Codec, error) {
	if len(body) < codecHead {
		return nil, io.ErrUnexpectedEOF
	}
	c, err := media.ParseCodec(media.Format(body[:4]), body[codecHead:])
	if err != nil {
		return nil, err
	}
	const longest = 1 << 14
	if frame := media.Samples(binary.BigEndian.Uint32(body[4:])); frame != c.FrameSamples {
		if c.Kind() != media.Audio || frame < 1 || frame > longest {
			return nil, fmt.Errorf("frames of %d samples make no sense", frame)
		}
		c = c.WithFrame(frame)
	}
	return c, nil
}

func parseUnit(kind byte, body []byte) (*media.Unit, error) {
	if len(body) < unitHead || kind == recordAudio && len(body) == unitHead {
		return nil, io.ErrUnexpectedEOF
	}
	u := &media.Unit{
		Track: media.Video, RandomAccess: body[0]&flagRandomAccess != 0, Preroll: body[0]&flagPreroll != 0,
		DTS: media.Ticks(binary.BigEndian.Uint64(body[1:])), Payload: body[unitHead:],
	}
	u.PTS = u.DTS + media.Ticks(int32(binary.BigEndian.Uint32(body[9:])))
	if kind == recordAudio {
		u.Track = media.Audio
	}
	return u, nil
}
