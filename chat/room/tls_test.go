package room

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http/httptest"
	"testing"
	"time"
)

// tornConn sends what is written first in two pieces, and the second one later than a record is waited for.
type tornConn struct {
	net.Conn
	torn bool
}

func (c *tornConn) Write(p []byte) (int, error) {
	if c.torn {
		return c.Conn.Write(p)
	}
	c.torn = true
	n, err := c.Conn.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	<-time.After(3 * recordLimit)
	m, err := c.Conn.Write(p[n:])
	return n + m, err
}

// TLS connections are attached before their handshake, which may come in pieces, as records may; then they are
// like others.
func TestTLS(t *testing.T) {
	f := lines()
	s := start(t, Config{Formats: []*Format{f}})
	r := s.Open("r", "0-0")
	web := httptest.NewUnstartedServer(nil) // for its certificate
	web.StartTLS()
	defer web.Close()
	var all []*client
	for range 5 {
		there, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		here, err := s.listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c := s.attach(tls.Server(here, web.TLS), there, f, func(c *Conn, p []byte) error {
			c.Send(append([]byte("re "), p...))
			return nil
		})
		secure := tls.Client(&tornConn{Conn: there}, &tls.Config{InsecureSkipVerify: true})
		if err := secure.Handshake(); err != nil {
			t.Fatal(err)
		}
		c.Conn, c.lines = secure, bufio.NewScanner(secure)
		if err := r.Join(c.conn, Live()); err != nil {
			t.Fatal(err)
		}
		secure.NetConn().(*tornConn).torn = false // a record in two pieces
		_, _ = c.Write([]byte("a\n"))
		_, _ = c.Write([]byte("b\n"))
		c.expect("re a")
		all = append(all, c)
	}
	for _, c := range all {
		c.expect("re b")
	}
	for i := 1; i <= 100; i++ {
		r.Publish(entry(i))
	}
	for _, c := range all {
		for i := 1; i <= 100; i++ {
			c.expect(fmt.Sprint("lines ", i))
		}
		c.conn.Close(Reason{Name: "test"})
		c.expect("bye test")
		if c.lines.Scan() || c.lines.Err() != nil {
			t.Errorf("then %q, %v", c.lines.Text(), c.lines.Err())
		}
		if why := c.ends(); why.Name != "test" {
			t.Errorf("closed because of %v", why)
		}
	}
}
