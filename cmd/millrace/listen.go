package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"millrace/internal/gate"
)

// listeners are the sockets that a process listens on; those that its role doesn't
// need are nil.
type listeners struct {
	http, https, rtmp, rtmps, irc, ircs, ops, private net.Listener
}

// listen opens the listeners that the role needs, each behind its gate. It comes
// before anything is started, so that a port in use leaves nothing to be taken down.
func listen(r role, s settings, g gates) (l listeners, err error) {
	tls := s.TLSCert != ""
	for _, want := range []struct {
		flag, address string
		needed        bool
		gate          *gate.Gate
		to            *net.Listener
	}{
		{"http", s.HTTP, r.public(), g.public, &l.http},
		{"https", s.HTTPS, r.public() && tls, g.public, &l.https},
		{"rtmp", s.RTMP, r.runs(roleIngest), g.rtmp, &l.rtmp},
		{"rtmps", s.RTMPS, r.runs(roleIngest) && tls, g.rtmp, &l.rtmps},
		{"irc", s.IRC, r.runs(roleChat), g.public, &l.irc},
		{"ircs", s.IRCS, r.runs(roleChat) && tls, g.public, &l.ircs},
		{"ops", s.Ops, true, g.ops, &l.ops},
		{"private", s.Private, r.private(), g.private, &l.private},
	} {
		if !want.needed {
			continue
		}
		raw, err := net.Listen("tcp", want.address)
		if err != nil {
			l.close()
			return listeners{}, listenError(want.flag, want.address, err)
		}
		*want.to = want.gate.Listen(raw, want.flag)
	}
	return l, nil
}

// listenError says why an address can't be listened on, and what to do.
func listenError(flag, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("--%s: address %s is in use by another program: stop that one, or choose another address with --%s", flag, address, flag)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("--%s: this user may not listen on %s: choose a port above 1023 with --%s, or give the program CAP_NET_BIND_SERVICE", flag, address, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("--%s: this machine doesn't have the address %s: choose another with --%s", flag, address, flag)
	}
	return fmt.Errorf("--%s: %w", flag, err)
}

// close closes all listeners. A server closes the one that it serves by itself;
// closing a listener twice does no harm.
func (l listeners) close() {
	for _, one := range []net.Listener{l.http, l.https, l.rtmp, l.rtmps, l.irc, l.ircs, l.ops, l.private} {
		if one != nil {
			_ = one.Close()
		}
	}
}
