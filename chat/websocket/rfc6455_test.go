package websocket

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// client builds a client's frame: bits are its first byte.
func client(bits byte, payload string) []byte {
	n := len(payload)
	p := []byte{bits, 0x80}
	switch {
	case n < 126:
		p[1] |= byte(n)
	case n <= 0xffff:
		p[1] |= 126
		p = binary.BigEndian.AppendUint16(p, uint16(n))
	default:
		p[1] |= 127
		p = binary.BigEndian.AppendUint64(p, uint64(n))
	}
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	p = append(p, mask[:]...)
	body := []byte(payload)
	ws.Cipher(body, mask, 0)
	return append(p, body...)
}

const (
	final  = 0x80
	cont   = 0
	txt    = 1
	bin    = 2
	closeF = 8
	ping   = 9
	pong   = 10
)

// closeFrame is a client's close frame.
func closeFrame(n int, text string) []byte {
	return client(final|closeF, string([]byte{byte(n >> 8), byte(n)})+text)
}

// answer is a frame that the server is to send.
type answer struct {
	op      ws.OpCode
	payload string // of a close frame: its code
}

func text(s string) answer   { return answer{ws.OpText, s} }
func bytes_(s string) answer { return answer{ws.OpBinary, s} }
func ponged(s string) answer { return answer{ws.OpPong, s} }
func closed(n int) answer    { return answer{ws.OpClose, fmt.Sprint(n)} }

// exchange is what a client sends and what it must get. If the server isn't to close, the client does, in the
// end, with 1000.
type exchange struct {
	name string
	send [][]byte
	want []answer
}

func one(name string, send []byte, want ...answer) exchange {
	return exchange{name, [][]byte{send}, want}
}

// autobahn are the cases of the Autobahn test suite's list, by its numbers, as far as they don't concern compression
// (12, 13: it isn't offered) and time (9.7, 9.8).
func autobahn() []exchange {
	var list []exchange
	add := func(e ...exchange) { list = append(list, e...) }
	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536} {
		s := strings.Repeat("*", n)
		add(one(fmt.Sprintf("1.1.%d text of %d", i+1, n), client(final|txt, s), text(s)))
		s = strings.Repeat("\xfe", n)
		add(one(fmt.Sprintf("1.2.%d binary of %d", i+1, n), client(final|bin, s), bytes_(s)))
	}
	full := strings.Repeat("\xfe", 125)
	add(
		one("2.1 ping", client(final|ping, ""), ponged("")),
		one("2.2 ping with text", client(final|ping, "Hello, world!"), ponged("Hello, world!")),
		one("2.3 ping with bytes", client(final|ping, "\x00\xff\xfe\xfd"), ponged("\x00\xff\xfe\xfd")),
		one("2.4 ping of 125", client(final|ping, full), ponged(full)),
		one("2.5 ping of 126", client(final|ping, full+"\xfe"), closed(1002)),
		one("2.7 pong", client(final|pong, "")),
		one("2.8 pong with text", client(final|pong, "unsolicited")),
		exchange{"2.9 pong, ping", [][]byte{client(final|pong, "unsolicited"), client(final|ping, "p")}, []answer{ponged("p")}},
		exchange{"2.10 ten pings", repeat(10, client(final|ping, "p")), many(10, ponged("p"))},
	)
	for i, bits := range []byte{0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70} {
		kind := []byte{txt, txt, txt, txt, bin, ping, closeF}[i]
		add(exchange{fmt.Sprintf("3.%d reserved bits %#x", i+1, bits), [][]byte{client(final|txt, "before"), client(final|bits|kind, "x"), client(final|ping, "")},
			[]answer{text("before"), closed(1002)}})
	}
	for op := byte(3); op < 16; op++ {
		if op >= 8 && op <= 10 {
			continue
		}
		for _, payload := range []string{"", "x"} {
			add(exchange{fmt.Sprintf("4 opcode %d %q", op, payload), [][]byte{client(final|txt, "before"), client(final|op, payload), client(final|ping, "")},
				[]answer{text("before"), closed(1002)}})
		}
	}
	return append(append(append(list, fragments()...), utf8Cases()...), closes()...)
}

