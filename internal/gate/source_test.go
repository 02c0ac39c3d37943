package gate

import (
	"net"
	"net/netip"
	"testing"
)

func TestSource(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7":            "192.0.2.7/32",
		"::ffff:192.0.2.7":     "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2::":       "2001:db8:1:2::/64",
		"fe80::1%eth0":         "fe80::/64",
		"::1":                  "::/64",
	} {
		if got := Source(netip.MustParseAddr(address)); got.String() != want {
			t.Errorf("Source(%s) = %s, want %s", address, got, want)
		}
	}
	if got := Source(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("Source of no address = %s, want the zero prefix", got)
	}
}

func TestSourceOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7:1":           "192.0.2.7/32",
		"[::ffff:192.0.2.7]:1":  "192.0.2.7/32",
		"[2001:db8:1:2:3::4]:1": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":      "fe80::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := SourceOf(from{addr: a}).String(); got != want {
			t.Errorf("SourceOf a connection from %s = %s, want %s", address, got, want)
		}
	}
	if got := SourceOf(from{addr: &net.UnixAddr{Name: "/tmp/socket", Net: "unix"}}); got != (netip.Prefix{}) {
		t.Errorf("SourceOf a Unix socket = %s, want the zero prefix", got)
	}
}

// from is a connection of which only the other end's address is known.
type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }
