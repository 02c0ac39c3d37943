package rtmp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gortmp "github.com/yutopp/go-rtmp"
	"github.com/yutopp/go-rtmp/message"
)

// memoryConn is an encoder that has sent all it will.
type memoryConn struct {
	net.Conn
	in io.Reader
}

func (c memoryConn) Read(p []byte) (int, error)     { return c.in.Read(p) }
func (memoryConn) Write(p []byte) (int, error)      { return len(p), nil }
func (memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (memoryConn) SetWriteDeadline(time.Time) error { return nil }

// filtered runs input, which comes after a handshake, through a filter, and returns what go-rtmp
// would get. The error is nil at the input's proper end.
func filtered(t testing.TB, input []byte, publishing bool) ([]rtmpMessage, error) {
	t.Helper()
	f := newFilter(memoryConn{in: io.MultiReader(bytes.NewReader(handshakeBytes), bytes.NewReader(input))},
		FilterConfig{}.withDefaults(), nil)
	f.sanitizer.publishing = publishing
	out, err := io.ReadAll(f)
	greeting := slices.Concat(handshakeBytes, oneChunkPerMessage)
	if !bytes.HasPrefix(out, greeting) {
		t.Fatalf("the filter gave %d bytes that don't start with the handshake and a chunk size", len(out))
	}
	return plainMessages(t, out[len(greeting):]), err
}

// plainMessages reads messages of one type 0 chunk each.
func plainMessages(t testing.TB, b []byte) []rtmpMessage {
	t.Helper()
	var all []rtmpMessage
	for len(b) > 0 {
		m := rtmpMessage{
			timestamp: uint24(b[1:]),
			kind:      b[7],
			stream:    binary.LittleEndian.Uint32(b[8:]),
		}
		length := uint24(b[4:])
		if b[0] < 2 || b[0] > 6 {
			t.Fatalf("a chunk's first byte is %#x", b[0])
		}
		b = b[12:]
		if m.timestamp == extendedTimestamp {
			m.timestamp, b = binary.BigEndian.Uint32(b), b[4:]
		}
		m.payload, b = b[:length], b[length:]
		all = append(all, m)
	}
	return all
}

func TestFilter(t *testing.T) {
	for _, c := range filterCases {
		t.Run(c.name, func(t *testing.T) {
			messages, err := filtered(t, c.input, true)
			var reject *filterError
			switch {
			case errors.As(err, &reject):
				if reject.reason != c.reason {
					t.Errorf("rejected as %q (%v), want %q", reject.reason, err, c.reason)
				}
			case c.reason != "":
				t.Errorf("ended with %v, want a rejection as %q", err, c.reason)
			case err != c.err:
				t.Errorf("ended with %v, want %v", err, c.err)
			}
			var got []string
			for _, m := range messages {
				got = append(got, fmt.Sprintf("%d@%d:%s", m.kind, m.timestamp, m.payload))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%.500q, want\n%.500q", got, c.want)
			}
		})
	}
}

// Before publish no message may be large, and media lead nowhere.
func TestFilterBeforePublish(t *testing.T) {
	if m, err := filtered(t, chunk(0, 6, 0, 3, typeVideo, "abc"), false); len(m) != 0 || err != nil {
		t.Errorf("got %v, %v for a video message", m, err)
	}
	_, err := filtered(t, chunk(0, 6, 0, 1<<20, typeVideo, "abc"), false)
	if reject := (*filterError)(nil); !errors.As(err, &reject) || reject.reason != "message_too_large" {
		t.Errorf("got %v for a large video message", err)
	}
	m, err := filtered(t, slices.Concat(command("publish", 5.0, nil, "key", "live"), chunk(0, 6, 0, 3, typeVideo, "abc")), false)
	if len(m) != 2 || err != nil {
		t.Errorf("got %v, %v for publish and a video message", m, err)
	}
}

// What Enhanced RTMP's connect announces is kept for the log, within bounds.
func TestFilterFourCCs(t *testing.T) {
	s := sanitizer{limits: FilterConfig{}.withDefaults(), now: time.Now}
	payload := appendAMF(nil, "connect", 1.0, amfProperties{
		{"fourCcList", []string{"hvc1", "av01", "too long to be one"}},
		{"videoFourCcInfoMap", amfProperties{{"av01", 4.0}, {"vp09", 4.0}}},
		{"audioFourCcInfoMap", amfProperties{{"*", 4.0}}},
	})
	if _, _, err := s.pass(rtmpMessage{kind: typeCommandAMF0, payload: payload}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"*", "av01", "hvc1", "vp09"}; !slices.Equal(s.fourCCs, want) {
		t.Errorf("got %q, want %q", s.fourCCs, want)
	}
}

// A message's buffer follows what has arrived, not what was announced.
func TestAssemblerMemory(t *testing.T) {
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			input := slices.Concat(control(typeSetChunkSize, 4<<20), chunk(0, 6, 0, 4<<20, typeVideo, "abc"))
			_, _ = filtered(b, input, true)
		}
	})
	if got := result.AllocedBytesPerOp(); got > 256<<10 {
		t.Errorf("a message of 4 MiB of which 3 bytes came took %d bytes", got)
	}
}

