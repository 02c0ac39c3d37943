package ingest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/ingest/front"
	"millrace/internal/credentials"
	"millrace/internal/media"
)

// Who reconnects without end, with one picture each time, begins no more segments than
// who publishes, across broadcasts too, and hears why.
func TestReconnectsWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := testBroadcast(t)
		const flood = 40 * time.Second
		began, taken, refused := time.Now(), 0, 0
		for n := 0; time.Since(began) < flood; n++ {
			c := &camera{t: t}
			p, err := b.attach(front.Request{End: func(front.Refusal) {}}, credentials.Channel{}, time.Now(), time.Now())
			var why *front.Refusal
			switch {
			case errors.As(err, &why) && why.Reason == front.Breaks && strings.Contains(why.Text, "again and again"):
				refused++
			case err != nil:
				t.Fatal(err)
			default:
				taken++
				c.publisher = p
				c.config(h264(t))
				c.config(media.StereoAAC())
				c.film(1, everySecond)
				c.End(false)
			}
			if n == 1000 { // the next broadcast of the same channel
				b.end("a test")
				b = newBroadcast(b.service, credentials.Channel{Name: "demo"}, b.record(time.Now()), nil)
			}
			time.Sleep(10 * time.Millisecond)
		}
		most := maxBreaks + int(flood/breakEvery)
		if taken > most || refused < 1000 {
			t.Errorf("%d were taken, at most %d should be; %d were refused", taken, most, refused)
		}
		if m, _ := b.source.seq.Mark(); m.Sequence > uint64(most) {
			t.Errorf("there are %d segments", m.Sequence)
		}
		if health := b.record(time.Now()).Health; !strings.Contains(health, `"code":"breaks"`) {
			t.Errorf("the streamer can read %q", health)
		}
		b.end("the test is over")
	})
}

// A bad line on which the encoder reconnects ten times a minute is no reason to refuse it.
func TestReconnectsOnABadLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := testBroadcast(t)
		for range 100 {
			c := newCamera(t, b)
			c.film(140, everySecond)
			c.End(false)
			time.Sleep(400 * time.Millisecond)
		}
		b.end("the test is over")
	})
}

// The configurations that a broadcast has seen are bounded: init sections of all are kept.
// Those that come again cost nothing.
func TestSettingsWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := testBroadcast(t)
		c := newCamera(t, b)
		another := func(i int) error {
			other := *h264(t)
			other.Record = append(slices.Clone(other.Record), make([]byte, media.MaxRecord/2)...)
			other.Record = fmt.Append(other.Record, i)
			time.Sleep(breakEvery)
			return c.Config(&other)
		}
		n := 0
		for ; n < 1000 && another(n) == nil; n++ {
			c.film(1, everySecond)
		}
		var why *front.Refusal
		if err := another(n); !errors.As(err, &why) || why.Reason != front.Settings || n*media.MaxRecord/2 > maxSettings {
			t.Errorf("after %d large ones: %v", n, err)
		}
		if err := another(0); err != nil {
			t.Errorf("one that is known: %v", err)
		}
		if !strings.Contains(c.advice(), `"code":"settings"`) {
			t.Errorf("the streamer is told %s", c.advice())
		}
	})
}
