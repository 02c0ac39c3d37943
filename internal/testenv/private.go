package testenv

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"millrace/internal/private"
	"millrace/internal/seal"
)

// Secret is what services in tests share.
const Secret seal.Secret = "for tests and nothing else"

// Peers makes a service that others reach at a base URL, or at none, one of those
// that share Secret.
func Peers(t testing.TB, advertise string) *private.Peers {
	t.Helper()
	p, err := private.New(private.Config{Secret: Secret, Advertise: advertise})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// PrivateServer starts a server whose handler only peers reach. The caller closes it.
func PrivateServer(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config = private.NewServer(Peers(t, "http://"+s.Listener.Addr().String()).Guard(h))
	s.Start()
	return s
}

// PrivateClient returns a peer's client.
func PrivateClient(t testing.TB) *http.Client {
	t.Helper()
	c := Peers(t, "").Client()
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// Sealed is a base URL as the service there seals it for others.
func Sealed(t testing.TB, role seal.Role, scope, url string) seal.Address {
	t.Helper()
	return Peers(t, url).Self(role, scope)
}
