// Package private is how services of one installation talk among each other
// (relay, claim, follow, window): over HTTP on listeners of their own, with each
// request signed and each answer proven by the secret that they share (see
// internal/seal). The secret itself is never sent.
//
// A signature is of one method, host, path and query, of a time within [MaxSkew],
// and is taken once. So it can't be used at another service, later, or again; a
// page in a browser, which can't sign, reaches nothing.
package private

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"millrace/internal/seal"
)

// maxTold bounds the forged addresses that are remembered as logged.
const maxTold = 256

// ErrOld means that an address was sealed too long ago, or by a clock that differs.
var ErrOld = errors.New("the address is too old, or the clocks differ: have them set by NTP")

// Config is what a process needs to be one of the peers.
type Config struct {
	// Secret is what all of them share.
	Secret seal.Secret
	// Advertise is the base URL at which others reach this process; empty: it
	// serves none of them.
	Advertise string
	// Authorities verify others' certificates at https:// addresses; nil: the system's.
	Authorities *x509.CertPool
	Log         *slog.Logger
	Registerer  prometheus.Registerer
}

// Peers is one process among those that share a secret. It is safe for
// concurrent use.
type Peers struct {
	keys        *seal.Keys
	advertise   string
	host        string // that requests to this process are for
	authorities *x509.CertPool
	log         *slog.Logger
	nonces      nonces
	refused     *prometheus.CounterVec
	disbelieved *prometheus.CounterVec
	strangers   prometheus.Counter

	mu   sync.Mutex // guards told
	told map[told]bool
}

// told is a forged address that was logged.
type told struct {
	role seal.Role
	url  string
}

// New makes a Peers. It does no I/O.
func New(c Config) (*Peers, error) {
	keys, err := seal.New(c.Secret)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	f := promauto.With(c.Registerer)
	p := &Peers{
		keys: keys, advertise: c.Advertise, authorities: c.Authorities, log: c.Log, told: map[told]bool{}, nonces: nonces{limit: maxNonces},
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_private_refused_total", Help: "Requests that the private listener refused, by reason.",
		}, []string{"reason"}),
		disbelieved: f.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_private_addresses_refused_total", Help: "Looks at addresses in Redis that no service of ours signed (forged), or that are too old, by role.",
		}, []string{"role", "reason"}),
		strangers: f.NewCounter(prometheus.CounterOpts{
			Name: "millrace_private_strangers_total", Help: "Answers of who doesn't know the secret that services share.",
		}),
	}
	if c.Advertise != "" {
		u, err := url.Parse(c.Advertise)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("%q is no URL at which other services could reach this one", c.Advertise)
		}
		p.host = strings.ToLower(u.Host)
	}
	// From 0 on: an alert on an increase doesn't see a counter that appears with 1.
	for _, r := range reasons {
		p.refused.WithLabelValues(string(r))
	}
	for _, r := range []seal.Role{seal.Ingest, seal.Worker, seal.Edge} {
		p.disbelieved.WithLabelValues(string(r), "forged")
	}
	p.disbelieved.WithLabelValues(string(seal.Edge), "old")
	return p, nil
}

// Advertise returns the base URL at which others reach this process.
func (p *Peers) Advertise() string { return p.advertise }

// Self returns this process's own address for others to find.
func (p *Peers) Self(role seal.Role, scope string) seal.Address {
	return p.keys.Seal(role, scope, p.advertise)
}

// Open returns the base URL in an address that a peer has sealed. Any other one is
// counted, logged once, and answered with an error that wraps [seal.ErrForged]:
// nobody may be sent there.
func (p *Peers) Open(role seal.Role, scope string, a seal.Address) (string, error) {
	u, err := p.keys.Open(role, scope, a)
	if errors.Is(err, seal.ErrForged) {
		p.disbelieved.WithLabelValues(string(role), "forged").Inc()
		if p.first(told{role, a.String()}) {
			p.log.Warn("an address in Redis isn't signed by a service that has the same secret: it is ignored",
				"role", string(role), "of", scope, "address", a)
		}
	}
	if err != nil {
		return "", fmt.Errorf("address of the %s of %s: %w", role, scope, err)
	}
	return u, nil
}

// SealAt returns another address of this process for others to find, which is
// taken for a time only: the time in Unix milliseconds, and the address in its scope.
func (p *Peers) SealAt(role seal.Role, now time.Time, url string) string {
	at := strconv.FormatInt(now.UnixMilli(), 10)
	return at + " " + string(p.keys.Seal(role, at, url))
}

// OpenAt is [Peers.Open] for what [Peers.SealAt] returned no longer ago than within;
// clocks may differ by [MaxSkew]. One that is older is counted and answered with an
// error that wraps [ErrOld].
func (p *Peers) OpenAt(role seal.Role, now time.Time, within time.Duration, sealed string) (string, error) {
	at, address, _ := strings.Cut(sealed, " ")
	u, err := p.Open(role, at, seal.Address(address))
	if err != nil {
		return "", err
	}
	ms, err := strconv.ParseInt(at, 10, 64)
	if age := now.Sub(time.UnixMilli(ms)); err != nil || age.Abs() > within+MaxSkew {
		p.disbelieved.WithLabelValues(string(role), "old").Inc()
		return "", fmt.Errorf("address of %s: %w", u, ErrOld)
	}
	return u, nil
}

// first reports whether a forged address wasn't logged yet. Above maxTold none is
// logged any more.
func (p *Peers) first(t told) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told[t] || len(p.told) >= maxTold {
		return false
	}
	p.told[t] = true
	return true
}
