package room

import (
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A quiet room's entry goes out at once; those that come while it rests go out together.
func TestBusyRoomWritesManyAtOnce(t *testing.T) {
	piped(t, Config{Rest: 100 * time.Millisecond}, nil, func(h *Hub, c *Conn, there net.Conn, _ <-chan Reason) {
		r := h.Open("r", "0-0")
		if err := r.Join(c, Live()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		buf := make([]byte, 100)
		next := func() string {
			n, err := there.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			return string(buf[:n])
		}
		r.Publish(entry(1))
		if got := next(); got != "lines 1\n" || time.Since(began) != 0 {
			t.Errorf("got %q after %v, want the first entry at once", got, time.Since(began))
		}
		synctest.Wait()
		for i := 2; i <= 4; i++ {
			r.Publish(entry(i))
		}
		if got := next(); got != "lines 2\nlines 3\nlines 4\n" || time.Since(began) != 100*time.Millisecond {
			t.Errorf("got %q after %v, want three entries when the room has rested", got, time.Since(began))
		}
	})
}

// However many connections a room has, another one is served after its next section.
func TestRoomsTakeTurns(t *testing.T) {
	h, err := New(Config{Formats: []*Format{lines()}, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	turns := &h.turns // without Run: this test is the worker
	large, small := h.Open("large", ""), h.Open("small", "")
	for range 5 {
		large.sections = append(large.sections, &section{room: large})
	}
	small.sections = append(small.sections, &section{room: small})
	turns.wake(large, nil)
	turns.wake(small, nil)
	var order []string
	for range 6 {
		one := turns.take()
		order = append(order, one.room.name)
		turns.done(one, 0, false)
	}
	if want := []string{"large", "small", "large", "large", "large", "large"}; !slices.Equal(order, want) {
		t.Errorf("served %v, want %v", order, want)
	}
	if large.pass.phase != idle || small.pass.phase != idle || len(turns.rooms) > 0 {
		t.Errorf("after the passes: %+v, %+v", large.pass, small.pass)
	}
}
