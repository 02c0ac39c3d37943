//go:build chaos

package chaos

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/viewer"
)

// publishDemo publishes the row's clip to an ingest, by way of its proxy if there is one.
func (c *cluster) publishDemo(to *harness.Server) publisher {
	c.t.Helper()
	return c.publishAs(to, c.key, c.shape.clip)
}

func (c *cluster) publishAs(to *harness.Server, key string, what harness.Clip) publisher {
	c.t.Helper()
	at := to.RTMP
	for n, i := range c.ingests {
		if i == to && n < len(c.rtmpWires) {
			at = c.rtmpWires[n].address
		}
	}
	if what.MP4 {
		return publishEnhanced(c.t, at, key, what)
	}
	return harness.PublishTo(c.t, "rtmp://"+at+"/live/"+key, []string{"-re", "-i", what.File(c.t), "-c", "copy"})
}

// awayText is what the page says then.
const awayText = "streamer lost the connection"

// away has the publisher gone for a time from now on. heal, unless nil, is what
// must be well again for its return.
func (c *trial) away(d time.Duration, gone, heal func(), back func() publisher) {
	c.t.Helper()
	c.at()
	gone()
	end := c.faults[len(c.faults)-1].Add(d)
	tells := d >= 10*time.Second // shorter, there is a picture still
	if tells {
		err := harness.Until(c.t.Context(), time.Until(end), func() error {
			if !strings.Contains(c.witness.Text(), awayText) {
				return errors.New("the page doesn't say that the streamer is away")
			}
			return nil
		})
		if err != nil {
			c.problem("%v", err)
		}
	}
	time.Sleep(time.Until(end))
	if heal != nil {
		heal()
	}
	c.returns(back)
	if tells && strings.Contains(c.witness.Text(), awayText) {
		c.problem("the page still says that the streamer is away")
	}
}

// again is how long an encoder waits that was refused, before it tries again.
const again = time.Second

// returns brings the publisher back, and measures how soon after its first
// keyframe the viewer has a picture again.
func (c *trial) returns(back func() publisher) {
	c.t.Helper()
	n := uint64(c.observer.Discontinuities()) + 1
	start := time.Now()
	c.pub = back()
	tried, refused := start, 0
	err := harness.Until(c.t.Context(), 30*time.Second, func() error {
		if c.observer.FirstAfterBreak(n) == nil {
			if !c.pub.Running() && time.Since(tried) > again {
				c.pub, tried = back(), time.Now()
				refused++
			}
			return errors.New("nothing new")
		}
		return nil
	})
	if err != nil {
		c.problem("nothing new came 30 s after the return")
		return
	}
	if refused > 0 {
		c.note("the encoder was refused %d times when it came back", refused)
	}
	first := c.observer.FirstAfterBreak(n)
	time.Sleep(4 * time.Second)
	at := viewer.Resumed(c.witness.Looks(), first.Begins)
	if at.IsZero() {
		c.late("the picture didn't come back within 4 s of the first new part")
		return
	}
	took := at.Sub(first.Begins)
	if took > 2*time.Second {
		c.late("the picture came back %.1f s after the first new keyframe", took.Seconds())
	}
	c.note("picture %.1f s after the first new keyframe, which came %.1f s after the encoder's start", took.Seconds(), first.Begins.Sub(start).Seconds())
}

// others are settings other than the common clip's: first all at once, then one
// by one the size, the frame rate, the codec's profile, the sound.
var others = []harness.Clip{
	{Name: "chaos-small", Seconds: "60", Size: "426x240", Rate: "25", Video: []string{"-g", "50", "-profile:v", "baseline", "-bf", "0"},
		Audio: []string{"-c:a", "aac", "-b:a", "64k", "-ac", "1", "-ar", "44100"}},
	{Name: "chaos-large", Seconds: "60", Size: "960x540", Rate: "60", Video: []string{"-g", "120", "-bf", "2"}, Audio: harness.Stereo},
	{Name: "chaos-size", Seconds: "60", Size: "854x480", Rate: "30", Video: []string{"-g", "60", "-bf", "2"}, Audio: harness.Stereo},
	{Name: "chaos-rate", Seconds: "60", Size: "640x360", Rate: "60", Video: []string{"-g", "120", "-bf", "2"}, Audio: harness.Stereo},
	{Name: "chaos-profile", Seconds: "60", Size: "640x360", Rate: "30", Video: []string{"-g", "60", "-profile:v", "baseline", "-bf", "0"}, Audio: harness.Stereo},
	{Name: "chaos-sound", Seconds: "60", Size: "640x360", Rate: "30", Video: []string{"-g", "60", "-bf", "2"},
		Audio: []string{"-c:a", "aac", "-b:a", "64k", "-ac", "1", "-ar", "44100"}},
}

