package main

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

// members are the connections of each room.
type members[C comparable] struct {
	mu    sync.RWMutex
	rooms map[string]map[C]struct{}
}

func newMembers[C comparable]() *members[C] { return &members[C]{rooms: map[string]map[C]struct{}{}} }

func (m *members[C]) join(room string, c C) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rooms[room] == nil {
		m.rooms[room] = map[C]struct{}{}
	}
	m.rooms[room][c] = struct{}{}
}

func (m *members[C]) leave(room string, c C) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.rooms[room], c)
}

func (m *members[C]) each(room string, fn func(c C)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for c := range m.rooms[room] {
		fn(c)
	}
}

func message(room string, data []byte) []byte {
	return fmt.Appendf(nil, `{"kind":"message","room":%q,"id":"%d-0","data":%s}`, room, time.Now().UnixNano(), data)
}

// newGorilla is a goroutine for reading and one for writing per connection, as gorilla's chat example has it.
func newGorilla() (http.Handler, error) {
	type conn struct {
		send chan *websocket.PreparedMessage
	}
	all := newMembers[*conn]()
	u := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, ReadBufferSize: 1024, WriteBufferPool: &sync.Pool{}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		room := r.URL.Query().Get("room")
		ws, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &conn{send: make(chan *websocket.PreparedMessage, 16)}
		all.join(room, c)
		go func() {
			for m := range c.send {
				if ws.WritePreparedMessage(m) != nil {
					_ = ws.Close()
				}
			}
		}()
		go func() {
			defer func() { all.leave(room, c); close(c.send); _ = ws.Close() }()
			for {
				_, data, err := ws.ReadMessage()
				if err != nil {
					return
				}
				m, _ := websocket.NewPreparedMessage(websocket.TextMessage, message(room, data))
				all.each(room, func(c *conn) {
					select {
					case c.send <- m:
					default: // it misses this one
					}
				})
			}
		}()
	}), nil
}

// newGWS is gws with its Broadcaster.
func newGWS() (http.Handler, error) {
	e := &gwsEvents{all: newMembers[*gws.Conn]()}
	u := gws.NewUpgrader(e, &gws.ServerOption{ReadBufferSize: 1024, ParallelEnabled: false, Authorize: func(r *http.Request, s gws.SessionStorage) bool {
		s.Store("room", r.URL.Query().Get("room"))
		return true
	}})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r)
		if err != nil {
			return
		}
		go c.ReadLoop()
	}), nil
}

type gwsEvents struct {
	gws.BuiltinEventHandler
	all *members[*gws.Conn]
}

func roomOf(c *gws.Conn) string {
	v, _ := c.Session().Load("room")
	s, _ := v.(string)
	return s
}

// OnOpen joins.
func (e *gwsEvents) OnOpen(c *gws.Conn) { e.all.join(roomOf(c), c) }

// OnClose leaves.
func (e *gwsEvents) OnClose(c *gws.Conn, _ error) { e.all.leave(roomOf(c), c) }

// OnMessage publishes.
func (e *gwsEvents) OnMessage(c *gws.Conn, m *gws.Message) {
	defer func() { _ = m.Close() }()
	b := gws.NewBroadcaster(gws.OpcodeText, message(roomOf(c), m.Bytes()))
	defer func() { _ = b.Close() }()
	e.all.each(roomOf(c), func(c *gws.Conn) { _ = b.Broadcast(c) })
}
