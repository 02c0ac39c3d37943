package websocket

import (
	"bufio"
	"net"
	"net/http"
	"time"

	"github.com/gobwas/ws"
)

// upgradeLimit is how long writing the answer to a handshake may take.
const upgradeLimit = 5 * time.Second

// Upgrade answers a request to speak websocket. The first protocol of the client's list that is in protocols is chosen;
// none is no error. Extensions (compression) aren't offered. What the client sent behind its request is returned, for
// room.Options.Buffered. After an error the client has been answered and its connection is closed.
//
// Who may connect (Origin) is checked by the caller before.
func Upgrade(w http.ResponseWriter, r *http.Request, protocols ...string) (conn net.Conn, protocol string, buffered []byte, err error) {
	u := ws.HTTPUpgrader{Timeout: upgradeLimit, Protocol: func(offered string) bool {
		for _, p := range protocols {
			if p == offered {
				return true
			}
		}
		return false
	}}
	conn, rw, handshake, err := u.Upgrade(r, hijacker{w})
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return nil, "", nil, err
	}
	buffered = make([]byte, rw.Reader.Buffered())
	_, _ = rw.Reader.Read(buffered) // from memory
	return conn, handshake.Protocol, buffered, nil
}

// hijacker finds the connection below what a server's middleware has wrapped.
type hijacker struct{ http.ResponseWriter }

// Hijack hands the connection over.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

// IsUpgrade reports whether a request asks for websocket.
func IsUpgrade(r *http.Request) bool {
	return hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

// Offers reports whether a request offers a subprotocol.
func Offers(r *http.Request, protocol string) bool {
	return hasToken(r.Header["Sec-Websocket-Protocol"], protocol)
}
