package websocket

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"

	"millrace/chat/room"
)

// echo is a session that sends back what it gets.
type echo struct{ closed chan room.Reason }

func (e *echo) Message(c *room.Conn, binary bool, payload []byte) error {
	op := ws.OpText
	if binary {
		op = ws.OpBinary
	}
	c.Send(appendFrame(nil, op, payload))
	return nil
}
func (e *echo) Gap(*room.Room, uint64, string) []byte { return nil }
func (e *echo) Goodbye(why room.Reason) ([]byte, uint16, string) {
	return AppendText(nil, []byte("bye")), 4001, why.Name
}
func (e *echo) Closed(_ *room.Conn, why room.Reason) { e.closed <- why }

const maxMessage = 256 << 10

// server echoes on a loopback address; with TLS if secure.
type server struct {
	hub    *room.Hub
	http   *httptest.Server
	closed chan room.Reason
	stop   func()
}

func serve(t *testing.T, secure bool) *server {
	t.Helper()
	f := &room.Format{Name: "ws"}
	h, err := room.New(room.Config{Formats: []*room.Format{f}, Metrics: prometheus.NewRegistry(), MaxOwn: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{hub: h, closed: make(chan room.Reason, 1000)}
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, buffered, err := Upgrade(w, r, "irc")
		if err != nil {
			return
		}
		if _, err := h.Attach(conn, room.Options{Format: f, Handler: NewHandler(&echo{s.closed}, maxMessage), Buffered: buffered}); err != nil {
			_ = conn.Close()
		}
	}))
	if secure {
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = h.Run(ctx) })
	s.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		s.http.Close()
	})
	t.Cleanup(s.stop)
	return s
}

// dial connects and shakes hands.
func (s *server) dial(t *testing.T) net.Conn {
	t.Helper()
	d := ws.Dialer{Timeout: 10 * time.Second, TLSConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: []string{"irc"}}
	url := "ws" + s.http.URL[len("http"):]
	c, buffered, hs, err := d.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if buffered != nil {
		t.Fatal("the server spoke first")
	}
	if hs.Protocol != "irc" {
		t.Errorf("subprotocol %q", hs.Protocol)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestEcho(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, secure)
			c := s.dial(t)
			for _, size := range []int{0, 1, 125, 126, 4096, 65535, 65536, maxMessage} {
				payload := make([]byte, size)
				for i := range payload {
					payload[i] = byte(i)
				}
				if err := ws.WriteFrame(c, ws.MaskFrame(ws.NewBinaryFrame(payload))); err != nil {
					t.Fatal(err)
				}
				f, err := readFrame(c)
				if err != nil {
					t.Fatal(err)
				}
				if f.Header.OpCode != ws.OpBinary || string(f.Payload) != string(payload) {
					t.Fatalf("%d bytes came back as %d, %+v", size, len(f.Payload), f.Header)
				}
			}
			s.hub.Open("r", "")
			go s.stop()
			for _, want := range []ws.OpCode{ws.OpText, ws.OpClose} {
				f, err := readFrame(c)
				if err != nil || f.Header.OpCode != want {
					t.Fatalf("%+v, %v", f.Header, err)
				}
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Error(err)
			}
			_ = c.Close()
			if why := <-s.closed; why != room.Drained {
				t.Errorf("closed because of %v", why)
			}
		})
	}
}

// readFrame reads a frame of the server's.
func readFrame(r io.Reader) (ws.Frame, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return ws.Frame{}, err
	}
	f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}
