//go:build hostile

package hostile

import (
	"fmt"
	"os"
	"sync"
	"time"

	"millrace/e2e/harness"
)

// gaugePeriod is how often memory is looked at: an encoder that takes gigabytes does
// so for seconds.
const gaugePeriod = 150 * time.Millisecond

// usage is what the server's processes need at one moment.
type usage struct {
	// resident is the memory of all of them in MB, own that of the server itself,
	// files its descriptors.
	resident, own float64
	files         int
}

// gauge measures the server while it is attacked.
type gauge struct {
	server  *harness.Server
	lasting []int
	quit    chan struct{}
	done    sync.WaitGroup
	before  usage

	mu   sync.Mutex
	peak usage
}

// measured is what a gauge has found.
type measured struct {
	before, peak, after usage
	// died is set when the server or its redis-server was replaced or is gone.
	died bool
}

// measure begins to measure.
func measure(s *harness.Server) *gauge {
	g := &gauge{server: s, quit: make(chan struct{})}
	g.lasting = lasting(s)
	g.before = g.look()
	g.peak = g.before
	g.done.Go(func() {
		tick := time.NewTicker(gaugePeriod)
		defer tick.Stop()
		for {
			select {
			case <-g.quit:
				return
			case <-tick.C:
				g.look()
			}
		}
	})
	return g
}

// look measures now, and keeps the most.
func (g *gauge) look() usage {
	pid := g.server.Cmd.Process.Pid
	own, encoders := harness.Resident(pid), int64(0)
	for _, p := range harness.Descendants(pid) {
		encoders += harness.Resident(p.PID)
	}
	u := usage{resident: float64(own+encoders) / 1e6, own: float64(own) / 1e6}
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		u.files = len(entries)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if u.resident > g.peak.resident {
		g.peak.resident, g.peak.own = u.resident, u.own
	}
	g.peak.files = max(g.peak.files, u.files)
	return u
}

// stop ends the measurement.
func (g *gauge) stop() measured {
	close(g.quit)
	g.done.Wait()
	after := g.look()
	m := measured{before: g.before, peak: g.peak, after: after}
	now := lasting(g.server)
	m.died = !g.server.Running() || fmt.Sprint(now) != fmt.Sprint(g.lasting)
	return m
}
