package rtmp

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	handshakeSize = 1 + 1536 + 1536 // C0, C1 and C2 (RTMP section 5.2)
	rtmpVersion   = 3               // what C0 must be

	// The chunk size of what is written to encoders: RTMP's default, which go-rtmp doesn't change.
	outgoingChunkSize = 128

	// The chunk stream of what the filter itself writes to encoders. go-rtmp writes on 2 and on
	// those that its requests came on (chunksCommand).
	chunksOwn = 5

	// How long a stopped filter lets a write take that is under way.
	stoppedWriteTimeout = time.Second
)

// go-rtmp is told this first, so that it takes each message in one chunk.
var oneChunkPerMessage = []byte{chunksControl, 0, 0, 0, 0, 0, 4, typeSetChunkSize, 0, 0, 0, 0, 0x00, 0xff, 0xff, 0xff}

// FilterConfig bounds what one encoder may do.
type FilterConfig struct {
	HandshakeTimeout time.Duration // for all of the handshake, TLS's included; 0: 10 s
	ReadTimeout      time.Duration // for each chunk to arrive; 0: 30 s
	WriteTimeout     time.Duration // for each write; 0: 10 s

	MaxVideo        int // bytes of a video message; 0: 4 MiB
	MaxAudio        int // bytes of an audio message; 0: 1 MiB
	MaxOther        int // bytes of any other message, and of all before publish; 0: 64 KiB
	MaxPartial      int // bytes of all unfinished messages; 0: 6 MiB
	MaxChunkStreams int // 0: 16
}

func (c FilterConfig) withDefaults() FilterConfig {
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 10*time.Second)
	c.ReadTimeout = cmp.Or(c.ReadTimeout, 30*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.MaxVideo = cmp.Or(c.MaxVideo, 4<<20)
	c.MaxAudio = cmp.Or(c.MaxAudio, 1<<20)
	c.MaxOther = cmp.Or(c.MaxOther, 64<<10)
	c.MaxPartial = cmp.Or(c.MaxPartial, 6<<20)
	c.MaxChunkStreams = cmp.Or(c.MaxChunkStreams, 16)
	return c
}

// errStopped is what Read says after stop.
var errStopped = errors.New("the connection was ended from this side")

// filter stands between an encoder and go-rtmp, which alone must not face the internet: two kinds
// of short input end the process, extended timestamps are read wrongly, and nothing has a bound or
// a deadline. The filter reads chunks, puts them together into messages (assembler), decides which
// go on (sanitizer), and hands each to go-rtmp as one chunk of the plainest form.
//
// Read is for go-rtmp's reading goroutine; Write, stop and say are safe beside it. Closing conn is
// its owner's affair.
type filter struct {
	conn net.Conn
	cfg  FilterConfig

	// owned by the reader
	in        *assembler
	sanitizer sanitizer
	handshake int       // bytes of it that are still to come
	armed     time.Time // when the read deadline was set last
	head      [16]byte
	out       [2][]byte // what Read gives next: a header, a payload
	size      int       // of the payload that Read gave last or gives now
	failure   error     // what ended the reading

	ready   atomic.Bool // the handshake is over
	stopped atomic.Bool // set under mu

	mu      sync.Mutex // guards the deadlines
	writing sync.Mutex // held while a chunk is written
	answer  *answer    // to connect, while go-rtmp writes it; guarded by writing
}

// newFilter starts the handshake's deadline. cfg must have its defaults filled in. dropped is told
// the reason whenever a message is left out; it may be nil.
func newFilter(conn net.Conn, cfg FilterConfig, dropped func(reason string)) *filter {
	f := &filter{
		conn:      conn,
		cfg:       cfg,
		sanitizer: sanitizer{limits: cfg, dropped: dropped, now: time.Now},
		handshake: handshakeSize,
	}
	f.in = newAssembler(bufio.NewReaderSize(conn, 16<<10), cfg, f.sanitizer.limit)
	f.in.beforeChunk = f.arm
	_ = conn.SetReadDeadline(time.Now().Add(cfg.HandshakeTimeout)) // fails only if closed: so will Read
	return f
}

