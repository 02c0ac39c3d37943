//go:build chaos

package chaos

import (
	"fmt"
	"time"

	"millrace/e2e/harness"
)

func storageRows() []row {
	proxies := shape{proxies: true}
	const all = "0 stalls, all in S3 afterwards"
	// away is S3 in trouble for 30 s.
	away := func(harm func(c *trial), heal func(c *trial)) func(c *trial, _ int) {
		return func(c *trial, _ int) {
			c.at()
			harm(c)
			time.Sleep(c.length(30 * time.Second))
			heal(c)
		}
	}
	restore := func(c *trial) { c.s3Proxy.Restore() }
	refuse := away(func(c *trial) { c.s3Proxy.Cut() }, restore)
	return []row{
		{
			name: "S3 answers 503 for 30 s", times: 1, short: true, shape: proxies, target: all,
			fault: away(func(c *trial) { c.s3Faults.failing.Store(true) }, func(c *trial) {
				c.s3Faults.failing.Store(false)
				if c.s3Faults.failed.Load() == 0 {
					c.problem("S3 wasn't asked while it failed")
				}
			}),
		},
		{name: "S3 hangs for 30 s", times: 1, shape: proxies, target: all, fault: away(func(c *trial) { c.s3Proxy.Hang() }, restore)},
		{name: "S3 refuses connections for 30 s", times: 1, shape: proxies, target: all, fault: refuse},
		{
			name: "S3 takes 1 s a request for 30 s", times: 1, shape: proxies, target: all,
			fault: away(func(c *trial) { c.s3Proxy.Slow(time.Second) }, restore),
		},
		{
			name: "S3 away for 30 s, a spool of 1 MB", times: 1, gaps: true, fault: refuse,
			shape:  shape{proxies: true, args: map[string][]string{"transcode": {"--spool-max", "1MB"}}},
			target: "0 stalls; what was dropped is counted and listed as gaps",
			after: func(c *trial) {
				n := sum(c.workers, "millrace_transcode_spool_dropped_total", "")
				gaps := c.gaps()
				if n == 0 || int(n) != len(gaps) {
					c.problem("%g segments were counted as dropped from the spool, the index has %d gaps", n, len(gaps))
				}
				c.note("%g segments dropped and counted", n)
				c.checkColdEdge(gaps)
			},
		},
	}
}

// checkColdEdge starts an edge that holds nothing, and checks that its playlists
// list the gaps, and that it has all else that they list.
func (c *trial) checkColdEdge(gaps map[string]bool) {
	c.t.Helper()
	e := c.launch("edge")
	harness.AwaitReady(c.t, e)
	lists, err := c.media(e, "demo")
	if err != nil {
		c.problem("a fresh edge: %v", err)
		return
	}
	listed := 0
	for rendition, m := range lists {
		for i := range m.Segments {
			s := &m.Segments[i]
			name := fmt.Sprintf("%s/%d", rendition, s.Sequence)
			if s.Gap != gaps[name] {
				c.problem("%s at a fresh edge: a gap %t, in the index %t", name, s.Gap, gaps[name])
			}
			if s.Gap {
				listed++
			} else if err := c.loadSegment(m, s); err != nil {
				c.problem("%s at a fresh edge: %v", name, err)
			}
		}
	}
	if listed == 0 {
		c.problem("no playlist of a fresh edge lists a gap")
	}
	c.note("a fresh edge lists %d gaps and has all else", listed)
}
