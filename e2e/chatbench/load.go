package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// loadOptions say what the load does. It connects and prints "ready"; then for each line that it reads it
// publishes for some seconds and prints a result. At the end of its input it ends.
type loadOptions struct {
	Host       string // 127.0.0.1:8080
	Centrifuge bool   // its protocol
	Secure     bool   // TLS; then nothing is published
	Groups     []group
	Warm       time.Duration // before it is counted
	For        time.Duration
}

// group is rooms of the same size.
type group struct {
	Name  string
	Rooms int
	Conns int     // in each room
	Rate  float64 // messages a second, in all its rooms together
}

// result is what a group's connections got.
type result struct {
	Name       string
	Sent       int
	Deliveries int
	P50, P99   time.Duration
}

// token stands in each message once, before the time at which it was sent.
var token = []byte(`"ts":`)

// member is a connection.
type member struct {
	fd      int
	group   int
	sampled bool
	tail    []byte // the last bytes read, of which a token may be cut
}

// loader holds the connections.
type loader struct {
	o       loadOptions
	members []*member
	rooms   [][][]*member // by group and room
	counts  []counts
	counted atomic.Bool
	lost    atomic.Int64
}

type counts struct {
	sent, got atomic.Int64
	mu        sync.Mutex
	delays    []time.Duration
}

func load(o loadOptions) error {
	raise()
	if o.Secure {
		return holdTLS(o)
	}
	l := &loader{o: o, counts: make([]counts, len(o.Groups))}
	if err := l.connect(); err != nil {
		return err
	}
	poll, err := l.watch()
	if err != nil {
		return err
	}
	go l.read(poll)
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		_ = json.NewEncoder(os.Stdout).Encode(l.measure())
	}
	return nil
}

// raise lifts the limit on open files as far as it may.
func raise() {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) == nil {
		r.Cur = r.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r)
	}
}

// connect opens all connections, 32 at a time, to several loopback addresses.
func (l *loader) connect() error {
	type job struct{ group, room int }
	jobs := make(chan job)
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for j := range jobs {
				fd, err := l.dial(j.group, j.room)
				mu.Lock()
				if err != nil {
					failed = errors.Join(failed, err)
				} else {
					m := &member{fd: fd, group: j.group, sampled: len(l.members)%8 == 0}
					l.members = append(l.members, m)
					l.rooms[j.group][j.room] = append(l.rooms[j.group][j.room], m)
				}
				mu.Unlock()
			}
		})
	}
	for i, g := range l.o.Groups {
		mu.Lock()
		l.rooms = append(l.rooms, make([][]*member, g.Rooms))
		mu.Unlock()
		for n := range g.Rooms * g.Conns {
			jobs <- job{i, n % g.Rooms}
		}
	}
	close(jobs)
	wg.Wait()
	return failed
}

// dial connects, shakes hands, and returns the socket.
func (l *loader) dial(group, room int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	_, port, _ := strings.Cut(l.o.Host, ":")
	n, _ := strconv.Atoi(port)
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, byte(1 + rand.IntN(4))}}); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	_ = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 30})
	request := fmt.Sprintf("GET /chat?room=%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", l.name(group, room))
	if _, err := syscall.Write(fd, []byte(request)); err != nil {
		return 0, err
	}
	if err := readUntil(fd, "\r\n\r\n"); err != nil {
		return 0, err
	}
	if l.o.Centrifuge {
		if _, err := syscall.Write(fd, frame([]byte(`{"id":1,"connect":{}}`))); err != nil {
			return 0, err
		}
		if err := readUntil(fd, `"connect"`); err != nil {
			return 0, err
		}
	}
	return fd, syscall.SetNonblock(fd, true)
}

func (l *loader) name(group, room int) string {
	return fmt.Sprintf("%s%d", l.o.Groups[group].Name, room)
}

func readUntil(fd int, end string) error {
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(end)) {
		n, err := syscall.Read(fd, buf)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if n <= 0 {
			return fmt.Errorf("handshake: %v after %q", err, got)
		}
		got = append(got, buf[:n]...)
	}
	return nil
}

// frame is a text frame of a client, masked with zeros.
func frame(p []byte) []byte {
	if len(p) < 126 {
		return append([]byte{0x81, 0x80 | byte(len(p)), 0, 0, 0, 0}, p...)
	}
	return append([]byte{0x81, 0x80 | 126, byte(len(p) >> 8), byte(len(p)), 0, 0, 0, 0}, p...)
}

func (l *loader) watch() (int, error) {
	poll, err := syscall.EpollCreate1(0)
	if err != nil {
		return 0, err
	}
	for i, m := range l.members {
		if err := syscall.EpollCtl(poll, syscall.EPOLL_CTL_ADD, m.fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}); err != nil {
			return 0, err
		}
	}
	return poll, nil
}

