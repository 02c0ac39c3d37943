package api

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"millrace/internal/lease"
)

// Whoever runs the server says whether anybody may list the channels that aren't live.
func TestOfflineChannelsAreListedOnlyWhereWanted(t *testing.T) {
	f := newFixture(t, frontEnd, "alice", "bob", "carol")
	f.broadcast("carol", lease.Live, 1)
	f.broadcast("bob", lease.Live, 2)
	for _, path := range []string{"/api/v1/channels", "/api/v1/channels?live=false", "/api/v1/channels?live=true"} {
		if got := names(get[listBody](f, path, 200)); !slices.Equal(got, []string{"bob", "carol"}) {
			t.Errorf("%s lists %v, want the live channels", path, got)
		}
	}
	// Its page needs it.
	if got := f.do(http.MethodGet, "/api/v1/channels/alice"); got.Code != 200 {
		t.Errorf("a channel by its name: %d %s", got.Code, got.Body)
	}
}

func TestAwaitEnd(t *testing.T) {
	f := newFixture(t, frontEnd, "alice")
	end := func(patience time.Duration) (bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return AwaitEnd(ctx, f.db, "alice")
	}
	if was, err := end(time.Second); was || err != nil {
		t.Errorf("a channel without a broadcast: %t, %v", was, err)
	}
	r := f.broadcast("alice", lease.Live, 0)
	if was, err := end(2 * endEvery); !was || err == nil {
		t.Errorf("a broadcast that goes on: %t, %v; want an error", was, err)
	}
	var ingest sync.WaitGroup
	ingest.Go(func() {
		r.State = lease.Ended
		if err := lease.Renew(t.Context(), f.db, "alice", r); err != nil {
			t.Error(err)
		}
	})
	if _, err := end(10 * time.Second); err != nil {
		t.Errorf("a broadcast that its ingest ends: %v", err)
	}
	ingest.Wait()
	// One whose ingest is gone.
	f.broadcast("alice", lease.Reconnecting, 0)
	at := time.Now().Add(-leaseDead).UnixMilli()
	if err := f.db.HSet(t.Context(), "millrace:channel:{alice}", "seen", at).Err(); err != nil {
		t.Fatal(err)
	}
	if was, err := end(10 * time.Second); !was || err != nil {
		t.Errorf("a broadcast that nobody has: %t, %v", was, err)
	}
	if live, err := lease.Channels(t.Context(), f.db); err != nil || len(live) != 0 {
		t.Errorf("live channels are %v, %v", live, err)
	}
	if r, err := lease.Read(t.Context(), f.db, "alice"); err != nil || r.State != lease.Ended {
		t.Errorf("the record is %+v, %v", r, err)
	}
	if was, err := end(time.Second); was || err != nil {
		t.Errorf("a broadcast that has ended: %t, %v", was, err)
	}
}
