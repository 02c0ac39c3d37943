package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// minToken is the least length of --ops-token in characters: nothing keeps
// neighbours from trying.
const minToken = 16

// checkOps refuses an ops listener that other machines reach and that wants no token.
func (s *settings) checkOps() error {
	host, _, _ := net.SplitHostPort(s.Ops) // checked before
	switch {
	case s.OpsToken != "" && len(s.OpsToken) < minToken:
		return fmt.Errorf("--ops-token has %d characters, at least %d are needed: make one with \"openssl rand -hex 32\"", len(s.OpsToken), minToken)
	case s.OpsToken == "" && !isLoopback(host):
		return fmt.Errorf("--ops %s is reachable from other machines: set --ops-token to what whoever asks must show, best as MILLRACE_OPS_TOKEN, or listen on 127.0.0.1", s.Ops)
	}
	return nil
}

// isLoopback reports whether a host is this machine alone.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || err != nil && isLocalName(host)
}

// isLocalName reports whether a name always is this machine (RFC 6761, 6.3).
func isLocalName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// opsGuard says who may ask the ops listener: operators, who show the token where
// there is one, and are on this machine else; probes, of /healthz and /readyz; and
// no page that a browser shows, wherever it is from.
type opsGuard struct {
	token   string
	host    string // of --ops
	refused *prometheus.CounterVec
}

func newOpsGuard(s settings, r prometheus.Registerer) *opsGuard {
	host, _, _ := net.SplitHostPort(s.Ops) // checked before
	g := &opsGuard{
		token: string(s.OpsToken), host: host,
		refused: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_ops_refused_total", Help: "Requests that the ops listener refused, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"browser", "method", "token", "host"} {
		g.refused.WithLabelValues(reason)
	}
	return g
}

// noPages refuses what another site's page has a browser send, and all that could
// change something.
func (g *opsGuard) noPages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case foreignPage(r):
			g.refuse(w, "browser", "another site's page may not ask this listener", http.StatusForbidden)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			g.refuse(w, "method", "this listener answers GET and HEAD", http.StatusMethodNotAllowed)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// operators lets only operators through.
func (g *opsGuard) operators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case g.trusts(r):
			next.ServeHTTP(w, r)
		case g.token != "":
			w.Header().Set("WWW-Authenticate", "Bearer")
			g.refuse(w, "token", "show the --ops-token: Authorization: Bearer TOKEN", http.StatusUnauthorized)
		default:
			g.refuse(w, "host", "ask this listener by its IP address, as localhost, or by the name in --ops", http.StatusForbidden)
		}
	})
}

func (g *opsGuard) refuse(w http.ResponseWriter, reason, say string, status int) {
	g.refused.WithLabelValues(reason).Inc()
	w.Header().Set("Connection", "close") // its body isn't read
	http.Error(w, say, status)
}

// trusts reports whether an operator asks.
func (g *opsGuard) trusts(r *http.Request) bool {
	if g.token == "" {
		return g.knows(r.Host)
	}
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	got, want := sha256.Sum256([]byte(shown)), sha256.Sum256([]byte(g.token))
	return ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// knows reports whether a Host is one by which this listener is asked. A name that
// a stranger has resolve to this machine (DNS rebinding) isn't; an address can't be.
func (g *opsGuard) knows(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || isLocalName(host) || host != "" && strings.EqualFold(host, g.host)
}

// foreignPage reports whether a page of another origin had a browser send a request.
func foreignPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin": // none: typed in by who sits there
	default:
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}
