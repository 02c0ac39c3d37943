package edge

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/edge/fold"
	"millrace/internal/seal"
	"millrace/internal/sparselog"
)

const (
	// edgesKey is the Redis hash in which edges tell of themselves: by URL, when an
	// edge did so last, and its URL sealed at that time (see private.Peers.SealAt).
	edgesKey = "millrace:edges"
	// announceInterval is how often an edge tells of itself, edgeFor how long it
	// is known after that.
	announceInterval = 2 * time.Second
	edgeFor          = 6 * time.Second
	// maxEdges bounds the edges that are known.
	maxEdges = 64
	// steeringTTL is how often players ask for the steering manifest, in seconds.
	steeringTTL = 10
)

var (
	//go:embed announce.lua
	announceSource string
	announceScript = redis.NewScript(announceSource)
)

// pathway is an edge by which players can play (RFC 8216bis, 7).
type pathway struct {
	// id is the same at all edges.
	id string
	// base is the URL below which /hls/ lies.
	base string
}

func newPathway(base string) pathway {
	base = strings.TrimSuffix(base, "/")
	sum := sha256.Sum256([]byte(base))
	return pathway{id: "edge-" + hex.EncodeToString(sum[:4]), base: base}
}

// edges knows which edges there are. It is safe for concurrent use.
type edges struct {
	self pathway // without a base this edge is not among them

	// mu guards the fields below.
	mu sync.Mutex
	// alive are those that players can change between, in one order at all
	// edges, this one included unless it is leaving.
	alive []pathway
	// left is set when this edge is leaving.
	left bool
}

// pathways returns this edge and the next one, or nothing when it is alone. When
// this edge is leaving, it returns the next two of the others, if there are any.
func (e *edges) pathways() []pathway {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, ok := e.place()
	if !ok || len(e.alive) < 2 && !e.left {
		return nil
	}
	paths := []pathway{e.alive[i]}
	if len(e.alive) > 1 {
		paths = append(paths, e.alive[(i+1)%len(e.alive)])
	}
	return paths
}

// place returns where this edge stands among those alive, or where the next one
// does when it is leaving. ok is false when there is none. It needs mu.
func (e *edges) place() (i int, ok bool) {
	i, ok = slices.BinarySearchFunc(e.alive, e.self, byID)
	if !ok && e.left && len(e.alive) > 0 {
		return i % len(e.alive), true
	}
	return i, ok
}

func byID(a, b pathway) int { return strings.Compare(a.id, b.id) }

// steering returns the address of a channel's steering manifest, from that of
// its multivariant playlist: another edge's when this one is leaving.
func (e *edges) steering(channel string, paths []pathway) string {
	if len(paths) == 0 || paths[0] == e.self {
		return fold.SteeringName
	}
	return paths[0].base + "/hls/" + channel + "/" + fold.SteeringName
}

// priority returns the ids of the edges that are alive: first the one in use,
// if it is, then this one unless it is leaving, then those after it.
func (e *edges) priority(inUse string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, _ := e.place()
	var ids []string
	for n := range e.alive {
		ids = append(ids, e.alive[(i+n)%len(e.alive)].id)
	}
	if at := slices.Index(ids, inUse); at > 0 {
		ids = append([]string{inUse}, slices.Delete(ids, at, at+1)...)
	}
	if len(ids) == 0 {
		ids = []string{e.self.id}
	}
	return ids
}

func (e *edges) set(urls []string) int {
	alive := make([]pathway, 0, len(urls))
	for _, u := range urls {
		if isBase(u) {
			alive = append(alive, newPathway(u))
		}
	}
	slices.SortFunc(alive, byID)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.alive = alive
	return len(alive)
}

// leave takes this edge out of what players are told.
func (e *edges) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.left = true
	e.alive = slices.DeleteFunc(slices.Clone(e.alive), func(p pathway) bool { return p == e.self })
}

// isBase reports whether u can stand in a playlist as the base of addresses.
func isBase(u string) bool {
	p, err := url.Parse(u)
	return err == nil && (p.Scheme == "http" || p.Scheme == "https") && p.Host != "" && p.RawQuery == "" && p.Fragment == "" &&
		!strings.ContainsFunc(u, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' })
}

// Announce tells the other edges of this one, so that players can change
// between them, until ctx ends; then it takes that back, and players are sent
// to the others while this edge still serves. Without a PublicURL it only waits.
func (s *Service) Announce(ctx context.Context) error {
	if s.edges.self.base == "" {
		<-ctx.Done()
		return nil
	}
	var faults sparselog.Limiter
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	for {
		if err := s.announce(ctx); err != nil && ctx.Err() == nil {
			s.metrics.redis.Inc()
			faults.Warn(s.log, "this edge can't be announced to the others", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.edges.leave()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := s.cfg.Redis.HDel(ctx, edgesKey, s.edges.self.base).Err(); err != nil {
				s.log.Warn("the announcement of this edge can't be taken back; it ends by itself", "err", err, "after", edgeFor)
			}
			return nil
		}
	}
}

// announce tells the other edges of this one, and learns which they are. While
// Redis is away, the edges known stay.
func (s *Service) announce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	now := time.Now()
	all, err := announceScript.Run(ctx, s.cfg.Redis, []string{edgesKey},
		s.edges.self.base, edgeFor.Milliseconds(), maxEdges, s.cfg.Peers.SealAt(seal.Edge, now, s.edges.self.base)).StringSlice()
	if err != nil {
		return fmt.Errorf("announce edge %s: %w", s.edges.self.base, err)
	}
	var urls []string
	for _, said := range all {
		// Players are sent there: only an edge of ours may have said it, and lately.
		if u, err := s.cfg.Peers.OpenAt(seal.Edge, now, edgeFor, said); err == nil { // else it was counted
			urls = append(urls, u)
		}
	}
	s.metrics.edges.Set(float64(s.edges.set(urls)))
	return nil
}

// serveSteering answers with the steering manifest (RFC 8216bis, 7.2).
func (s *Service) serveSteering(w *response, r *http.Request) {
	if s.edges.self.base == "" {
		fail(w, r, failAddress)
		return
	}
	doc, _ := json.Marshal(struct { // numbers and strings always encode
		Version   int      `json:"VERSION"`
		TTL       int      `json:"TTL"`
		ReloadURI string   `json:"RELOAD-URI"`
		Priority  []string `json:"PATHWAY-PRIORITY"`
	}{1, steeringTTL, fold.SteeringName, s.edges.priority(strings.Trim(r.URL.Query().Get("_HLS_pathway"), `"`))})
	serveBytes(w, r, typeJSON, []string{"no-store"}, append(doc, '\n'))
}
