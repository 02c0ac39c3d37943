package ingest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"millrace/ingest/front"
	"millrace/internal/credentials"
	"millrace/internal/lease"
	"millrace/internal/relay"
	"millrace/internal/testenv"
)

// catalogue is one with the channel demo, whose stream key this is.
func catalogue(version int64, key credentials.StreamKey, change ...func(*credentials.Channel)) credentials.Catalogue {
	c := credentials.Channel{Name: "demo", KeyHash: key.Hash(), Created: 1}
	for _, f := range change {
		f(&c)
	}
	return credentials.Catalogue{Version: version, Channels: []credentials.Channel{c}}
}

// publish tells Redis of a catalogue.
func (s *station) publish(all credentials.Catalogue) {
	s.t.Helper()
	if err := credentials.Replace(s.t.Context(), s.db, all); err != nil {
		s.t.Fatal(err)
	}
}

// looks waits until rights were looked at with a result, from the beginning on.
func (s *station) looks(result string) {
	s.t.Helper()
	count := func() float64 { return testutil.ToFloat64(s.service.metrics.rightsChecks.WithLabelValues(result)) }
	before := count()
	eventually(s.t, "a look at the rights: "+result, func() bool { return count() >= before+2 })
}

func TestJudge(t *testing.T) {
	t.Parallel()
	had := credentials.Channel{Name: "demo", KeyHash: "a", Version: 7, Created: 3, Kicked: 5}
	with := func(change func(*credentials.Channel)) *credentials.Channel {
		c := had
		change(&c)
		return &c
	}
	for name, c := range map[string]struct {
		version int64
		now     *credentials.Channel
		why     *front.Refusal
		over    bool
	}{
		"nothing changed":                 {7, &had, nil, false},
		"another channel changed":         {8, &had, nil, false},
		"another grace period":            {8, with(func(c *credentials.Channel) { c.Grace = 9 }), nil, false},
		"another key":                     {8, with(func(c *credentials.Channel) { c.KeyHash = "b" }), refusalReset, false},
		"another key, some time ago":      {6, with(func(c *credentials.Channel) { c.KeyHash = "b" }), nil, false},
		"deleted":                         {8, nil, refusalDeleted, true},
		"not yet made":                    {6, nil, nil, false},
		"deleted and made again":          {9, with(func(c *credentials.Channel) { c.KeyHash, c.Created = "b", 4 }), refusalDeleted, true},
		"deleted and made with this key":  {9, with(func(c *credentials.Channel) { c.Created = 4 }), refusalDeleted, true},
		"disabled":                        {8, with(func(c *credentials.Channel) { c.Disabled = true }), refusalDisabled, true},
		"disabled, with another key":      {9, with(func(c *credentials.Channel) { c.Disabled, c.KeyHash = true, "b" }), refusalDisabled, true},
		"kicked":                          {8, with(func(c *credentials.Channel) { c.Kicked = 8 }), refusalKicked, true},
		"kicked before it was admitted":   {8, with(func(c *credentials.Channel) { c.Kicked = 7 }), nil, false},
		"kicked, with another key by now": {9, with(func(c *credentials.Channel) { c.Kicked, c.KeyHash = 8, "b" }), refusalKicked, true},
	} {
		if why, over := judge(had, c.version, c.now); why != c.why || over != c.over {
			t.Errorf("%s: %v, %t; want %v, %t", name, why, over, c.why, c.over)
		}
	}
	if why, _ := judge(credentials.Channel{KeyHash: "a"}, 8, nil); why != nil {
		t.Errorf("one whose version isn't known was told %v", why)
	}
}

// A publisher whose key was reset is ended, and told; the one with the new key goes on
// with the broadcast.
func TestKeyReset(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{})
	old := s.encoder(tags)
	broadcast := s.broadcast()
	reader := s.read(broadcast)
	reader.expect(relay.Open, 1)
	s.publish(catalogue(2, "n3w"))
	began := time.Now()
	old.expect("this one was reset")
	if took := time.Since(began); took > time.Second {
		t.Errorf("the old key's publisher was ended after %s", took)
	}
	reader.expect(relay.Pause, 2)
	if _, err := s.dial("s3cret"); err != refusalKey {
		t.Errorf("the old key got %v", err)
	}
	e, err := s.dial("n3w")
	if err != nil {
		t.Fatalf("the new key's owner was refused: %v", err)
	}
	e.media(tags, 0)
	if m := reader.expect(relay.Open, 2); m.Discontinuity != 1 {
		t.Errorf("%+v follows", m)
	}
	s.until("the way back", func(r lease.Record) bool { return r.State == lease.Live && r.Broadcast == broadcast })
}