// Read gives go-rtmp the handshake as it is, then filtered chunks. Never more than one message's
// chunk is given at a time. After an error it gives that error for ever.
func (f *filter) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, rejected("panic", "the input broke the filter: %v", r)
		}
		if err != nil {
			if f.failure == nil {
				f.failure = f.explain(err)
			}
			err = f.failure
		}
	}()

	switch {
	case f.failure != nil:
		return 0, f.failure
	case f.stopped.Load():
		return 0, errStopped
	case f.handshake > 0:
		return f.passHandshake(p)
	}
	for len(f.out[0])+len(f.out[1]) == 0 {
		m, err := f.in.next()
		if err != nil {
			return 0, err
		}
		m, chunks, err := f.sanitizer.pass(m)
		if err != nil {
			return 0, err
		}
		if chunks != 0 {
			f.out = [2][]byte{appendHeader(f.head[:0], chunks, m), m.payload}
			f.size = len(m.payload)
		}
	}
	for i := range f.out {
		c := copy(p[n:], f.out[i])
		f.out[i] = f.out[i][c:]
		n += c
	}
	return n, nil
}

// passHandshake gives go-rtmp the handshake, whose contents it doesn't check.
func (f *filter) passHandshake(p []byte) (int, error) {
	n, err := f.in.r.Read(p[:min(len(p), f.handshake)])
	if n > 0 && f.handshake == handshakeSize && p[0] != rtmpVersion {
		return 0, rejected("not_rtmp", "what came first isn't an RTMP handshake")
	}
	if f.handshake -= n; f.handshake == 0 {
		f.out[0] = oneChunkPerMessage
		f.ready.Store(true)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// arm gives the next chunk its time to arrive, give or take a second.
func (f *filter) arm() error {
	now := time.Now()
	if now.Sub(f.armed) < time.Second {
		return nil
	}
	f.armed = now
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped.Load() {
		return errStopped
	}
	return f.conn.SetReadDeadline(now.Add(f.cfg.ReadTimeout))
}

// explain puts an error of the network into words.
func (f *filter) explain(err error) error {
	switch {
	case f.stopped.Load():
		return errStopped
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case f.handshake > 0:
		return rejected("handshake_timeout", "the handshake took longer than %v", f.cfg.HandshakeTimeout)
	default:
		return rejected("idle", "no complete chunk arrived for %v", f.cfg.ReadTimeout)
	}
}

// Write sends what go-rtmp answers. It never fails, for go-rtmp takes seconds to end after a
// failed write: what can't be sent is dropped, and Read ends.
func (f *filter) Write(p []byte) (int, error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	if f.stopped.Load() {
		f.mu.Unlock()
		return len(p), nil
	}
	_ = f.conn.SetWriteDeadline(time.Now().Add(f.cfg.WriteTimeout))
	f.mu.Unlock()
	if _, err := f.conn.Write(f.answered(p)); err != nil {
		f.stop()
	}
	return len(p), nil
}

// stop ends Read, and drops what go-rtmp has yet to write. It doesn't wait.
func (f *filter) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped.Swap(true) {
		return
	}
	_ = f.conn.SetReadDeadline(time.Unix(1, 0))
	_ = f.conn.SetWriteDeadline(time.Now().Add(stoppedWriteTimeout))
}

// say writes a last command, name and arguments, to the encoder of a stopped filter. It does
// nothing (said is false) if the handshake isn't over, for then a message has no place yet.
func (f *filter) say(stream uint32, args ...any) (said bool, err error) {
	if !f.ready.Load() {
		return false, nil
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	m := rtmpMessage{kind: typeCommandAMF0, stream: stream, payload: appendAMF(nil, args...)}
	if _, err := f.conn.Write(appendChunks(nil, chunksOwn, m, outgoingChunkSize)); err != nil {
		return false, fmt.Errorf("write the last message: %w", err)
	}
	return true, nil
}