func repeat(n int, p []byte) (list [][]byte) {
	for range n {
		list = append(list, p)
	}
	return list
}

func many(n int, a answer) (list []answer) {
	for range n {
		list = append(list, a)
	}
	return list
}

func fragments() []exchange {
	a, b, end := client(txt, "fragment1"), client(final|cont, "fragment2"), client(final|ping, "between")
	whole := text("fragment1fragment2")
	big := strings.Repeat("*", 50)
	auto := [][]byte{client(txt, big)}
	for range 1309 {
		auto = append(auto, client(cont, big))
	}
	return []exchange{
		one("5.1 ping in fragments", client(ping, "x"), closed(1002)),
		one("5.2 pong in fragments", client(pong, "x"), closed(1002)),
		{"5.3 text in fragments", [][]byte{a, b}, []answer{whole}},
		{"5.6 ping between", [][]byte{a, end, b}, []answer{ponged("between"), whole}},
		{"5.9 continuation of nothing, final", [][]byte{client(final|cont, "x"), client(final|txt, "y")}, []answer{closed(1002)}},
		{"5.12 continuation of nothing", [][]byte{client(cont, "x"), client(final|txt, "y")}, []answer{closed(1002)}},
		{"5.15 text in fragments, continuation of nothing", [][]byte{a, b, client(cont, "x"), client(final|txt, "y")}, []answer{whole, closed(1002)}},
		{"5.18 text in text", [][]byte{a, client(final|txt, "fragment2")}, []answer{closed(1002)}},
		{"5.19 pings between fragments", [][]byte{a, client(cont, "2"), client(final|ping, "1st"), client(cont, "3"), client(cont, "4"), client(final|ping, "2nd"), client(final|cont, "5")},
			[]answer{ponged("1st"), ponged("2nd"), text("fragment12345")}},
		{"6.1.2 empty fragments", [][]byte{client(txt, ""), client(cont, ""), client(final|cont, "")}, []answer{text("")}},
		{"6.1.3 empty fragments with one that isn't", [][]byte{client(txt, ""), client(cont, "middle"), client(final|cont, "")}, []answer{text("middle")}},
		{"9 one that is too large", [][]byte{client(final|bin, strings.Repeat("x", maxMessage+1))[:14]}, []answer{closed(1009)}},
		{"9 too large in fragments", [][]byte{client(bin, strings.Repeat("x", maxMessage)), client(final|cont, "x")[:7]}, []answer{closed(1009)}},
		{"10.1 65,500 in 1,310 fragments", append(auto, client(final|cont, "")), []answer{text(strings.Repeat(big, 1310))}},
		one("not masked", []byte{final | txt, 1, 'x'}, closed(1002)),
		one("a length with its first bit set", []byte{final | txt, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, closed(1002)),
	}
}

func utf8Cases() []exchange {
	var list []exchange
	for i, s := range []string{
		"Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\x00", "\u0080", "ࠀ", "\U00010000", "\x7f", "߿", "\uffff", "\U0010ffff", "\ud7ff", "\ue000", "\ufffd", "\U0001f600",
	} {
		list = append(list, one(fmt.Sprintf("6.5 valid %d", i), client(final|txt, s), text(s)))
		var pieces [][]byte // each byte is a fragment
		for k := range len(s) {
			bits := byte(cont)
			if k == 0 {
				bits = txt
			}
			pieces = append(pieces, client(bits, s[k:k+1]))
		}
		list = append(list, exchange{fmt.Sprintf("6.2 valid %d in fragments", i), append(pieces, client(final|cont, "")), []answer{text(s)}})
	}
	for i, s := range []string{
		"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64", "\x80", "\xbf", "\x80\xbf", "\xfe", "\xff", "\xc0\xaf", "\xe0\x80\xaf",
		"\xf0\x80\x80\xaf", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf4\x90\x80\x80", "\xc0", "\xe0\x80", "a\xce", "\xf0\x9f\x98",
	} {
		list = append(list,
			one(fmt.Sprintf("6.3 invalid %d", i), client(final|txt, s), closed(1007)),
			exchange{fmt.Sprintf("6.4 invalid %d in fragments", i), [][]byte{client(txt, s[:len(s)/2]), client(cont, s[len(s)/2:]), client(final|cont, "")}, []answer{closed(1007)}})
	}
	// Fail as soon as it can be seen: the rest never comes.
	return append(list, one("6.4.2 invalid before the end", client(txt, "\xf4\x90"), closed(1007)))
}

func closes() []exchange {
	reason := strings.Repeat("*", 123)
	list := []exchange{
		{"7.1.1 text, close", [][]byte{client(final|txt, "x"), closeFrame(1000, "")}, []answer{text("x"), closed(1000)}},
		{"7.1.2 close twice", repeat(2, closeFrame(1000, "")), []answer{closed(1000)}},
		{"7.1.3 close, ping", [][]byte{closeFrame(1000, ""), client(final|ping, "")}, []answer{closed(1000)}},
		{"7.1.4 close, text", [][]byte{closeFrame(1000, ""), client(final|txt, "x")}, []answer{closed(1000)}},
		{"7.1.5 fragment, close, fragment", [][]byte{client(txt, "1"), closeFrame(1000, ""), client(final|cont, "2")}, []answer{closed(1000)}},
		one("7.3.1 close without a code", client(final|closeF, ""), closed(0)),
		one("7.3.2 half a code", client(final|closeF, "a"), closed(1002)),
		one("7.3.4 code and text", closeFrame(1000, "Hello, world!"), closed(1000)),
		one("7.3.5 longest text", closeFrame(1000, reason), closed(1000)),
		one("7.3.6 text too long", closeFrame(1000, reason+"*"), closed(1002)),
		one("7.5.1 text that isn't UTF-8", closeFrame(1000, "\xce\xba\xed\xa0\x80"), closed(1007)),
	}
	for _, n := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		list = append(list, one(fmt.Sprintf("7.7 code %d", n), closeFrame(n, ""), closed(n)))
	}
	for _, n := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		list = append(list, one(fmt.Sprintf("7.9 code %d", n), closeFrame(n, ""), closed(1002)))
	}
	return list
}

