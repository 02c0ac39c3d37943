//go:build chaos

package chaos

import (
	"time"

	"millrace/e2e/harness"
)

func edgeRows() []row {
	return []row{
		{
			name: "edge kill -9, of two", times: 6, shape: shape{edges: 3}, stalls: 1, longest: 5 * time.Second, settle: 12 * time.Second,
			target: "at most one short stall each",
			fault: func(c *trial, _ int) {
				e := c.edgeInUse()
				c.at()
				e.Kill()
				time.Sleep(4 * time.Second)
				c.restart(e)
			},
		},
		{
			name: "all but edge and api gone for 5 s", times: 1, shape: shape{proxies: true}, losesOpen: true,
			breaks: 1, stalls: 2, longest: 5*time.Second + afterOutage,
			target: "the edge serves what it holds, and comes back by itself",
			fault: func(c *trial, _ int) {
				gone := append(c.ingests[:1:1], c.workers...)
				for _, w := range c.workers {
					c.tally(w)
				}
				c.at()
				c.redisProxy.Cut()
				c.s3Proxy.Cut()
				for _, s := range gone {
					s.Kill()
				}
				c.pub.Kill()
				c.serves(c.edges[0], 5*time.Second)
				c.s3Proxy.Restore()
				c.redisProxy.Restore()
				for _, s := range gone {
					c.restart(s)
				}
				c.returns(func() publisher { return c.publishDemo(c.ingests[0]) })
			},
		},
	}
}

// serves checks for a while that an edge has all playlists and the newest
// segments that they list.
func (c *trial) serves(e *harness.Server, d time.Duration) {
	c.t.Helper()
	asked := 0
	const longest = 2500 * time.Millisecond // that a playlist without news is held back
	deadline := c.faults[len(c.faults)-1].Add(d)
	for ; time.Until(deadline) > longest; time.Sleep(100 * time.Millisecond) {
		lists, err := c.media(e, "demo")
		if err != nil {
			c.problem("the edge alone: %v", err)
		}
		for rendition, m := range lists {
			whole := 0
			for i := len(m.Segments) - 1; i >= 0 && whole < 3; i-- {
				if m.Segments[i].Open() {
					continue
				}
				whole++
				asked++
				if err := c.loadSegment(m, &m.Segments[i]); err != nil {
					c.problem("the edge alone, %s: %v", rendition, err)
				}
			}
		}
		if len(c.problems) > 10 {
			break // enough
		}
	}
	if left := time.Until(deadline); left < 0 {
		c.late("the edge alone took %.1f s longer than it may", -left.Seconds())
	}
	c.note("the edge alone served %d segments", asked)
	time.Sleep(time.Until(deadline))
}
