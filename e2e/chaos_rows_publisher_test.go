//go:build chaos

package e2e

import (
	"errors"
	"fmt"
	"time"
)

// publishDemo publishes the row's clip to an ingest, by way of its proxy if there is one.
func (c *cluster) publishDemo(to *server) *publisher {
	c.t.Helper()
	return c.publishAs(to, c.key, c.shape.clip)
}

func (c *cluster) publishAs(to *server, key string, what clip) *publisher {
	c.t.Helper()
	at := to.rtmp
	for n, i := range c.ingests {
		if i == to && n < len(c.rtmpWires) {
			at = c.rtmpWires[n].address
		}
	}
	return publishTo(c.t, "rtmp://"+at+"/live/"+key, []string{"-re", "-i", what.file(c.t), "-c", "copy"})
}

// away has the publisher gone for a time from now on.
func (c *trial) away(d time.Duration, gone, back func()) {
	c.at()
	gone()
	time.Sleep(time.Until(c.faults[len(c.faults)-1].Add(d)))
	c.returns(back)
}

// returns brings the publisher back, and measures how soon after its first
// keyframe the viewer has a picture again.
func (c *trial) returns(back func()) {
	c.t.Helper()
	n := uint64(c.observer.discontinuities()) + 1
	start := time.Now()
	back()
	err := until(c.t.Context(), 30*time.Second, func() error {
		if c.observer.firstAfterBreak(n) == nil {
			return errors.New("nothing new")
		}
		return nil
	})
	if err != nil {
		c.problem("nothing new came 30 s after the return")
		return
	}
	first := c.observer.firstAfterBreak(n)
	time.Sleep(4 * time.Second)
	at := resumed(c.witness.looks(), first.begins)
	if at.IsZero() {
		c.late("the picture didn't come back within 4 s of the first new part")
		return
	}
	took := at.Sub(first.begins)
	if took > 2*time.Second {
		c.late("the picture came back %.1f s after the first new keyframe", took.Seconds())
	}
	c.note("picture %.1f s after the first new keyframe, which came %.1f s after the encoder's start", took.Seconds(), first.begins.Sub(start).Seconds())
}

// Other settings than the common clip's.
var (
	smaller = clip{name: "chaos-small", seconds: "60", size: "426x240", rate: "25", video: []string{"-g", "50", "-profile:v", "baseline", "-bf", "0"},
		audio: []string{"-c:a", "aac", "-b:a", "64k", "-ac", "1", "-ar", "44100"}}
	larger = clip{name: "chaos-large", seconds: "60", size: "960x540", rate: "60", video: []string{"-g", "120", "-bf", "2"}, audio: stereo}
)

func publisherRows() []row {
	const target = "same broadcast, 1 discontinuity, picture ≤ 2 s after the keyframe"
	var list []row
	for _, seconds := range []int{2, 10, 40} {
		list = append(list, row{
			name: fmt.Sprintf("publisher kill -9, back after %d s", seconds), times: 1, short: seconds == 2, target: target, breaks: 1, stalls: 2,
			fault: func(c *trial, _ int) {
				c.away(time.Duration(seconds)*time.Second, c.pub.kill, func() { c.pub = c.publishDemo(c.ingests[0]) })
			},
		})
	}
	for _, seconds := range []int{2, 10, 40} {
		list = append(list, row{
			name: fmt.Sprintf("publisher's network cut, back after %d s", seconds), times: 1, target: target, breaks: 1, stalls: 2, shape: shape{proxies: true},
			fault: func(c *trial, _ int) {
				c.away(time.Duration(seconds)*time.Second, func() { c.rtmpWires[0].sever(0) }, func() {
					c.pub.kill()
					c.rtmpWires[0].mend()
					c.pub = c.publishDemo(c.ingests[0])
				})
			},
		})
	}
	for _, seconds := range []int{2, 10} {
		list = append(list, row{
			name: fmt.Sprintf("publisher stopped and started, %d s", seconds), times: 1, target: target, breaks: 1, stalls: 2,
			fault: func(c *trial, _ int) {
				c.away(time.Duration(seconds)*time.Second, c.pub.end, func() { c.pub = c.publishDemo(c.ingests[0]) })
			},
		})
	}
	return append(list,
		row{
			name: "publisher back with other settings", times: 2, target: target + "; no rendition disappears", breaks: 1, stalls: 2,
			fault: func(c *trial, n int) {
				next := []clip{smaller, larger}[n%2]
				next.file(c.t)
				c.away(2*time.Second, c.pub.kill, func() { c.pub = c.publishAs(c.ingests[0], c.key, next) })
			},
		},
		row{
			name: "publisher back at another ingest after 2 s", times: 2, target: target, breaks: 1, stalls: 2, shape: shape{ingests: 2},
			fault: func(c *trial, n int) {
				c.away(2*time.Second, c.pub.kill, func() { c.pub = c.publishDemo(c.ingests[(n+1)%2]) })
			},
		},
		row{
			name: "a second encoder with the same key for 10 s", times: 1, target: "0 stalls; the first one stays",
			fault: func(c *trial, _ int) {
				c.at()
				deadline := time.Now().Add(10 * time.Second)
				refused := 0
				for time.Now().Before(deadline) {
					second := c.publishDemo(c.ingests[0])
					_ = until(c.t.Context(), 3*time.Second, func() error {
						if second.running() {
							return errors.New("it publishes")
						}
						refused++
						return nil
					})
					second.kill()
				}
				if refused == 0 {
					c.problem("the second encoder was never refused")
				}
				if !c.pub.running() {
					c.problem("the first encoder was thrown out")
				}
				c.note("the second one was refused %d times", refused)
			},
		},
	)
}

func ingestRows() []row {
	const target = "same broadcast, 1 discontinuity, picture ≤ 2 s after the keyframe"
	return []row{
		{
			name: "ingest kill -9, publisher goes to another one", times: 2, target: target, breaks: 1, stalls: 2, shape: shape{ingests: 2},
			fault: func(c *trial, n int) {
				old := c.ingests[n%2]
				c.away(time.Second, func() {
					old.kill()
					c.pub.kill()
				}, func() { c.pub = c.publishDemo(c.ingests[(n+1)%2]) })
				c.restart(old)
			},
		},
		{
			name: "ingest kill -9, started again, publisher returns", times: 2, target: target, breaks: 1, stalls: 2,
			fault: func(c *trial, _ int) {
				c.away(time.Second, func() {
					c.ingests[0].kill()
					c.pub.kill()
					c.restart(c.ingests[0])
				}, func() { c.pub = c.publishDemo(c.ingests[0]) })
			},
		},
	}
}
