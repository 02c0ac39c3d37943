//go:build chaos

package chaos

import (
	"fmt"
	"syscall"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// soon is how long after Redis' return a new broadcast may take to begin. Two
// keyframes, 2 s apart, settle its target duration: most of it is that.
const soon = 3 * time.Second

// beginsSoon publishes on a channel of its own and measures how long after a
// time it plays.
func (c *trial) beginsSoon(since time.Time, name, key string) {
	c.t.Helper()
	p, tried, refused := c.publishAs(c.ingests[0], key, common), time.Now(), 0
	err := harness.Until(c.t.Context(), 20*time.Second, func() error {
		if !p.Running() && time.Since(tried) > again {
			p, tried = c.publishAs(c.ingests[0], key, common), time.Now()
			refused++
		}
		a, err := hls.Fetch(c.t.Context(), hls.Client, c.edges[len(c.edges)-1].Playlist(name))
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
	took := time.Since(since)
	p.Kill()
	if err != nil {
		c.problem("a new broadcast doesn't begin: %v", err)
		return
	}
	c.note("a new broadcast plays after %.1f s", took.Seconds())
	if refused > 0 {
		c.note("its encoder was refused %d times", refused)
	}
	if took > soon {
		c.late("a new broadcast took %.1f s to begin", took.Seconds())
	}
}

func redisRows() []row {
	return []row{
		{
			name: "Redis restarted", times: 2, target: "0 stalls; new broadcasts begin within 3 s",
			fault: func(c *trial, n int) {
				name := fmt.Sprintf("new%d", n)
				key := c.newChannel(name)
				c.at()
				c.redisServer.stop()
				c.redisServer.start()
				c.beginsSoon(time.Now(), name, key)
			},
		},
		{
			name: "Redis kill -9", times: 3, short: true, target: "0 stalls; new broadcasts begin within 3 s",
			fault: func(c *trial, n int) {
				name := fmt.Sprintf("new%d", n)
				key := c.newChannel(name)
				time.Sleep(1500 * time.Millisecond) // the key is on the disk: Redis syncs each second
				c.at()
				c.redisServer.kill()
				time.Sleep(time.Second)
				c.redisServer.start()
				c.beginsSoon(time.Now(), name, key)
			},
		},
		{
			name: "Redis away for 30 s", times: 1, shape: shape{proxies: true}, target: "0 stalls; new broadcasts begin within 3 s",
			fault: func(c *trial, _ int) {
				key := c.newChannel("new")
				c.at()
				c.redisProxy.Cut()
				time.Sleep(c.length(30 * time.Second))
				c.redisProxy.Restore()
				c.beginsSoon(time.Now(), "new", key)
			},
		},
		{
			name: "Redis hangs for 30 s", times: 1, shape: shape{proxies: true}, target: "0 stalls; new broadcasts begin within 3 s",
			fault: func(c *trial, _ int) {
				key := c.newChannel("new")
				c.at()
				c.redisProxy.Hang()
				time.Sleep(c.length(30 * time.Second))
				c.redisProxy.Restore()
				c.beginsSoon(time.Now(), "new", key)
			},
		},
		{
			name: "Redis takes 50 ms a command for 30 s", times: 1, shape: shape{proxies: true}, target: "0 stalls; new broadcasts begin within 3 s",
			fault: func(c *trial, _ int) {
				key := c.newChannel("new")
				c.at()
				c.redisProxy.Slow(50 * time.Millisecond)
				time.Sleep(c.length(30 * time.Second))
				c.redisProxy.Restore()
				c.beginsSoon(time.Now(), "new", key)
			},
		},
		{
			name: "Redis away, and a worker kill -9 in it", times: 1, shape: shape{proxies: true}, stalls: 1, longest: 8 * time.Second,
			target: "another worker as soon as Redis is back; nothing lost",
			fault: func(c *trial, _ int) {
				w := c.busy(0)
				c.tally(w)
				c.at()
				c.redisProxy.Cut()
				time.Sleep(time.Second)
				w.Kill()
				time.Sleep(5 * time.Second)
				c.redisProxy.Restore()
				c.restart(w)
			},
		},
		{
			name: "Sentinel failover, planned", times: 1, shape: shape{sentinel: true}, target: "0 stalls; new broadcasts begin within 3 s",
			fault: func(c *trial, _ int) {
				key := c.newChannel("new")
				time.Sleep(time.Second)
				c.at()
				c.sentinels.Failover()
				c.beginsSoon(time.Now(), "new", key)
			},
		},
		{
			name: "Sentinel failover, the master SIGSTOP for 15 s", times: 1, shape: shape{sentinel: true}, target: "0 stalls; new broadcasts begin within 3 s",
			fault: func(c *trial, _ int) {
				key := c.newChannel("new")
				time.Sleep(time.Second)
				old := c.sentinels.Master()
				c.at()
				c.sentinels.Signal(old, syscall.SIGSTOP)
				c.sentinels.AwaitMaster(old)
				c.beginsSoon(time.Now(), "new", key)
				time.Sleep(time.Until(c.faults[0].Add(15 * time.Second)))
				c.sentinels.Signal(old, syscall.SIGCONT)
			},
		},
	}
}