// What isn't RTMP is turned away at its first byte.
func TestFilterNotRTMP(t *testing.T) {
	f := newFilter(memoryConn{in: strings.NewReader("GET / HTTP/1.1\r\n\r\n")}, FilterConfig{}.withDefaults(), nil)
	_, err := f.Read(make([]byte, 1))
	if reject := (*filterError)(nil); !errors.As(err, &reject) || reject.reason != "not_rtmp" {
		t.Errorf("got %v", err)
	}
}

// Deadlines: what an encoder sends before it goes silent, or drips, and when that ends.
func TestFilterDeadlines(t *testing.T) {
	for _, c := range []struct {
		name   string
		sent   []byte // at once
		drip   []byte // then one byte of this every 7 s
		reason string
		after  time.Duration
	}{
		{name: "silent from the start", reason: "handshake_timeout", after: 10 * time.Second},
		{name: "dripping the handshake", drip: handshakeBytes, reason: "handshake_timeout", after: 10 * time.Second},
		{name: "half-open after the handshake", sent: handshakeBytes, reason: "idle", after: 30 * time.Second},
		{
			name: "dripping a chunk", sent: handshakeBytes, drip: commandOf(make([]byte, 100)),
			reason: "idle", after: 30 * time.Second,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				encoder, conn := net.Pipe()
				started := time.Now()
				f := newFilter(conn, FilterConfig{}.withDefaults(), nil)
				done := make(chan struct{})
				go func() {
					defer close(done)
					if _, err := encoder.Write(c.sent); err != nil {
						return
					}
					for _, b := range c.drip {
						time.Sleep(7 * time.Second)
						if _, err := encoder.Write([]byte{b}); err != nil {
							return
						}
					}
				}()
				_, err := io.Copy(io.Discard, readerOnly{f})
				if reject := (*filterError)(nil); !errors.As(err, &reject) || reject.reason != c.reason {
					t.Errorf("ended with %v, want %q", err, c.reason)
				}
				if took := time.Since(started); took != c.after {
					t.Errorf("ended after %v, want %v", took, c.after)
				}
				conn.Close()
				<-done
			})
		})
	}
}

type readerOnly struct{ io.Reader }

// A write to an encoder that doesn't read ends the connection, and go-rtmp hears no error.
func TestFilterWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		encoder, conn := net.Pipe()
		defer encoder.Close()
		f := newFilter(conn, FilterConfig{}.withDefaults(), nil)
		started := time.Now()
		if n, err := f.Write([]byte("hello")); n != 5 || err != nil {
			t.Errorf("Write gave %d, %v", n, err)
		}
		if took := time.Since(started); took != 10*time.Second {
			t.Errorf("Write took %v", took)
		}
		if _, err := f.Read(make([]byte, 1)); !errors.Is(err, errStopped) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read gave %v", err)
		}
	})
}

