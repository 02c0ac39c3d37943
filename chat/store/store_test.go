package store

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"millrace/chat/event"
	"millrace/internal/testenv"
)

func user(n int) *event.User {
	login := "user" + strconv.Itoa(n)
	return &event.User{ID: strconv.Itoa(n), Login: login, Name: login}
}

func message(u *event.User, text string) *event.Event {
	return &event.Event{Kind: event.Message, User: u, Text: text}
}

func send(t *testing.T, s *Store, room string, u *event.User, text string) event.ID {
	t.Helper()
	id, err := s.Send(t.Context(), room, "", message(u, text))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// refusal is the code that a message is refused with, "" where it isn't.
func refusal(t *testing.T, s *Store, room string, u *event.User, text string) Code {
	t.Helper()
	_, err := s.Send(t.Context(), room, "", message(u, text))
	var r *Refusal
	if err != nil && !errors.As(err, &r) {
		t.Fatal(err)
	}
	if r == nil {
		return ""
	}
	if timed := r.Code == TimedOut || r.Code == Slow || r.Code == Rate; timed != r.Until.After(time.Now()) {
		t.Errorf("%s is over at %v", r.Code, r.Until)
	}
	return r.Code
}

func TestHistory(t *testing.T) {
	t.Parallel()
	s := New(testenv.Redis(t))
	var ids []event.ID
	for i := range 30 {
		ids = append(ids, send(t, s, "demo", user(i%3), fmt.Sprint("message ", i)))
	}
	texts := func(list []*event.Event, err error) (got []string) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.User.Login == "" || e.Kind != event.Message || !e.ID.Valid() {
				t.Errorf("%+v", e)
			}
			got = append(got, e.Text)
		}
		return got
	}
	ctx := t.Context()
	for name, c := range map[string]struct{ got, want []string }{
		"newest": {texts(s.Newest(ctx, "demo", 2)), []string{"message 28", "message 29"}},
		"before": {texts(s.Before(ctx, "demo", ids[2], 5)), []string{"message 0", "message 1"}},
		"after":  {texts(s.After(ctx, "demo", ids[27], 5)), []string{"message 28", "message 29"}},
		"first":  {texts(s.After(ctx, "demo", "", 1)), []string{"message 0"}},
		"other":  {texts(s.Newest(ctx, "other", 5)), nil},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %q, want %q", name, c.got, c.want)
		}
	}
	if !slices.IsSortedFunc(ids, event.Compare) {
		t.Errorf("IDs in the order of sending: %q", ids)
	}
	list, _ := s.Newest(ctx, "demo", 30)
	if !list[0].First || list[3].First {
		t.Error("the first message of somebody isn't marked, or the second one is")
	}
}

// A message that is sent again, since nobody heard that it had arrived, is there once.
func TestNonce(t *testing.T) {
	t.Parallel()
	s := New(testenv.Redis(t))
	var got []event.ID
	for _, nonce := range []string{"a", "a", "b"} {
		e := message(user(1), "hello")
		e.Nonce = nonce
		id, err := s.Send(t.Context(), "demo", "", e)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, id)
	}
	if list, err := s.Newest(t.Context(), "demo", 10); err != nil || len(list) != 2 || got[0] != got[1] || got[1] == got[2] {
		t.Errorf("%d messages, %v, IDs %q", len(list), err, got)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	s := New(testenv.Redis(t))
	ctx, moderator, vip, somebody := t.Context(), user(1), user(2), user(3)
	for u, role := range map[*event.User]string{moderator: "moderator", vip: "vip"} {
		if err := s.SetRole(ctx, "demo", moderator, u, role); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		settings event.Settings
		user     *event.User
		text     string
		want     Code
	}{
		{event.Settings{}, somebody, "a", ""},
		{event.Settings{Unique: true}, somebody, "a", Duplicate},
		{event.Settings{Unique: true}, somebody, "b", ""},
		{event.Settings{Slow: 60}, somebody, "c", Slow},
		{event.Settings{Slow: 60}, vip, "c", ""},
		{event.Settings{Slow: 60}, vip, "d", ""},
		{event.Settings{Slow: 60}, moderator, "d", ""},
		{event.Settings{Shield: true}, somebody, "e", ""},
		{event.Settings{Shield: true}, user(9), "e", Shield},
	} {
		if err := s.SetSettings(ctx, "demo", moderator, c.settings); err != nil {
			t.Fatal(err)
		}
		if now, err := s.Settings(ctx, "demo"); err != nil || now != c.settings {
			t.Errorf("settings %+v, %v; want %+v", now, err, c.settings)
		}
		if got := refusal(t, s, "demo", c.user, c.text); got != c.want {
			t.Errorf("%s says %q under %+v: %q, want %q", c.user.Login, c.text, c.settings, got, c.want)
		}
	}
	if err := s.SetSettings(ctx, "demo", moderator, event.Settings{}); err != nil {
		t.Fatal(err)
	}
	for i := 3; i < rateMessages; i++ { // three were sent above
		if got := refusal(t, s, "demo", somebody, fmt.Sprint(i)); got != "" {
			t.Fatalf("message %d: %s", i, got)
		}
	}
	if got := refusal(t, s, "demo", somebody, "one more"); got != Rate {
		t.Errorf("after %d messages: %q", rateMessages, got)
	}
}

