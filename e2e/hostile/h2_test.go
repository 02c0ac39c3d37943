//go:build hostile

package hostile

import (
	"bytes"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is an HTTP/2 connection that is written frame by frame. Its methods but what
// it counts are for one goroutine.
type frames struct {
	a    *attack
	conn net.Conn
	*http2.Framer
	last uint32 // the last stream's number
	head bytes.Buffer
	hp   *hpack.Encoder

	gone chan struct{} // closed when the server has hung up

	// mu guards what follows.
	mu sync.Mutex
	// data is how many bytes of answers came.
	data int
	// resets are the streams that the server ended, goAways its farewells.
	resets, goAways int
	statuses        map[string]int
}

// preface opens an HTTP/2 connection with these settings.
func (a *attack) preface(from string, settings ...http2.Setting) (*frames, error) {
	conn, err := a.dial(a.t.Context(), from, a.web())
	if err != nil {
		return nil, err
	}
	a.later(func() { _ = conn.Close() })
	f := &frames{a: a, conn: conn, Framer: http2.NewFramer(conn, conn), gone: make(chan struct{}), statuses: make(map[string]int)}
	f.hp = hpack.NewEncoder(&f.head)
	f.last = ^uint32(0) // the first one is 1
	_ = conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	if err := f.WriteSettings(settings...); err != nil {
		return nil, err
	}
	go f.listen()
	return f, nil
}

// listen reads what the server says.
func (f *frames) listen() {
	defer close(f.gone)
	f.Framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		f.mu.Lock()
		switch x := frame.(type) {
		case *http2.DataFrame:
			f.data += len(x.Data())
		case *http2.RSTStreamFrame:
			f.resets++
		case *http2.GoAwayFrame:
			f.goAways++
		case *http2.MetaHeadersFrame:
			f.statuses[x.PseudoValue("status")]++
		}
		f.mu.Unlock()
	}
}

// fields are a request's header, encoded.
func (f *frames) fields(method, path string, more ...string) []byte {
	f.head.Reset()
	list := append([]string{":method", method, ":scheme", "http", ":authority", "x", ":path", path}, more...)
	for i := 0; i+1 < len(list); i += 2 {
		_ = f.hp.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]}) // to memory
	}
	return f.head.Bytes()
}

// fieldOf is one more line of a header, encoded.
func (f *frames) fieldOf(name, value string) []byte {
	f.head.Reset()
	_ = f.hp.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: true}) // to memory
	return f.head.Bytes()
}

// ask opens a stream and returns its number.
func (f *frames) ask(method, path string, endsHere bool) (uint32, error) {
	f.last += 2
	f.a.requests.Add(1)
	return f.last, f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: f.last, BlockFragment: f.fields(method, path), EndHeaders: true, EndStream: endsHere,
	})
}

// received is how many bytes of answers came.
func (f *frames) received() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.data
}

// tally adds what the server answered to the row's answers.
func (f *frames) tally() {
	f.mu.Lock()
	defer f.mu.Unlock()
	add := func(what string, n int) {
		if n > 0 {
			f.a.answeredTimes(what, n)
		}
	}
	for status, n := range f.statuses {
		add(status, n)
	}
	add("RST_STREAM", f.resets)
	add("GOAWAY", f.goAways)
}

// hungUp reports whether the server has closed the connection within the limit.
func (f *frames) hungUp(limit time.Duration) bool {
	select {
	case <-f.gone:
		return true
	case <-time.After(limit):
		return false
	}
}