// afterOutage is how much longer than the publisher is away a stall may be.
const afterOutage = 3 * time.Second

func publisherRows() []row {
	const target = "same broadcast, 1 discontinuity, picture ≤ 2 s after the keyframe"
	outage := func(name string, seconds int, r row) row {
		r.name, r.times, r.target = fmt.Sprintf(name, seconds), 1, target
		r.breaks, r.stalls, r.longest = 1, 2, time.Duration(seconds)*time.Second+afterOutage
		return r
	}
	demo := func(c *trial) func() publisher {
		return func() publisher { return c.publishDemo(c.ingests[0]) }
	}
	var list []row
	for _, seconds := range []int{2, 10, 40} {
		list = append(list, outage("publisher kill -9, back after %d s", seconds, row{
			short: seconds == 2,
			fault: func(c *trial, _ int) { c.away(time.Duration(seconds)*time.Second, c.pub.Kill, nil, demo(c)) },
		}))
	}
	for _, seconds := range []int{2, 10, 40} {
		list = append(list, outage("publisher's network cut, back after %d s", seconds, row{
			shape: shape{proxies: true},
			fault: func(c *trial, _ int) {
				// The old connection stays open and silent at ingest's end.
				c.away(time.Duration(seconds)*time.Second, func() { c.rtmpWires[0].sever(0) }, func() {
					c.pub.Kill()
					c.mend("ingest", false, c.rtmpWires[0])
				}, demo(c))
			},
		}))
	}
	for _, seconds := range []int{2, 10, 40} {
		list = append(list, outage("publisher stopped and started, %d s", seconds, row{
			fault: func(c *trial, _ int) { c.away(time.Duration(seconds)*time.Second, c.pub.End, nil, demo(c)) },
		}))
	}
	return append(list,
		row{
			name: "publisher back with other settings", times: len(others), target: target + "; no rendition disappears",
			breaks: 1, stalls: 2, longest: 2*time.Second + afterOutage,
			fault: func(c *trial, n int) {
				next := others[n%len(others)]
				next.File(c.t)
				c.away(2*time.Second, c.pub.Kill, nil, func() publisher { return c.publishAs(c.ingests[0], c.key, next) })
			},
		},
		row{
			name: "publisher back at another ingest after 2 s", times: 2, target: target,
			breaks: 1, stalls: 2, longest: 2*time.Second + afterOutage, shape: shape{ingests: 2},
			fault: func(c *trial, n int) {
				c.away(2*time.Second, c.pub.Kill, nil, func() publisher { return c.publishDemo(c.ingests[(n+1)%2]) })
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
					_ = harness.Until(c.t.Context(), 3*time.Second, func() error {
						if second.Running() {
							return errors.New("it publishes")
						}
						refused++
						return nil
					})
					second.Kill()
				}
				if refused == 0 {
					c.problem("the second encoder was never refused")
				}
				if !c.pub.Running() {
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
			name: "ingest kill -9, publisher goes to another one", times: 2, target: target,
			breaks: 1, stalls: 2, longest: time.Second + afterOutage, shape: shape{ingests: 2},
			fault: func(c *trial, n int) {
				old := c.ingests[n%2]
				c.away(time.Second, func() {
					old.Kill()
					c.pub.Kill()
				}, nil, func() publisher { return c.publishDemo(c.ingests[(n+1)%2]) })
				c.restart(old)
			},
		},
		{
			name: "ingest kill -9, started again, publisher returns", times: 2, target: target,
			breaks: 1, stalls: 2, longest: time.Second + afterOutage,
			fault: func(c *trial, _ int) {
				c.away(time.Second, func() {
					c.ingests[0].Kill()
					c.pub.Kill()
					c.restart(c.ingests[0])
				}, nil, func() publisher { return c.publishDemo(c.ingests[0]) })
			},
		},
	}
}