// TestAutobahn runs each case over a real connection, as it is and a byte at a time.
func TestAutobahn(t *testing.T) {
	s := serve(t, false)
	for _, e := range autobahn() {
		t.Run(e.name, func(t *testing.T) {
			all := bytes.Join(e.send, nil)
			e.run(t, s.dial(t), [][]byte{all})
			if len(e.send) > 1 {
				e.run(t, s.dial(t), e.send)
			}
			if len(all) < 300 {
				var bytes [][]byte
				for i := range all {
					bytes = append(bytes, all[i:i+1])
				}
				e.run(t, s.dial(t), bytes)
			}
		})
	}
}

func (e exchange) run(t *testing.T, c net.Conn, send [][]byte) {
	t.Helper()
	want := e.want
	if len(want) == 0 || want[len(want)-1].op != ws.OpClose {
		want, send = append(want[:len(want):len(want)], closed(1000)), append(send[:len(send):len(send)], closeFrame(1000, ""))
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for _, p := range send {
			if _, err := c.Write(p); err != nil {
				return // it is closed
			}
		}
	}()
	for i, w := range want {
		f, err := readFrame(c)
		if err != nil {
			t.Fatalf("answer %d: %v, want %.40v", i, err, w)
		}
		got := answer{f.Header.OpCode, string(f.Payload)}
		if got.op == ws.OpClose {
			got.payload = fmt.Sprint(uint16(closeCode(f.Payload)))
		}
		if got != w || f.Header.Masked || !f.Header.Fin {
			t.Fatalf("answer %d: %.40v, want %.40v", i, got, w)
		}
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Fatalf("after the close frame: %q, %v", rest, err)
	}
	_ = c.Close()
	<-sent
}

func closeCode(p []byte) uint16 {
	if len(p) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(p)
}
