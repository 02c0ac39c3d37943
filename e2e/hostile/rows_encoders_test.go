//go:build hostile

package hostile

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/e2e/harness"
)

// encoderRows speak RTMP without a key.
func encoderRows() []row {
	return []row{
		{name: "RTMP: keys guessed from 8 addresses", on: plain, target: "≤ 100 and 10 a second looked at of each address", attack: guessKeys},
		{name: "RTMP: handshakes, 500 a second", on: plain, target: "an encoder with its key is let in", attack: handshakes},
		{name: "RTMP: AMF bombs", on: plain, target: "each connection ended", attack: amfBombs},
		{name: "RTMP: chunk streams without end", on: plain, target: "each connection ended", attack: chunkStreams},
		{name: "RTMP: control messages without end", on: plain, target: "others go on", attack: controls},
	}
}

func guessKeys(a *attack) {
	const lasts = 8 * time.Second
	var heard atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	for n := range 8 {
		for range 3 {
			group.Go(func() {
				for i := 0; time.Since(began) < lasts; i++ {
					e, err := a.encoder(stranger(n))
					if err != nil {
						a.answered("closed")
						time.Sleep(20 * time.Millisecond)
						continue
					}
					a.requests.Add(1)
					if e.Publish(fmt.Sprintf("live_guess%d", i)) == nil && strings.Contains(e.Said(), "Denied") {
						heard.Add(1)
						a.answered("denied")
					} else {
						a.answered("not heard")
					}
					e.Close()
				}
			})
		}
	}
	group.Wait()
	a.check(heard.Load() > 0, "no key was looked at")
	a.bounded("keys looked at", float64(heard.Load()), 8*(100+10*(lasts.Seconds()+2)))
}

func handshakes(a *attack) {
	const rate, lasts = 500, 8 * time.Second
	began := time.Now()
	var next atomic.Int64
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for {
				n := next.Add(1)
				due := time.Duration(n) * time.Second / rate
				if due > lasts {
					return
				}
				time.Sleep(time.Until(began.Add(due)))
				conn, err := a.dial(a.t.Context(), stranger(int(n)%40), a.server.RTMP)
				if err != nil {
					a.answered("no connection")
					continue
				}
				if _, err := conn.Write(append([]byte{3}, make([]byte, 1536)...)); err != nil {
					a.answered("closed")
				}
				_ = conn.Close()
			}
		})
	}
	key := a.server.Channel("handshakes")
	for range 5 {
		time.Sleep(lasts / 6)
		if err := publishes(a.server.RTMP, key); err != nil {
			a.problem("an encoder with its key: %v", err)
		}
	}
	group.Wait()
}

// bombs are values that are small on the wire and large, deep or endless when read.
func bombs() map[string][]byte {
	command := []byte("\x02\x00\x07connect\x00\x3f\xf0\x00\x00\x00\x00\x00\x00")
	deep := func(open string) []byte { return append(bytes.Clone(command), strings.Repeat(open, 12000)...) }
	return map[string][]byte{
		"objects in objects":   deep("\x03\x00\x01a"),
		"arrays in arrays":     deep("\x0a\xff\xff\xff\xff"),
		"ECMA arrays":          deep("\x08\xff\xff\xff\xff\x00\x01a"),
		"a string of 4 GB":     append(bytes.Clone(command), "\x0c\xff\xff\xff\xff"...),
		"an array of 2^32":     append(bytes.Clone(command), "\x0a\xff\xff\xff\xff\x05\x05"...),
		"many small values":    append(bytes.Clone(command), bytes.Repeat([]byte{5}, 60000)...),
		"typed objects":        deep("\x10\x00\x01t\x00\x01a"),
		"an object, one name":  append(append(bytes.Clone(command), 3), strings.Repeat("\x00\x01a\x05", 15000)...),
		"AMF3":                 deep("\x11\x0a\x0b\x01"),
		"references to itself": deep("\x07\x00\x00"),
	}
}

func amfBombs(a *attack) {
	key := a.server.Channel("bombs")
	for round := range 10 {
		for what, body := range bombs() {
			e, err := a.encoder(stranger(round))
			if err != nil {
				a.answered("closed")
				continue
			}
			for range 4 {
				_ = e.Message(3, 20, 0, 0, body)
			}
			_ = e.Flush() // the server may have been faster
			a.requests.Add(4)
			a.ends(e, what, 17*time.Second, round == 0)
		}
	}
	// With a key, as metadata: it may be dropped, and no more.
	for what, body := range bombs() {
		e, err := a.publisher(stranger(20), key)
		if err != nil {
			a.answered("not let in")
			continue
		}
		_ = e.Message(4, 18, 1, 0, append([]byte("\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData"), body[19:]...))
		_ = e.Flush()
		a.requests.Add(1)
		e.Close()
		_ = what
	}
}

// ends checks that the server ends a connection; unless wait is set, nobody waits
// for it.
func (a *attack) ends(e *harness.Encoder, what string, limit time.Duration, wait bool) {
	if wait {
		select {
		case <-e.Gone:
			a.answered("ended")
		case <-time.After(limit):
			a.problem("%s: the connection is still open after %s", what, limit)
		}
	}
	e.Close()
}

// chunkStreams begins a message on as many chunk streams as there are.
func chunkStreams(a *attack) {
	var group sync.WaitGroup
	var open atomic.Int64
	for n := range 40 {
		group.Go(func() {
			e, err := a.encoder(stranger(n % 8))
			if err != nil {
				a.answered("closed")
				return
			}
			defer e.Close()
			var b bytes.Buffer
			for id := 64; id < 5000; id++ {
				b.Write([]byte{1, byte(id - 64), byte((id - 64) >> 8), 0, 0, 0, 0, 0xfa, 0, 8, 0, 0, 0, 0}) // 64,000 bytes of sound
				b.Write(make([]byte, 128))
				a.requests.Add(1)
				if b.Len() > 64<<10 {
					if _, err := e.Conn.Write(b.Bytes()); err != nil {
						break
					}
					b.Reset()
				}
			}
			select {
			case <-e.Gone:
				a.answered("ended")
			case <-time.After(17 * time.Second):
				open.Add(1)
			}
		})
	}
	group.Wait()
	a.check(open.Load() == 0, "%d connections are still open", open.Load())
}

// controls sends control messages: sizes of chunks, acknowledgements, pings.
func controls(a *attack) {
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			e, err := a.encoder(stranger(n))
			if err != nil {
				a.answered("closed")
				return
			}
			defer e.Close()
			began := time.Now()
			for i := 0; time.Since(began) < 6*time.Second; i++ {
				switch i % 4 {
				case 0:
					err = e.Message(2, 4, 0, 0, []byte{0, 6, 0, 0, byte(i), byte(i >> 8)}) // a ping request
				case 1:
					err = e.Message(2, 5, 0, 0, []byte{0, 0, 0, 1})
				case 2:
					err = e.Message(2, 3, 0, 0, []byte{0xff, 0xff, 0xff, 0xff})
				default:
					err = e.Message(2, 2, 0, 0, []byte{0, 0, 0, byte(i)})
				}
				a.requests.Add(1)
				if i%1000 == 999 {
					time.Sleep(20 * time.Millisecond)
				}
				if err != nil {
					a.answered("ended")
					return
				}
			}
			a.answered("still open")
		})
	}
	group.Wait()
}
