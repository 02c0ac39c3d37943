package room

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// AttachAnswer makes the answer to a request a connection of the hub: what is sent is written to its body, as it comes, and
// nothing arrives. It returns when the connection has ended, as it does with the request. The caller has set the
// answer's headers, and Options.Opened joins rooms. It is for server-sent events, and works in every version of HTTP; it costs
// more than a socket. After an error nothing was written.
func (h *Hub) AttachAnswer(w http.ResponseWriter, r *http.Request, o Options) error {
	a := &answer{w: w, control: http.NewResponseController(w), request: r, ended: make(chan struct{})}
	if _, err := h.Attach(a, o); err != nil {
		return err
	}
	<-a.ended
	a.writing.Lock() // the answer is the server's again when the handler returns
	defer a.writing.Unlock()
	return nil
}

// answer is an http.ResponseWriter as a net.Conn.
type answer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	request *http.Request

	once  sync.Once
	ended chan struct{} // closed by Close

	writing sync.Mutex
}

// Read waits for the end.
func (a *answer) Read([]byte) (int, error) {
	select {
	case <-a.ended:
	case <-a.request.Context().Done():
	}
	return 0, io.EOF
}

// Write sends p at once.
func (a *answer) Write(p []byte) (int, error) {
	a.writing.Lock()
	defer a.writing.Unlock()
	select {
	case <-a.ended:
		return 0, net.ErrClosed
	default:
	}
	n, err := a.w.Write(p)
	if err == nil {
		err = a.control.Flush()
	}
	return n, err
}

// Close ends the answer; a Write that waits returns.
func (a *answer) Close() error {
	a.once.Do(func() {
		_ = a.control.SetWriteDeadline(past)
		close(a.ended) // last: then the handler returns, and its answer is gone
	})
	return nil
}

func (a *answer) LocalAddr() net.Addr { return nil }

// RemoteAddr is what the request says.
func (a *answer) RemoteAddr() net.Addr { return remote(a.request.RemoteAddr) }

func (a *answer) SetDeadline(t time.Time) error      { return a.SetWriteDeadline(t) }
func (a *answer) SetReadDeadline(time.Time) error    { return nil }
func (a *answer) SetWriteDeadline(t time.Time) error { return a.control.SetWriteDeadline(t) }

// remote is an address as text.
type remote string

func (remote) Network() string  { return "tcp" }
func (a remote) String() string { return string(a) }