// sends has an encoder send until the test's end, whatever it is told.
func (s *station) sends(tags []message) *encoder {
	e := s.encoder(tags)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		frame := time.NewTicker(20 * time.Millisecond)
		defer frame.Stop()
		for ; ctx.Err() == nil; <-frame.C {
			_ = e.write(tags[len(tags)-1])
		}
	}()
	s.t.Cleanup(func() {
		cancel()
		<-done
	})
	return e
}

// The owner of a new key doesn't wait until the old one's publisher was found: it is
// let in at once, here and at another ingest, though the other one sends on.
func TestNewKeyIsLetInAtOnce(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	for name, at := range map[string]func(first, second *station) *station{
		"here":              func(first, _ *station) *station { return first },
		"at another ingest": func(_, second *station) *station { return second },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := two(t, Config{})
			old := first.sends(tags)
			broadcast := first.broadcast()
			first.read(broadcast).expect(relay.Open, 1)
			first.publish(catalogue(2, "n3w"))
			s := at(first, second)
			if _, err := s.dial("n3w"); err != nil {
				t.Fatalf("the new key's owner was refused: %v", err)
			}
			old.expect("this one was reset")
			if s.service.broadcastByID(broadcast) == nil {
				t.Error("it is another broadcast")
			}
		})
	}
}

// An ingest that can't reach Redis hears of the reset from another one, to which the
// new key's owner comes.
func TestKeyResetAtAnIngestWithoutRedis(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	address := testenv.FreeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	by := testenv.StartRedis(t, "--port", port, "--bind", "127.0.0.1")
	proxy := testenv.Proxy(t, address)
	cut := redis.NewClient(&redis.Options{Addr: proxy.Address, ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1})
	first := newStationBy(t, Config{Redis: cut}, by)
	t.Cleanup(func() { _ = cut.Close() })
	second := newStationBy(t, Config{}, by)
	old := first.sends(tags)
	broadcast := first.broadcast()
	first.read(broadcast).expect(relay.Open, 1)
	proxy.Cut()
	first.publish(catalogue(2, "n3w"))
	first.looks("failed")
	if _, err := second.dial("n3w"); err != nil {
		t.Fatalf("the new key's owner was refused: %v", err)
	}
	old.expect("this one was reset")
	second.has(broadcast)
	proxy.Restore() // the record that it still has to write is an older lease's
	first.looks("ok")
}

// What happens while Redis is away is caught up with. A Redis that knows nothing, or
// that has gone back in time, ends nobody.
func TestRightsWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{})
	e := s.encoder(tags)
	s.read(s.broadcast()).expect(relay.Open, 1)
	s.redis.Stop()
	s.looks("failed")
	s.redis.Start()
	s.looks("unknown")
	s.publish(catalogue(0, "n3w"))
	s.looks("unknown")
	s.publish(credentials.Catalogue{Version: 1})
	e.expect("was deleted")

	s.publish(catalogue(5, "s3cret"))
	e = s.encoder(tags)
	s.publish(catalogue(4, "before"))
	s.looks("ok")
	s.redis.Stop()
	s.redis.Start()
	select {
	case r := <-e.told:
		t.Errorf("a publisher was ended: %v", r.Text)
	default:
	}
	s.publish(catalogue(6, "n3w"))
	e.expect("this one was reset")
}

