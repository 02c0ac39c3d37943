package api

import (
	"strconv"
	"testing"
	"time"

	"millrace/internal/lease"
)

// While Redis takes no writes, as with a full disk, nobody can renew a record: its age
// doesn't say that the streamer is gone.
func TestRedisTakesNoWrites(t *testing.T) {
	f := newFixture(t, frontEnd, "alice", "bob")
	for _, name := range []string{"alice", "bob"} {
		f.broadcast(name, lease.Live, 3)
		old := strconv.FormatInt(time.Now().Add(-leaseDead-time.Second).UnixMilli(), 10)
		if err := f.db.HSet(t.Context(), "millrace:channel:{"+name+"}", "seen", old).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if alice := get[Channel](f, "/api/v1/channels/alice", 200); alice.State != stateReconnecting {
		t.Errorf("a record that isn't renewed: %+v", alice)
	}
	if err := f.db.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if bob := get[Channel](f, "/api/v1/channels/bob", 200); bob.State != stateLive || bob.Viewers != 3 {
		t.Errorf("a record that can't be renewed: %+v", bob)
	}
}
