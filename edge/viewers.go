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

	"millrace/internal/gate"
	"millrace/internal/viewers"
)

const (
	// seenFor is how long after a request a viewer counts, tookFor how long after the last
	// media that was sent to him: in a pause players ask for playlists only.
	seenFor = 15 * time.Second
	tookFor = 2 * time.Minute
	// maxViewers bounds the viewers that are told apart, on all channels; more
	// than these aren't counted.
	maxViewers = 500_000
	// maxViewersEach bounds those of one address: a lecture hall behind a router counts
	// in full, and who asks under many names from one machine counts as no more.
	maxViewersEach = 256
	// maxSessionID bounds a CMCD session id (CTA-5004 says 64 characters).
	maxSessionID = 64
)

// audience counts viewers: who took media. It is safe for concurrent use.
type audience struct {
	seed    maphash.Seed
	metrics *metrics

	// mu guards the fields below.
	mu       sync.Mutex
	channels map[string]map[uint64]sighting
	total    int
	// from counts the viewers of each address, by its hash.
	from map[uint64]int
	// reported are the channels of the last report that had viewers.
	reported map[string]bool
}

// sighting is when a viewer asked for anything last, and when he took media, in
// Unix nanoseconds; from is the hash of his address.
type sighting struct {
	seen, took int64
	from       uint64
}

func newAudience(m *metrics) *audience {
	return &audience{
		seed: maphash.MakeSeed(), metrics: m,
		channels: make(map[string]map[uint64]sighting), from: make(map[uint64]int), reported: make(map[string]bool),
	}
}

// viewer is who asks: hashes of that and of the address, as gate.Source counts addresses;
// from is 0 where only a proxy's is known.
type viewer struct{ who, from uint64 }

// identify tells who asks from an address. Only hashes are kept.
func (a *audience) identify(r *http.Request, address netip.Addr) viewer {
	bytes, source := address.As16(), gate.Source(address).Addr().As16()
	from := maphash.Bytes(a.seed, source[:])
	if sid := sessionID(r); sid != "" {
		return viewer{maphash.String(a.seed, sid), from}
	}
	var h maphash.Hash
	h.SetSeed(a.seed)
	_, _ = h.Write(bytes[:])
	_, _ = h.WriteString(r.UserAgent())
	return viewer{h.Sum64(), from}
}

// viewer tells who asks.
func (s *Service) viewer(r *http.Request) viewer {
	address, ok := s.callers.origin(r)
	v := s.audience.identify(r, address)
	if !ok {
		v.from = 0
	}
	return v
}

// took notes that a viewer was sent media.
func (a *audience) took(channel string, v viewer, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.channels[channel]
	if m == nil {
		m = make(map[uint64]sighting)
		a.channels[channel] = m
	}
	old, known := m[v.who]
	switch {
	case known:
		v.from = old.from
	case a.total >= maxViewers:
		a.metrics.rejected.WithLabelValues("viewers").Inc()
		return
	case v.from != 0 && a.from[v.from] >= maxViewersEach:
		a.metrics.rejected.WithLabelValues("address_viewers").Inc()
		return
	default:
		a.total++
		a.from[v.from]++
	}
	m[v.who] = sighting{now.UnixNano(), now.UnixNano(), v.from}
}

// stays notes that somebody asks for news: if he took media lately, he is a viewer still.
func (a *audience) stays(channel string, v viewer, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.channels[channel]
	if old, known := m[v.who]; known && now.UnixNano()-old.took < int64(tookFor) {
		old.seen = now.UnixNano()
		m[v.who] = old
	}
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
		for who, s := range m {
			if now.UnixNano()-s.seen >= int64(seenFor) {
				delete(m, who)
				a.total--
				if a.from[s.from]--; a.from[s.from] == 0 {
					delete(a.from, s.from)
				}
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