// A broadcast ends at once with the rights to go on with it, also while it waits for
// its publisher, and nobody can begin another one.
func TestBroadcastEndsWithItsRights(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	for name, c := range map[string]struct {
		all  credentials.Catalogue
		told string
		then string // who comes again
	}{
		"disabled": {catalogue(2, "s3cret", func(c *credentials.Channel) { c.Disabled = true }), "channel is disabled", "channel is disabled"},
		"deleted":  {credentials.Catalogue{Version: 2}, "channel was deleted", "stream key is wrong"},
		"kicked":   {catalogue(2, "s3cret", func(c *credentials.Channel) { c.Kicked = 2 }), "has ended the broadcast", "Another one can begin in 30 s"},
	} {
		for _, connected := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newStation(t, Config{})
				e := s.encoder(tags)
				reader := s.read(s.broadcast())
				reader.expect(relay.Open, 1)
				if !connected {
					e.close()
					reader.expect(relay.Pause, 2)
				}
				s.publish(c.all)
				if reader.expect(relay.End, 2); connected {
					e.expect(c.told)
				}
				reader.over()
				s.until("the end", func(r lease.Record) bool { return r.State == lease.Ended })
				var refusal *front.Refusal
				if _, err := s.dial("s3cret"); !errors.As(err, &refusal) || refusal.Kind != front.Denied || !strings.Contains(refusal.Text, c.then) {
					t.Errorf("the encoder came again and got %v, want %q", err, c.then)
				}
			})
		}
	}
}

// A bar ends by itself: then whoever was kicked begins another broadcast.
func TestBarEnds(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{})
	e := s.encoder(tags)
	broadcast := s.broadcast()
	s.publish(catalogue(2, "s3cret", func(c *credentials.Channel) { c.Kicked = 2 }))
	e.expect("has ended the broadcast")
	if left, err := credentials.Barred(t.Context(), s.db, "demo"); err != nil || left <= 0 || left > credentials.BarredFor {
		t.Errorf("the channel is barred for %s, %v", left, err)
	}
	if err := s.db.PExpire(t.Context(), "millrace:channel:{demo}:barred", 300*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bar's end", func() bool {
		pub, err := s.service.Publish(t.Context(), front.Request{Key: "s3cret", End: func(front.Refusal) {}})
		if err == nil {
			pub.End(true)
		}
		return err == nil
	})
	if b := s.service.broadcastOf("demo"); b == nil || b.id == broadcast {
		t.Error("it isn't another broadcast")
	}
}

// A channel that is made again under the name of a deleted one goes on with nothing of
// that, at another ingest either.
func TestChannelMadeAgain(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	first, second := two(t, Config{})
	old := first.sends(tags)
	broadcast := first.broadcast()
	reader := first.read(broadcast)
	reader.expect(relay.Open, 1)
	first.publish(catalogue(3, "n3w", func(c *credentials.Channel) { c.Created = 2 }))
	if _, err := second.dial("n3w"); err != nil {
		t.Fatalf("the owner was refused: %v", err)
	}
	old.expect("was deleted")
	reader.expect(relay.End, 2)
	if b := second.service.broadcastOf("demo"); b == nil || b.id == broadcast {
		t.Error("it goes on with the deleted channel's broadcast")
	}
}

// Who was admitted with a key before it was reset doesn't come after the new key's
// owner, however long the admission took.
func TestLateAdmission(t *testing.T) {
	t.Parallel()
	b, _ := testBroadcast(t)
	ask := func(c credentials.Channel) error {
		_, err := b.attach(front.Request{End: func(front.Refusal) {}}, c, time.Now(), time.Now())
		return err
	}
	owner := catalogue(2, "n3w").Channels[0]
	owner.Version = 2
	if err := ask(owner); err != nil {
		t.Fatal(err)
	}
	late := catalogue(1, "s3cret").Channels[0]
	late.Version = 1
	if err := ask(late); err != refusalKey {
		t.Errorf("the old key got %v", err)
	}
	if b.source.publisher == nil {
		t.Error("the new key's owner was ended")
	}
}

// What another ingest asks ends nobody unless it makes sense.
func TestSendingWithRights(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{})
	e := s.encoder(tags)
	id := s.broadcast()
	for query, want := range map[string]int{
		"":                            http.StatusNoContent,
		"?key=b":                      http.StatusNoContent,
		"?key=b&created=1&version=x":  http.StatusNoContent,
		"?key=b&created=1&version=-9": http.StatusNoContent,
		"?" + catalogue(9, "s3cret").Channels[0].Query(): http.StatusNoContent,
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, relay.SendingPath(id)+query, nil)
		r.SetPathValue("broadcast", id)
		if s.service.serveSending(w, r); w.Code != want {
			t.Errorf("%q gave %d, want %d", query, w.Code, want)
		}
	}
	select {
	case r := <-e.told:
		t.Errorf("the publisher was ended: %s", r.Text)
	default:
	}
}
