//go:build hostile

package hostile

import (
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/e2e/harness"
)

// keepAlive is a request after which a connection stays open.
const keepAlive = "GET /api/v1/channels HTTP/1.1\r\nHost: x\r\n\r\n"

// connectionRows hold connections and do nothing with them, or very slowly.
func connectionRows() []row {
	const all = "pages, video, RTMP, operators and redis-server go on for others"
	return []row{
		{
			name: "1,200 idle connections of one address", short: true, on: small, target: all,
			attack: func(a *attack) { idleConnections(a, 1, 1200) },
		},
		{
			name: "1,200 idle connections of 40 addresses", on: small, target: all,
			attack: func(a *attack) { idleConnections(a, 40, 30) },
		},
		{
			name: "1,200 idle connections to RTMP of 40 addresses", on: small, target: all,
			attack: func(a *attack) {
				held := a.idle(a.server.RTMP, "\x03", 40, 30)
				a.othersGoOn(held, 18*time.Second)
			},
		},
		{
			name: "slowloris: heads, a byte a second", on: plain, target: "each closed within 13 s",
			attack: func(a *attack) {
				a.drip(a.web(), 200, "", "GET /api/v1/channels HTTP/1.1\r\nHost: x\r\nA: aaaaaaaaaaaaaaaa", 13*time.Second)
			},
		},
		{
			name: "slowloris: bodies, a byte a second", on: plain, target: "each closed within 20 s",
			attack: func(a *attack) {
				a.drip(a.web(), 200, "POST /api/v1/channels HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", strings.Repeat("x", 60), 20*time.Second)
			},
		},
		{
			name: "slowloris: TLS handshakes, a byte a second", on: plain, target: "each closed within 13 s",
			attack: func(a *attack) {
				a.drip(a.https, 200, "", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("x", 60), 13*time.Second)
			},
		},
		{
			name: "slowloris: RTMP handshakes, a byte a second", on: plain, target: "each closed within 13 s",
			attack: func(a *attack) { a.drip(a.server.RTMP, 200, "", "\x03"+strings.Repeat("x", 60), 13*time.Second) },
		},
		{
			name: "TLS handshakes, 150 a second", on: plain, target: "others go on",
			attack: tlsHandshakes,
		},
		{
			name: "wrong protocols", on: plain, target: "each closed within 13 s",
			attack: wrongProtocols,
		},
	}
}

func idleConnections(a *attack, strangers, each int) {
	held := a.idle(a.web(), keepAlive, strangers, each)
	a.othersGoOn(held, lengthOf(20*time.Second)) // a redis-server that is silent for 15 s is killed
}

// othersGoOn checks while connections are held that all else is served.
func (a *attack) othersGoOn(held *idlers, lasts time.Duration) {
	key := a.server.Channel(fmt.Sprintf("other%d", time.Now().UnixMilli()))
	most := int64(0)
	client := a.client("127.0.0.1", 1, false)
	client.Timeout = 3 * time.Second
	defer client.CloseIdleConnections()
	failed := make(map[string]int)
	for end, n := time.Now().Add(lasts), 0; time.Now().Before(end); n++ {
		time.Sleep(300 * time.Millisecond)
		most = max(most, held.open.Load())
		client.CloseIdleConnections() // a new viewer each time
		for _, at := range []string{a.server.HTTP + "/", a.server.Playlist("demo"), "http://" + a.server.Ops + "/healthz"} {
			if status, _, _ := a.ask(client, a.request("GET", at)); status != "200" {
				failed[at[strings.LastIndexByte(at, '/'):]+" "+status]++
			}
		}
		if n%2 == 1 {
			if err := publishes(a.server.RTMP, key); err != nil {
				failed["RTMP: "+err.Error()]++
			}
		}
	}
	for _, what := range sortedKeys(failed) {
		a.problem("%d × %.200s", failed[what], what)
	}
	a.note("at most %d held", most)
}

// publishes checks that an encoder is let in.
func publishes(address, key string) error {
	e, err := harness.DialEncoder(address)
	if err != nil {
		return err
	}
	defer e.Close()
	if err := e.Publish(key); err != nil {
		return err
	}
	return nil
}

// drip opens connections, says something and goes on a byte a second; each has to be
// closed within the limit.
func (a *attack) drip(to string, n int, first, rest string, limit time.Duration) {
	var group sync.WaitGroup
	var longest, open atomic.Int64
	for i := range n {
		group.Go(func() {
			conn, err := a.dial(a.t.Context(), stranger(i%8), to)
			if err != nil {
				a.answered("no connection")
				return
			}
			defer conn.Close()
			began := time.Now()
			stop := make(chan struct{})
			var writing sync.WaitGroup
			writing.Go(func() {
				_, _ = io.WriteString(conn, first)
				for i := range rest {
					if _, err := io.WriteString(conn, rest[i:i+1]); err != nil {
						return
					}
					select {
					case <-stop:
						return
					case <-time.After(time.Second):
					}
				}
			})
			if hungUp(conn, limit) != nil {
				open.Add(1)
			}
			longest.Store(max(longest.Load(), int64(time.Since(began))))
			close(stop)
			writing.Wait()
		})
	}
	group.Wait()
	a.check(open.Load() == 0, "%d connections are still open after %s", open.Load(), limit)
	a.note("the last closed after %.1f s", time.Duration(longest.Load()).Seconds())
}

// tlsHandshakes shakes hands as often as it can at a rate.
func tlsHandshakes(a *attack) {
	const rate, lasts = 150, 10 * time.Second
	began := time.Now()
	var next atomic.Int64
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for {
				due := time.Duration(next.Add(1)) * time.Second / rate
				if due > lasts {
					return
				}
				time.Sleep(time.Until(began.Add(due)))
				conn, err := a.dial(a.t.Context(), stranger(0), a.https)
				if err != nil {
					a.answered("no connection")
					continue
				}
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				if tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(a.t.Context()) != nil {
					a.answered("refused")
				} else {
					a.answered("shaken")
				}
				_ = conn.Close()
			}
		})
	}
	group.Wait()
}

// wrongProtocols says to each port what belongs to another.
func wrongProtocols(a *attack) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	hello := "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
	rtmp := "\x03" + strings.Repeat("\x00", 1536)
	garbage := strings.Repeat("\xff\xfe\x00\x01", 2048)
	ports := map[string]string{"HTTP": a.web(), "HTTPS": a.https, "RTMP": a.server.RTMP, "RTMPS": a.rtmps}
	said := map[string]string{"an HTTP/2 preface": preface, "HTTP": keepAlive, "TLS": hello, "RTMP": rtmp, "garbage": garbage, "nothing": ""}
	var group sync.WaitGroup
	var mu sync.Mutex
	var wrong []string
	for port, address := range ports {
		for what, text := range said {
			if port == "HTTP" && (what == "HTTP" || what == "an HTTP/2 preface") || port == "RTMP" && what == "RTMP" {
				continue // it belongs there
			}
			group.Go(func() {
				if _, closed := a.raw(stranger(0), address, text, 13*time.Second); !closed {
					mu.Lock()
					defer mu.Unlock()
					wrong = append(wrong, what+" to "+port+" is still open")
				}
			})
		}
	}
	group.Wait()
	a.check(len(wrong) == 0, "%s", strings.Join(wrong, "; "))
}