// stop ends a Read that is waiting.
func TestFilterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		encoder, conn := net.Pipe()
		defer encoder.Close()
		f := newFilter(conn, FilterConfig{}.withDefaults(), nil)
		time.AfterFunc(3*time.Second, f.stop)
		started := time.Now()
		if _, err := f.Read(make([]byte, 1)); !errors.Is(err, errStopped) || time.Since(started) != 3*time.Second {
			t.Errorf("Read gave %v after %v", err, time.Since(started))
		}
	})
}

// FuzzFilter gives any input to the filter, and its output to go-rtmp's own decoders. They must
// be able to read all of it: where they fail, or run away, the filter has let something through.
func FuzzFilter(f *testing.F) {
	for _, c := range filterCases {
		if len(c.input) < 1<<20 {
			f.Add(c.input, true)
			f.Add(c.input, false)
		}
	}
	f.Fuzz(func(t *testing.T, input []byte, publishing bool) {
		filter := newFilter(memoryConn{in: io.MultiReader(bytes.NewReader(handshakeBytes), bytes.NewReader(input))},
			FilterConfig{}.withDefaults(), nil)
		filter.sanitizer.publishing = publishing
		if _, err := io.CopyN(io.Discard, readerOnly{filter}, handshakeSize); err != nil {
			t.Fatal(err)
		}
		chunks := gortmp.NewChunkStreamer(filter, io.Discard, nil)
		defer chunks.Close()
		for {
			var m gortmp.ChunkMessage
			if _, _, err := chunks.Read(&m); err != nil {
				if filter.failure == nil {
					t.Fatalf("go-rtmp can't read the filter's output: %v", err)
				}
				if reject := (*filterError)(nil); errors.As(filter.failure, &reject) && reject.reason == "panic" {
					t.Fatal(reject)
				}
				return
			}
			fuzzDecode(t, chunks, m.Message)
			if filter.in.partial < 0 || filter.in.partial > filter.cfg.MaxPartial {
				t.Fatalf("unfinished messages hold %d bytes", filter.in.partial)
			}
		}
	})
}

// fuzzDecode decodes a message's body as go-rtmp's server does.
func fuzzDecode(t *testing.T, chunks *gortmp.ChunkStreamer, m message.Message) {
	var err error
	switch m := m.(type) {
	case *message.SetChunkSize:
		err = chunks.PeerState().SetChunkSize(m.ChunkSize)
	case *message.CommandMessage:
		var body message.AMFConvertible
		err = message.CmdBodyDecoderFor(m.CommandName, m.TransactionID)(m.Body, message.NewAMFDecoder(m.Body, m.Encoding), &body)
	case *message.DataMessage:
		var body message.AMFConvertible
		err = message.DataBodyDecoderFor(m.Name)(m.Body, message.NewAMFDecoder(m.Body, m.Encoding), &body)
		if frame, ok := body.(*message.NetStreamSetDataFrame); ok && err == nil {
			_, err = readAMF(frame.Payload)
		}
	case *message.AudioMessage:
		_, err = io.Copy(io.Discard, m.Payload)
	case *message.VideoMessage:
		_, err = io.Copy(io.Discard, m.Payload)
	}
	if err != nil {
		t.Fatalf("go-rtmp can't decode a %T: %v", m, err)
	}
}

func BenchmarkFilter(b *testing.B) {
	// A second of video of 4.5 Mb/s in chunks of 128 bytes.
	input := slices.Clone(handshakeBytes)
	for i := range uint32(30) {
		m := rtmpMessage{kind: typeVideo, stream: 1, timestamp: i * 33, payload: make([]byte, 4_500_000/8/30)}
		input = appendChunks(input, 6, m, 128)
	}
	b.SetBytes(int64(len(input)))
	b.ReportAllocs()
	for b.Loop() {
		f := newFilter(memoryConn{in: bytes.NewReader(input)}, FilterConfig{}.withDefaults(), nil)
		f.sanitizer.publishing = true
		if _, err := io.Copy(io.Discard, readerOnly{f}); err != nil {
			b.Fatal(err)
		}
	}
}
