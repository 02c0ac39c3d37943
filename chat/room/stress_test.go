package room

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// While connections come, leave, join again from where they were and break, each that stays gets every entry once and
// in order.
func TestNothingIsMissedInTheThrong(t *testing.T) {
	const entries, readers = 400, 40
	f := lines()
	s := start(t, Config{Formats: []*Format{f}, LogEntries: entries})
	r := s.Open("r", "0-0")
	var all sync.WaitGroup
	for i := range readers {
		c := s.connect(f, nil)
		if err := r.Join(c.conn, After("0-0")); err != nil {
			t.Fatal(err)
		}
		all.Go(func() { c.readAll(r, entries, i%2 == 0) })
	}
	for i := 1; i <= entries; i++ {
		r.Publish(entry(i))
		if i%20 == 0 { // some who break off, whether or not they have joined
			c := s.connect(f, nil)
			go func() { _ = r.Join(c.conn, Last(rand.IntN(10))) }()
			if i%40 == 0 {
				c.conn.Close(Reason{Name: "test"})
			}
			_ = c.Close()
		}
	}
	all.Wait()
}

// readAll reads entries up to the last one. If it is restless, it leaves every now and then, reads what is on the way, and joins
// after the last it got.
func (c *client) readAll(r *Room, last int, restless bool) {
	for next := 1; next <= last; {
		if !c.lines.Scan() {
			c.t.Errorf("the connection ended before entry %d: %v", next, c.lines.Err())
			return
		}
		line := c.lines.Text()
		if line != fmt.Sprint("lines ", next) {
			c.t.Errorf("got %q, want entry %d", line, next)
			return
		}
		next++
		if restless && next%50 == 0 && r.Leave(c.conn) {
			c.conn.Send([]byte("left\n"))
			for c.lines.Scan() && strings.HasPrefix(c.lines.Text(), "lines") {
				if c.lines.Text() != fmt.Sprint("lines ", next) {
					c.t.Errorf("got %q, want entry %d", c.lines.Text(), next)
				}
				next++
			}
			if err := r.Join(c.conn, After(fmt.Sprintf("%d-0", next-1))); err != nil {
				c.t.Error(err)
				return
			}
		}
	}
}
