package transcode

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/seal"
	"millrace/internal/testenv"
)

// A job that no ingest of ours has offered makes the worker ask nobody.
func TestForgedJob(t *testing.T) {
	trap, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	s := &Service{cfg: Config{Peers: testenv.Peers(t, "http://worker")}}
	url := "http://" + trap.Addr().String()
	ours := string(testenv.Sealed(t, seal.Ingest, "demo", "http://10.0.0.5:7080"))
	for name, address := range map[string]seal.Address{
		"unsigned": seal.Address(url), "of another channel": testenv.Sealed(t, seal.Ingest, "other", url),
		"a worker's": testenv.Sealed(t, seal.Worker, "demo", url), "with the signature of another": seal.Address(strings.Replace(ours, "http://10.0.0.5:7080", url, 1)),
	} {
		if c, err := s.claim(t.Context(), jobs.Job{Broadcast: onAir, Channel: "demo", Ingest: address}); c != nil || !errors.Is(err, errNotGranted) || !errors.Is(err, seal.ErrForged) {
			t.Errorf("an address that is %s gave %v", name, err)
		}
	}
	if err := trap.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if c, err := trap.Accept(); err == nil {
		_ = c.Close()
		t.Error("a forged ingest was connected to")
	}
}