func TestBans(t *testing.T) {
	t.Parallel()
	s := New(testenv.Redis(t))
	ctx, moderator, somebody := t.Context(), user(1), user(3)
	for _, c := range []struct {
		span time.Duration
		want Code
	}{{0, Banned}, {time.Minute, TimedOut}, {time.Millisecond, ""}} {
		if err := s.Ban(ctx, "demo", moderator, somebody, c.span, "spam"); err != nil {
			t.Fatal(err)
		}
		if c.want == "" {
			testenv.Eventually(t, 5*time.Second, func() error {
				if _, still, err := s.BannedUntil(ctx, "demo", somebody.ID); err != nil || still {
					return fmt.Errorf("still banned, %v", err)
				}
				return nil
			})
		}
		if got := refusal(t, s, "demo", somebody, "hello"); got != c.want {
			t.Errorf("banned for %v: %q, want %q", c.span, got, c.want)
		}
	}
	if got := refusal(t, s, "other", somebody, "hello"); got != "" {
		t.Errorf("in another room: %q", got)
	}
}

// Two processes hear of all that anybody sends, each event once, in one order; also of what was sent
// while Redis was gone for one of them.
func TestFeed(t *testing.T) {
	t.Parallel()
	server := testenv.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	var records [2]struct {
		mu  sync.Mutex
		ids []event.ID
	}
	stores := [2]*Store{New(server.Client()), New(server.Client())}
	for i := range records {
		f := NewFeed(stores[i], strconv.Itoa(i), slog.New(slog.DiscardHandler))
		f.Open("demo", "", func(list []*event.Event) {
			records[i].mu.Lock()
			defer records[i].mu.Unlock()
			for _, e := range list {
				records[i].ids = append(records[i].ids, e.ID)
			}
		})
		var done sync.WaitGroup
		done.Go(func() { _ = f.Run(t.Context()) })
		t.Cleanup(done.Wait)
	}
	burst := func(from int) {
		var sending sync.WaitGroup
		for i := range 8 {
			sending.Go(func() {
				for n := range 15 {
					send(t, stores[i%2], "demo", user(from+i), fmt.Sprint(n))
				}
			})
		}
		sending.Wait()
	}
	same := func(want int) {
		t.Helper()
		testenv.Eventually(t, 20*time.Second, func() error {
			all, err := stores[0].Newest(t.Context(), "demo", 1000)
			if err != nil {
				return err
			}
			if len(all) != want {
				return fmt.Errorf("%d events in the stream, want %d", len(all), want)
			}
			for i := range records {
				records[i].mu.Lock()
				got := slices.Clone(records[i].ids)
				records[i].mu.Unlock()
				if !slices.EqualFunc(got, all, func(id event.ID, e *event.Event) bool { return id == e.ID }) {
					return fmt.Errorf("process %d heard of %d events, want %d, or in another order", i, len(got), len(all))
				}
			}
			return nil
		})
	}
	burst(0)
	same(120)
	server.Stop()
	server.Start()
	burst(100)
	same(240)
}
