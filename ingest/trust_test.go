package ingest

import (
	"errors"
	"net"
	"testing"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/relay"
	"millrace/internal/seal"
	"millrace/internal/testenv"
)

// An ingest that goes on with a broadcast asks neither an ingest nor a worker that
// somebody else wrote into Redis: it goes on from what is kept there.
func TestForgedAddressesAreNotAsked(t *testing.T) {
	t.Parallel()
	trap, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	url := "http://" + trap.Addr().String()
	s := newStation(t, Config{})
	for n, address := range []seal.Address{seal.Address(url), testenv.Sealed(t, seal.Worker, "another", url)} {
		if err := lease.SetSlot(t.Context(), s.db, "b", n, jobs.Slot{Address: address, Epoch: jobs.Epoch{Lease: 1, Grant: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	kept := relay.Handoff{Mark: relay.Mark{Kind: relay.Pause, Sequence: 5}}
	for name, address := range map[string]seal.Address{"unsigned": seal.Address(url), "of another channel": testenv.Sealed(t, seal.Ingest, "other", url)} {
		before := lease.Record{Broadcast: "b", Epoch: 1, Ingest: address, State: lease.Reconnecting, Handoff: kept}
		if got, err := s.service.handoff(t.Context(), "demo", before, 2); err != nil || got != kept {
			t.Errorf("with an ingest that is %s it goes on from %+v, %v", name, got, err)
		}
		if _, err := s.service.askIngest(t.Context(), "demo", before, 2); !errors.Is(err, seal.ErrForged) {
			t.Errorf("an ingest that is %s gave %v", name, err)
		}
	}
	if n := s.taken("redis"); n != 2 {
		t.Errorf("%v were taken over from Redis", n)
	}
	if err := trap.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if c, err := trap.Accept(); err == nil {
		_ = c.Close()
		t.Error("a forged address was connected to")
	}
}

// A claim whose worker didn't sign its address for the broadcast is refused: edges
// would be sent there.
func TestClaimNeedsASignedAddress(t *testing.T) {
	t.Parallel()
	_, tags := sample(t)
	s := newStation(t, Config{})
	s.encoder(tags)
	broadcast := s.broadcast()
	for name, address := range map[string]seal.Address{
		"unsigned": "http://127.0.0.1:7", "of another broadcast": testenv.Sealed(t, seal.Worker, "another", "http://127.0.0.1:7"),
		"an ingest's": testenv.Sealed(t, seal.Ingest, broadcast, "http://127.0.0.1:7"), "missing": "",
	} {
		if status := s.claimAs(broadcast, s.client, 0, address).status; status != 400 {
			t.Errorf("an address that is %s gave %d", name, status)
		}
	}
	if h := s.claim(broadcast, s.client); h.status != 200 {
		t.Errorf("a worker of ours got %d", h.status)
	}
}
