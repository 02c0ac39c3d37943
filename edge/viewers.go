package edge

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/viewers"
)

const (
	// seenFor is how long after a request a viewer counts.
	seenFor = 15 * time.Second
	// maxViewers bounds the viewers that are told apart, on all channels; more
	// than these aren't counted.
	maxViewers = 500_000
	// maxSessionID bounds a CMCD session id (CTA-5004 says 64 characters).
	maxSessionID = 64
)

// audience counts viewers. It is safe for concurrent use.
type audience struct {
	trusted []netip.Prefix
	seed    maphash.Seed
	metrics *metrics

	// mu guards the fields below.
	mu       sync.Mutex
	channels map[string]map[uint64]time.Time
	total    int
	// reported are the channels of the last report that had viewers.
	reported map[string]bool
}

func newAudience(trusted []netip.Prefix, m *metrics) *audience {
	return &audience{
		trusted: trusted, seed: maphash.MakeSeed(), metrics: m,
		channels: make(map[string]map[uint64]time.Time), reported: make(map[string]bool),
	}
}

// saw notes a request of a viewer. Only a hash of who it was is kept.
func (a *audience) saw(channel string, r *http.Request, now time.Time) {
	var h maphash.Hash
	h.SetSeed(a.seed)
	if sid := sessionID(r); sid != "" {
		_, _ = h.WriteString("sid " + sid)
	} else {
		_, _ = h.WriteString("peer " + a.client(r))
		_ = h.WriteByte(' ')
		_, _ = h.WriteString(r.UserAgent())
	}
	who := h.Sum64()

	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.channels[channel]
	if m == nil {
		m = make(map[uint64]time.Time)
		a.channels[channel] = m
	}
	if _, known := m[who]; !known {
		if a.total >= maxViewers {
			a.metrics.rejected.WithLabelValues("viewers").Inc()
			return
		}
		a.total++
	}
	m[who] = now
}

// sweep forgets viewers not seen lately and returns how many each channel has
// left; a channel that has none any more is returned once with 0.
func (a *audience) sweep(now time.Time) map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	counts := make(map[string]int)
	for channel := range a.reported {
		counts[channel] = 0
	}
	clear(a.reported)
	for channel, m := range a.channels {
		for who, at := range m {
			if now.Sub(at) >= seenFor {
				delete(m, who)
				a.total--
			}
		}
		if len(m) == 0 {
			delete(a.channels, channel)
			continue
		}
		counts[channel] = len(m)
		a.reported[channel] = true
	}
	a.metrics.viewers.Set(float64(a.total))
	return counts
}

// run reports to Redis how many viewers each channel has, until ctx ends; then
// it takes the last report back.
func (a *audience) run(ctx context.Context, db redis.UniversalClient, id string, log *slog.Logger) {
	tick := time.NewTicker(viewers.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.report(ctx, db, id, log, a.sweep(time.Now()))
		case <-ctx.Done():
			gone := a.sweep(time.Now())
			for channel := range gone {
				gone[channel] = 0
			}
			a.report(context.WithoutCancel(ctx), db, id, log, gone)
			return
		}
	}
}

func (a *audience) report(ctx context.Context, db redis.UniversalClient, id string, log *slog.Logger, counts map[string]int) {
	if len(counts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := viewers.Report(ctx, db, id, counts); err != nil {
		a.metrics.redis.Inc()
		log.Warn("viewers can't be reported", "err", err)
	}
}

// client returns the address of the viewer: the connection's, or the last one
// in X-Forwarded-For that isn't a trusted proxy's.
func (a *audience) client(r *http.Request) string {
	peer := hostOf(r.RemoteAddr)
	if !a.trusts(peer) {
		return peer
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= 0; i-- {
		next := strings.TrimSpace(forwarded[i])
		if next == "" {
			continue
		}
		peer = next
		if !a.trusts(hostOf(peer)) {
			break
		}
	}
	return peer
}

func (a *audience) trusts(host string) bool {
	if len(a.trusted) == 0 {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	for _, p := range a.trusted {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// hostOf cuts the port off an address.
func hostOf(address string) string {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return ap.Addr().Unmap().String()
	}
	return address
}

// sessionID returns the CMCD session id of a request (CTA-5004), or "".
func sessionID(r *http.Request) string {
	if h := r.Header.Get("CMCD-Session"); h != "" {
		if sid := cmcdSession(h); sid != "" {
			return sid
		}
	}
	query := r.URL.RawQuery
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if value, ok := strings.CutPrefix(pair, "CMCD="); ok {
			if value, err := url.QueryUnescape(value); err == nil {
				return cmcdSession(value)
			}
		}
	}
	return ""
}

// cmcdSession returns the value of sid in a list of CMCD keys, or "".
func cmcdSession(s string) string {
	for s != "" {
		var value string
		key := strings.TrimLeft(s, " ")
		end := strings.IndexAny(key, "=,")
		if end < 0 || key[end] == ',' { // a key without a value is true
			if end < 0 {
				return ""
			}
			s = key[end+1:]
			continue
		}
		key, s = key[:end], key[end+1:]
		value, s = cmcdValue(s)
		if key == "sid" {
			if value == "" || len(value) > maxSessionID {
				return ""
			}
			return value
		}
	}
	return ""
}

// cmcdValue reads a quoted string or a token, and the comma after it.
func cmcdValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, ",")
		return value, rest
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			_, rest, _ = strings.Cut(s[i+1:], ",")
			return b.String(), rest
		default:
			b.WriteByte(s[i])
		}
	}
	return "", ""
}
