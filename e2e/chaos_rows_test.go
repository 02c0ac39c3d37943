//go:build chaos

package e2e

import (
	"syscall"
	"time"
)

// rows are all faults, in the order of the table.
func rows() []row {
	var list []row
	list = append(list, workerRows()...)
	list = append(list, publisherRows()...)
	list = append(list, storageRows()...)
	return append(list, redisRows()...)
}

// publishDemo publishes the row's clip to an ingest, by way of its proxy if there is one.
func (c *cluster) publishDemo(to *server) *publisher {
	c.t.Helper()
	return c.publishOther(to, c.shape.clip)
}

func (c *cluster) publishOther(to *server, what clip, extra ...string) *publisher {
	c.t.Helper()
	at := to.rtmp
	for n, i := range c.ingests {
		if i == to && n < len(c.rtmpProxies) {
			at = c.rtmpProxies[n].Address
		}
	}
	return publishTo(c.t, "rtmp://"+at+"/live/"+c.key, []string{"-re", "-i", what.file(c.t), "-c", "copy"}, extra...)
}

func workerRows() []row {
	return []row{
		{
			name: "worker kill -9", times: 10, short: true,
			target: "0 stalls, first part ≤ 0.3 s late",
			fault: func(c *trial, _ int) {
				w := c.busy(0)
				c.at()
				w.kill()
				time.Sleep(2 * time.Second)
				c.restart(w)
			},
		},
		{
			name: "FFmpeg kill -9", times: 10, short: true,
			target: "0 stalls",
			fault: func(c *trial, _ int) {
				pids := children(c.busy(0).cmd.Process.Pid, "ffmpeg")
				if len(pids) == 0 {
					c.t.Fatal("the worker has no ffmpeg")
				}
				c.at()
				signalAll(syscall.SIGKILL, pids...)
			},
		},
		{
			name: "worker and FFmpeg kill -9", times: 10,
			target: "0 stalls",
			fault: func(c *trial, _ int) {
				w := c.busy(0)
				pids := children(w.cmd.Process.Pid, "ffmpeg")
				c.at()
				signalAll(syscall.SIGKILL, append(pids, w.cmd.Process.Pid)...)
				w.kill()
				time.Sleep(2 * time.Second)
				c.restart(w)
			},
		},
	}
}

// away has the publisher gone for a time, and measures how soon the viewer
// has a picture again after its return.
func (c *trial) away(d time.Duration, gone, back func()) {
	c.at()
	gone()
	time.Sleep(time.Until(c.faults[len(c.faults)-1].Add(d)))
	c.returned(back)
}

// returned notes how long the viewer waits after the publisher's first keyframe.
func (c *trial) returned(back func()) {
	n := uint64(c.observer.discontinuities()) + 1
	back()
	err := until(c.t.Context(), 30*time.Second, func() error {
		if c.observer.firstAfterBreak(n) == nil {
			return errNothing
		}
		return nil
	})
	if err != nil {
		c.problem("nothing new came 30 s after the return")
		return
	}
	first := c.observer.firstAfterBreak(n)
	keyframe := first.due.Add(-400 * time.Millisecond)
	time.Sleep(4 * time.Second)
	at := resumed(c.witness.looks(), keyframe)
	if at.IsZero() {
		c.problem("the viewer's picture didn't come back within 4 s of the first new part")
		return
	}
	c.waits = append(c.waits, wait{"picture after the first keyframe", at.Sub(keyframe)})
	if took := at.Sub(keyframe); took > 2*time.Second {
		c.problem("the picture came back %.1f s after the first new keyframe", took.Seconds())
	}
	c.note("picture back %.1f s after the keyframe", at.Sub(keyframe).Seconds())
}

type nothing struct{}

func (nothing) Error() string { return "nothing new" }

var errNothing = nothing{}

func publisherRows() []row {
	var list []row
	for _, d := range []time.Duration{2 * time.Second, 10 * time.Second, 40 * time.Second} {
		list = append(list, row{
			name: "publisher kill -9, back after " + d.String(), times: 1, short: d == 2*time.Second,
			target: "same broadcast, 1 discontinuity, picture ≤ 2 s after the keyframe", breaks: 1, stalls: 2,
			fault: func(c *trial, _ int) {
				c.away(d, c.pub.kill, func() { c.pub = c.publishDemo(c.ingests[0]) })
			},
		})
	}
	return list
}

func storageRows() []row {
	shape := shape{proxies: true}
	return []row{
		{
			name: "S3 answers 503 for 30 s", times: 1, short: true, shape: shape,
			target: "0 stalls, all in S3 afterwards",
			fault: func(c *trial, _ int) {
				c.at()
				c.s3Faults.failing.Store(true)
				time.Sleep(c.length(30 * time.Second))
				c.s3Faults.failing.Store(false)
				if c.s3Faults.failed.Load() == 0 {
					c.problem("S3 wasn't asked while it failed")
				}
			},
		},
	}
}

func redisRows() []row {
	return []row{
		{
			name: "Redis kill -9", times: 3, short: true,
			target: "0 stalls",
			fault: func(c *trial, _ int) {
				c.at()
				c.redisServer.kill()
				time.Sleep(time.Second)
				c.redisServer.start()
			},
		},
	}
}
