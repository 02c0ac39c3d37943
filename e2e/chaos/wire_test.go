//go:build chaos

package chaos

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"millrace/e2e/harness"
	"millrace/internal/testenv"
)

// wire is a TCP proxy that can cut single processes off, as a network does that
// fails: what they send gets nowhere, what is for them doesn't come, and nobody
// is told. What was on its way when it failed is lost. It is safe for concurrent use.
type wire struct {
	address string

	mu     sync.Mutex
	target string
	cut    map[int]bool // process ids; 0 cuts everybody
	links  map[*link]bool
	// held counts what cuts held back: pieces of data, ends of connections, new
	// connections. strangers counts pieces of data that passed while single processes
	// were cut off, and of which nobody knows whose they are.
	held, strangers int
	changed         *sync.Cond
	closed          bool
}

// link is one connection by way of a wire.
type link struct {
	pid     int // who connected; -1 when that isn't known
	in, out net.Conn
	cut     bool // for good
}

func startWire(t testing.TB, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", testenv.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: l.Addr().String(), target: target, cut: make(map[int]bool), links: make(map[*link]bool)}
	w.changed = sync.NewCond(&w.mu)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { w.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		w.closed = true
		for l := range w.links {
			w.breakLocked(l)
		}
		w.mu.Unlock()
		group.Wait()
	})
	return w
}

// aim says where connections go to.
func (w *wire) aim(target string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = target
}

// sever cuts a process off; 0 stands for all.
func (w *wire) sever(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[pid], w.held, w.strangers = true, 0, 0
	for l := range w.links {
		l.cut = l.cut || w.cutsLocked(l)
	}
}

func (w *wire) cutsLocked(l *link) bool { return w.cut[0] || w.cut[l.pid] }

// mend lets new connections pass again. Those that were cut are broken with
// reset; without it they stay as they are: open, and silent. It returns how
// much the cut held back, and how much passed of which nobody knows whose it is.
func (w *wire) mend(reset bool) (held, strangers int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
	for l := range w.links {
		if reset && l.cut {
			w.breakLocked(l)
		}
	}
	return w.held, w.strangers
}

func (w *wire) breakLocked(l *link) {
	delete(w.links, l)
	for _, conn := range []net.Conn{l.in, l.out} {
		if conn != nil {
			_ = conn.Close()
		}
	}
	w.changed.Broadcast()
}

func (w *wire) serve(conn net.Conn) {
	l := &link{pid: ownerOf(conn.RemoteAddr().(*net.TCPAddr).Port), in: conn}
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.breakLocked(l)
	}()
	w.mu.Lock()
	w.links[l] = !w.closed
	l.cut = w.cutsLocked(l)
	target := w.target
	w.mu.Unlock()
	if !w.passes(l) {
		return
	}
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	w.mu.Lock()
	l.out = out
	if !w.links[l] {
		w.breakLocked(l)
	}
	w.mu.Unlock()
	var group sync.WaitGroup
	pipe := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if !w.passes(l) {
				break
			}
			if n > 0 {
				if _, err := to.Write(buf[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		_ = to.Close()
		_ = from.Close()
	}
	group.Go(func() { pipe(out, conn) })
	group.Go(func() { pipe(conn, out) })
	group.Wait()
}

// passes reports whether what came over a link goes on. It holds what is cut
// until the link is broken.
func (w *wire) passes(l *link) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.pid < 0 && len(w.cut) > 0 && !w.cut[0] {
		w.strangers++
	}
	if l.cut && w.links[l] {
		w.held++
	}
	for l.cut && w.links[l] {
		w.changed.Wait()
	}
	return w.links[l]
}

// mend ends the cuts of wires to something, and reports them if they were none.
func (c *trial) mend(to string, reset bool, wires ...*wire) {
	held, strangers := 0, 0
	for _, w := range wires {
		h, s := w.mend(reset)
		held, strangers = held+h, strangers+s
	}
	if held == 0 {
		c.problem("the cut before %s held nothing back", to)
	}
	if strangers > 0 {
		c.problem("%d pieces of data passed the cut before %s, and nobody knows whose", strangers, to)
	}
}

// ownerOf is the process that has a local TCP port, or -1. There is no other
// way to tell on loopback who connects.
func ownerOf(port int) int {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return -1
	}
	want := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 10 || !strings.HasSuffix(fields[1], want) || fields[9] == "0" {
			continue
		}
		link := "socket:[" + fields[9] + "]"
		for _, pid := range millraces() {
			entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			for _, e := range entries {
				if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())); err == nil && to == link {
					return pid
				}
			}
		}
	}
	return -1
}

// millraces are the services that this test has started.
func millraces() []int { return harness.Children(os.Getpid(), "millrace") }
