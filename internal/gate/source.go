// Package gate bounds what strangers may hold open at listeners that anybody
// reaches, in all and by where they come from.
package gate

import (
	"net"
	"net/netip"
)

// Source is what bounds per address count: an IPv4 address, also one that came
// mapped into IPv6, or the /64 that one subscriber of IPv6 has. It is the zero
// prefix if a is no address.
func Source(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // fails for the zero Addr only, with the zero prefix
	return p
}

// SourceOf is the Source of a connection's other end; the zero prefix if that
// isn't reached by IP.
func SourceOf(c net.Conn) netip.Prefix { return Source(addressOf(c)) }

// addressOf is the address of a connection's other end; the zero Addr if that
// isn't reached by IP.
func addressOf(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
