// Package chat is the service that carries chat: it needs Redis and nothing of the video path, and any
// chatter may be on any of its processes. Its fronts speak JSON over websocket and Twitch's dialect of IRC.
package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/chat/front/irc"
	"millrace/chat/front/ws"
	"millrace/chat/room"
	"millrace/chat/talk"
	"millrace/chat/websocket"
	"millrace/internal/gate"
)

const (
	// pingAfter is how long a connection may be silent before it is asked, and deadAfter before it is given up.
	pingAfter, deadAfter = 25 * time.Second, 60 * time.Second
	// ircPingAfter and ircDeadAfter are those of IRC, whose clients ask by themselves each minute or so.
	ircPingAfter, ircDeadAfter = 4 * time.Minute, 6 * time.Minute
)

// Config is what a [Service] needs.
type Config struct {
	// Redis is the client of this service alone.
	Redis redis.UniversalClient
	// Process is a name that no other process has.
	Process string
	// IRC and IRCS, the second one with TLS, are where IRC is spoken; either may be nil.
	IRC, IRCS net.Listener
	// Drain is how long connections have to take what waits for them when the service stops; 0: 5 s.
	Drain time.Duration
	// Origins are the pages, such as "https://example.com", that may connect besides those of the server's own host.
	Origins    []string
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Service is one process's part of chat.
type Service struct {
	Config
	hub         *room.Hub
	talk        *talk.Talk
	page        *room.Format
	tcp, socket irc.Formats

	pageLiveness, tcpLiveness, socketLiveness *room.Liveness
	refused                                   *prometheus.CounterVec
}

// New returns a service that does nothing before Run.
func New(c Config) (*Service, error) {
	s := &Service{Config: c}
	encoders := make(map[*room.Format]talk.Encode)
	page, encode := ws.NewFormat()
	s.page, encoders[page] = page, encode
	var more map[*room.Format]talk.Encode
	s.tcp, more = irc.NewFormats("irc", irc.WrapTCP)
	maps.Copy(encoders, more)
	s.socket, more = irc.NewFormats("irc-ws", irc.WrapSocket)
	maps.Copy(encoders, more)
	var err error
	s.hub, err = room.New(room.Config{
		Formats: []*room.Format{page, s.tcp.Plain, s.tcp.Full, s.socket.Plain, s.socket.Full},
		Drain:   c.Drain, Metrics: c.Registerer,
	})
	if err != nil {
		return nil, fmt.Errorf("chat: %w", err)
	}
	s.talk = talk.New(talk.Config{Redis: c.Redis, Process: c.Process, Hub: s.hub, Encoders: encoders, Log: c.Log})
	ping, ircPing := websocket.AppendPing(nil, nil), "PING :tmi.twitch.tv\r\n"
	s.pageLiveness = liveness(pingAfter, deadAfter, ping)
	s.tcpLiveness = liveness(ircPingAfter, ircDeadAfter, irc.WrapTCP(ircPing))
	s.socketLiveness = liveness(ircPingAfter, ircDeadAfter, irc.WrapSocket(ircPing))
	s.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "millrace", Subsystem: "chat", Name: "refused_connections_total", Help: "Connections to chat that were refused, by reason.",
	}, []string{"reason"})
	for _, reason := range []string{"origin", "upgrade", "full"} {
		s.refused.WithLabelValues(reason)
	}
	return s, c.Registerer.Register(s.refused)
}

func liveness(ping, dead time.Duration, frames []byte) *room.Liveness {
	return &room.Liveness{PingAfter: ping, DeadAfter: dead, Ping: func(*room.Conn) []byte { return frames }}
}

// Run carries chat until ctx ends; then connections are told to come back to another process.
func (s *Service) Run(ctx context.Context) error {
	feeding, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = s.talk.Run(feeding) })
	for _, l := range []net.Listener{s.IRC, s.IRCS} {
		if l != nil {
			running.Go(func() { s.accept(ctx, l) })
		}
	}
	return s.hub.Run(ctx)
}

// Handler serves /chat/ws and /irc.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /chat/ws", s.servePage)
	mux.HandleFunc("GET /irc", s.ServeIRC)
	return mux
}

// WantsIRC reports whether a request asks for IRC over websocket at whatever address: that is how
// Twitch's own server is spoken to.
func WantsIRC(r *http.Request) bool {
	return r.URL.Path == "/" && websocket.IsUpgrade(r) && websocket.Offers(r, "irc")
}

func (s *Service) servePage(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsUpgrade(r) {
		s.refused.WithLabelValues("upgrade").Inc()
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this address speaks websocket; a proxy in front must pass the headers Upgrade and Connection", http.StatusUpgradeRequired)
		return
	}
	if !s.mayConnect(r) {
		s.refused.WithLabelValues("origin").Inc()
		http.Error(w, "pages of another site may not connect to this chat", http.StatusForbidden)
		return
	}
	conn, _, buffered, err := websocket.Upgrade(w, r)
	if err != nil {
		return // the client has been answered
	}
	page := &ws.Session{Talk: s.talk}
	s.attach(conn, room.Options{Format: s.page, Handler: websocket.NewHandler(page, ws.MaxMessage), Liveness: s.pageLiveness, Buffered: buffered})
}

// ServeIRC speaks IRC over websocket. Any page may: it is the client's token that counts, not its browser's.
func (s *Service) ServeIRC(w http.ResponseWriter, r *http.Request) {
	conn, _, buffered, err := websocket.Upgrade(w, r, "irc")
	if err != nil {
		return // the client has been answered
	}
	c := &irc.Socket{Client: irc.Client{Talk: s.talk, Formats: s.socket, Wrap: irc.WrapSocket}}
	s.attach(conn, room.Options{Format: s.socket.Plain, Handler: websocket.NewHandler(c, irc.MaxLine), Liveness: s.socketLiveness, Buffered: buffered})
}

// accept takes connections that speak IRC.
func (s *Service) accept(ctx context.Context, l net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.Log.Warn("accept a connection for IRC", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		c := &irc.Client{Talk: s.talk, Formats: s.tcp, Wrap: irc.WrapTCP}
		if behind := gate.Of(conn); behind != nil { // one that doesn't say who it is makes room for others
			c.Welcomed = behind.Busy
		}
		s.attach(conn, room.Options{Format: s.tcp.Plain, Handler: c, Liveness: s.tcpLiveness})
	}
}

func (s *Service) attach(conn net.Conn, o room.Options) {
	if _, err := s.hub.Attach(conn, o); err != nil {
		s.refused.WithLabelValues("full").Inc()
		_ = conn.Close()
	}
}

// mayConnect keeps pages of other sites out: a browser would send this site's cookies with their requests.
// Programs that aren't browsers send no Origin.
func (s *Service) mayConnect(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	for _, o := range s.Origins {
		if origin == o {
			return true
		}
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}
