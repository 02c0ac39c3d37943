package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/chat/room"
	"millrace/chat/websocket"
)

// millrace is chat's engine with a front that does what the peers do.
type millrace struct {
	hub    *room.Hub
	format *room.Format
	live   *room.Liveness

	mu  sync.Mutex
	ids atomic.Uint64
}

func newMillrace() (http.Handler, error) {
	f := &room.Format{Name: "ws"}
	h, err := room.New(room.Config{Formats: []*room.Format{f}, Metrics: prometheus.NewRegistry()})
	if err != nil {
		return nil, err
	}
	go func() { _ = h.Run(context.Background()) }()
	ping := websocket.AppendPing(nil, nil)
	return &millrace{hub: h, format: f, live: &room.Liveness{
		PingAfter: 25 * time.Second, DeadAfter: 60 * time.Second, Ping: func(*room.Conn) []byte { return ping },
	}}, nil
}

func (m *millrace) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in := m.hub.Open(r.URL.Query().Get("room"), "0-0")
	conn, _, buffered, err := websocket.Upgrade(w, r)
	if err != nil {
		return
	}
	s := &millraceSession{m, in}
	c, err := m.hub.Attach(conn, room.Options{
		Format: m.format, Handler: websocket.NewHandler(s, 16<<10), Liveness: m.live, Buffered: buffered,
	})
	if err != nil {
		_ = conn.Close()
		return
	}
	_ = in.Join(c, room.Live())
}

// publish gives a message its id and puts it into the room.
func (m *millrace) publish(r *room.Room, data []byte) {
	text := string(data)
	m.mu.Lock()
	defer m.mu.Unlock()
	id := strconv.FormatUint(m.ids.Add(1), 10) + "-0"
	r.Publish(room.Entry{ID: id, Encode: func(*room.Format) []byte {
		return websocket.AppendText(nil, fmt.Appendf(nil, `{"kind":"message","room":%q,"id":%q,"data":%s}`, r.Name(), id, text))
	}})
}

type millraceSession struct {
	m  *millrace
	in *room.Room
}

func (s *millraceSession) Message(_ *room.Conn, _ bool, payload []byte) error {
	s.m.publish(s.in, payload)
	return nil
}

func (s *millraceSession) Gap(r *room.Room, missed uint64, newest string) []byte {
	return websocket.AppendText(nil, fmt.Appendf(nil, `{"kind":"gap","room":%q,"missed":%d,"newest":%q}`, r.Name(), missed, newest))
}

func (s *millraceSession) Goodbye(why room.Reason) ([]byte, uint16, string) {
	return nil, 4000, why.Name
}
func (s *millraceSession) Closed(*room.Conn, room.Reason) {}