const tailSize = 40

// read reads all connections and counts messages.
func (l *loader) read(poll int) {
	events := make([]syscall.EpollEvent, 1024)
	buf := make([]byte, tailSize+256<<10)
	for {
		n, err := syscall.EpollWait(poll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
		now := time.Now()
		for _, e := range events[:max(n, 0)] {
			m := l.members[e.Fd]
			k := copy(buf[tailSize-len(m.tail):], m.tail)
			n, err := syscall.Read(m.fd, buf[tailSize:])
			if n <= 0 {
				if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR) {
					l.lost.Add(1)
					_ = syscall.EpollCtl(poll, syscall.EPOLL_CTL_DEL, m.fd, nil)
				}
				continue
			}
			l.count(m, buf[tailSize-k:tailSize+n], now)
		}
	}
}

// count counts the messages in what a connection got: the end of what was counted before, then what is new.
func (l *loader) count(m *member, p []byte, now time.Time) {
	if l.o.Centrifuge && bytes.Contains(p[len(m.tail):], []byte("\x81\x02{}")) {
		_, _ = syscall.Write(m.fd, frame([]byte(`{}`)))
	}
	c := &l.counts[m.group]
	rest, got := p, int64(0)
	for {
		i := bytes.Index(rest, token)
		if i < 0 || len(rest) < i+len(token)+20 { // the time may be cut off: it is counted with what comes
			break
		}
		got++
		if m.sampled && l.counted.Load() {
			digits := rest[i+len(token) : i+len(token)+19]
			sent, _ := strconv.ParseInt(string(digits), 10, 64)
			c.mu.Lock()
			c.delays = append(c.delays, time.Duration(now.UnixNano()-sent))
			c.mu.Unlock()
		}
		rest = rest[i+len(token)+20:]
	}
	m.tail = append(m.tail[:0], rest[max(0, len(rest)-tailSize):]...)
	if l.counted.Load() {
		c.got.Add(got)
	}
}

// measure publishes, and counts after the first moments.
func (l *loader) measure() []result {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, g := range l.o.Groups {
		if g.Rate > 0 {
			wg.Go(func() { l.publish(i, stop) })
		}
	}
	time.Sleep(l.o.Warm)
	fmt.Println("begin")
	l.counted.Store(true)
	time.Sleep(l.o.For)
	l.counted.Store(false)
	fmt.Println("end")
	close(stop)
	wg.Wait()
	var all []result
	for i, g := range l.o.Groups {
		c := &l.counts[i]
		c.mu.Lock()
		slices.Sort(c.delays)
		r := result{Name: g.Name, Sent: int(c.sent.Swap(0)), Deliveries: int(c.got.Swap(0))}
		if n := len(c.delays); n > 0 {
			r.P50, r.P99 = c.delays[n/2], c.delays[n*99/100]
		}
		c.delays = c.delays[:0]
		c.mu.Unlock()
		all = append(all, r)
	}
	if n := l.lost.Load(); n > 0 {
		fmt.Fprintln(os.Stderr, "load:", n, "connections were closed")
	}
	return all
}

var text = strings.Repeat("a message of some length ", 4)

// publish sends messages of a group at its rate, each from some member of the next room.
func (l *loader) publish(i int, stop <-chan struct{}) {
	g := l.o.Groups[i]
	began := time.Now()
	for n := 0; ; n++ {
		due := began.Add(time.Duration(float64(n) / g.Rate * float64(time.Second)))
		select {
		case <-stop:
			return
		case <-time.After(time.Until(due)):
		}
		room := n % g.Rooms
		m := l.rooms[i][room][rand.IntN(len(l.rooms[i][room]))]
		data := fmt.Appendf(nil, `{"ts":%d,"text":%q}`, time.Now().UnixNano(), text)
		if l.o.Centrifuge {
			data = fmt.Appendf(nil, `{"id":%d,"publish":{"channel":%q,"data":%s}}`, n+2, l.name(i, room), data)
		}
		_, _ = syscall.Write(m.fd, frame(data))
		if l.counted.Load() {
			l.counts[i].sent.Add(1)
		}
	}
}

// holdTLS opens connections over TLS and holds them.
func holdTLS(o loadOptions) error {
	var conns []net.Conn
	for _, g := range o.Groups {
		for n := range g.Rooms * g.Conns {
			c, err := tls.Dial("tcp", o.Host, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c, "GET /chat?room=%s%d HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", g.Name, n%g.Rooms)
			if _, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil); err != nil {
				return err
			}
			if o.Centrifuge {
				_, _ = c.Write(frame([]byte(`{"id":1,"connect":{}}`)))
				if _, err := c.Read(make([]byte, 1024)); err != nil {
					return err
				}
			}
			conns = append(conns, c)
		}
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, c := range conns {
		_ = c.Close()
	}
	return nil
}
