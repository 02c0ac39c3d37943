package edge

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/internal/gate"
	"millrace/internal/rate"
)

// What one address may have under way. A thousand viewers behind the address of a
// mobile carrier, or a school with 200 that all seek, stay below it.
const (
	// maxRequests bounds the requests of an address that are under way: four for each
	// of a thousand viewers, most of which wait for what comes next.
	maxRequests = 4096
	// maxFetches bounds the fetches of an address that are under way.
	maxFetches = 64
	// maxCallers bounds the addresses that are known; those of which nothing is
	// under way are forgotten after callerFor, or at once where there are too many.
	maxCallers = 65_536
	callerFor  = time.Minute
	// sweepInterval is how often those that are idle are looked for.
	sweepInterval = 10 * time.Second
)

var (
	// missLimit bounds what is fetched for an address in vain: what isn't there, and what it
	// doesn't take. It has room for 200 fetches of segments that are broken off at once: those of
	// a school where all seek again before they have what they sought.
	missLimit = rate.Limit{PerSecond: 8, Size: 512}
	// lookupLimit bounds the channels that an address asks for and that aren't live.
	// A page that waits for a streamer asks each few seconds, and shares the answer.
	lookupLimit = rate.Limit{PerSecond: 50, Size: 500}
)

// caller is an address that requests come from, as gate.Source counts them: what
// is under way for it is bounded. Nil is one without bounds.
type caller struct {
	from netip.Prefix
	// requests are those under way, seen when the newest came, in Unix nanoseconds.
	requests, seen atomic.Int64

	// Guarded by the cache's mu: the bytes that are in memory for answers to it and
	// for nobody else any longer, its fetches under way, and those in vain.
	held    int64
	fetches int
	misses  rate.Bucket

	// Guarded by the service's mu.
	lookups rate.Bucket
}

// callers knows the addresses that requests come from. It is safe for concurrent use.
type callers struct {
	trusted []netip.Prefix
	metrics *metrics

	// mu guards the fields below. A caller with requests under way stays known.
	mu    sync.Mutex
	known map[netip.Prefix]*caller
	swept time.Time
}

func newCallers(trusted []netip.Prefix, m *metrics) *callers {
	return &callers{trusted: trusted, metrics: m, known: make(map[netip.Prefix]*caller)}
}

// enter notes a request; the caller's leave is to be called when it is answered.
// It returns errGreedy where too many are under way.
func (c *callers) enter(r *http.Request, now time.Time) (*caller, error) {
	address, ok := c.origin(r)
	if !ok {
		return nil, nil
	}
	k := c.find(gate.Source(address), now)
	if k.requests.Load() > maxRequests {
		k.leave()
		c.metrics.rejected.WithLabelValues("address_requests").Inc()
		return nil, errGreedy
	}
	return k, nil
}

func (k *caller) leave() {
	if k != nil {
		k.requests.Add(-1)
	}
}

// find returns the caller with one more request under way.
func (c *callers) find(from netip.Prefix, now time.Time) *caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[from]
	if k == nil {
		if len(c.known) >= maxCallers || now.Sub(c.swept) >= sweepInterval {
			c.sweep(now)
		}
		k = &caller{from: from}
		c.known[from] = k
	}
	k.requests.Add(1)
	k.seen.Store(now.UnixNano())
	return k
}

// sweep forgets who has nothing under way and didn't ask lately; where there are too many,
// who asked lately too. It needs mu.
func (c *callers) sweep(now time.Time) {
	full := len(c.known) >= maxCallers
	c.swept = now
	for from, k := range c.known {
		if k.requests.Load() == 0 && (full || now.UnixNano()-k.seen.Load() >= int64(callerFor)) {
			delete(c.known, from)
		}
	}
}

// origin returns the address of the viewer: the connection's, or the last one in
// X-Forwarded-For that isn't a trusted proxy's. ok is false where there is none but
// proxies': what they ask for isn't bounded by address.
func (c *callers) origin(r *http.Request) (address netip.Addr, ok bool) {
	address, ok = parseAddress(r.RemoteAddr)
	if !ok || !c.trusts(address) {
		return address, ok
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= 0; i-- {
		said := strings.TrimSpace(forwarded[i])
		if said == "" {
			continue
		}
		next, isAddress := parseAddress(said)
		if !isAddress {
			break // what stands before it may come from anybody
		}
		if address = next; !c.trusts(address) {
			return address, true
		}
	}
	return address, false
}

func (c *callers) trusts(address netip.Addr) bool {
	for _, p := range c.trusted {
		if p.Contains(address) {
			return true
		}
	}
	return false
}

// parseAddress reads an address, with a port or without.
func parseAddress(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap(), err == nil
}
