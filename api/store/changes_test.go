package store

import (
	"context"
	"errors"
	"sync"
	"testing"

	"millrace/internal/credentials"
)

// testChanges makes each change: what ingest is told of it has a higher version.
func testChanges(t *testing.T, s *Store) {
	ctx := t.Context()
	key := credentials.NewStreamKey()
	var last int64
	// told is what ingest is told of the channel, in a version after the last one.
	told := func(what string) (c credentials.Channel, ok bool) {
		t.Helper()
		all, err := s.Catalogue(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if all.Version <= last {
			t.Errorf("%s: version %d after %d", what, all.Version, last)
		}
		last = all.Version
		for _, one := range all.Channels {
			if one.Name == "eve" {
				return one, true
			}
		}
		return c, false
	}
	do := func(what string, err error) credentials.Channel {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		c, ok := told(what)
		if !ok {
			t.Fatalf("%s: the channel is gone", what)
		}
		return c
	}
	if _, there := told("the start"); there {
		t.Fatal("a channel nobody made")
	}
	made := do("create", s.CreateChannel(ctx, "eve", key))
	if made.KeyHash != key.Hash() || made.Created == 0 || made.Disabled || made.Kicked != 0 {
		t.Errorf("a new channel is %+v", made)
	}
	if c := do("disable", s.Disable(ctx, "eve")); !c.Disabled || c.Created != made.Created {
		t.Errorf("a disabled channel is %+v", c)
	}
	if c, err := s.Channel(ctx, "eve"); err != nil || !c.Disabled {
		t.Errorf("a disabled channel is %+v, %v", c, err)
	}
	if c := do("enable", s.Enable(ctx, "eve")); c.Disabled || c.KeyHash != key.Hash() {
		t.Errorf("an enabled channel is %+v", c)
	}
	if c := do("kick", s.Kick(ctx, "eve")); c.Kicked != last {
		t.Errorf("who was admitted before %d is kicked, in version %d", c.Kicked, last)
	}
	if c := do("reset key", s.ResetKey(ctx, "eve", credentials.NewStreamKey())); c.KeyHash == key.Hash() || c.Kicked >= last {
		t.Errorf("a channel with another key is %+v", c)
	}
	if err := s.DeleteChannel(ctx, "eve"); err != nil {
		t.Fatal(err)
	}
	if c, there := told("delete"); there {
		t.Errorf("a deleted channel is %+v", c)
	}
	again := do("create again", s.CreateChannel(ctx, "eve", key))
	if again.Created <= made.Created || again.Kicked != 0 {
		t.Errorf("a channel of the same name is %+v, the one before was %+v", again, made)
	}
	if err := s.DeleteChannel(ctx, "eve"); err != nil {
		t.Fatal(err)
	}
	told("delete again")

	for what, change := range map[string]func(context.Context, string) error{
		"disable": s.Disable, "enable": s.Enable, "kick": s.Kick, "delete": s.DeleteChannel,
	} {
		if err := change(ctx, "eve"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s what isn't there: %v, want ErrNotFound", what, err)
		}
	}
	if all, err := s.Catalogue(ctx); err != nil || all.Version != last {
		t.Errorf("changes that weren't made brought version %d, %v; want %d", all.Version, err, last)
	}
}

// testMadeOnce makes a channel at a first start, deletes it, and starts again; many
// processes start at a time.
func testMadeOnce(t *testing.T, s *Store) {
	start := func() (made int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				ok, err := s.MakeOnce(t.Context(), "first", credentials.NewStreamKey())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if ok {
					made++
				}
			})
		}
		wg.Wait()
		return made
	}
	if n := start(); n != 1 {
		t.Errorf("it was made %d times", n)
	}
	if err := s.DeleteChannel(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	if n := start(); n != 0 {
		t.Error("a channel that was deleted is there again after a start")
	}
}
