//go:build chaos

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"millrace/internal/testenv"
)

// drainLimit is how long a service may take to leave.
const drainLimit = 60 * time.Second

func drainRows() []row {
	twoEdges := shape{edges: 3}
	return []row{
		{
			name: "worker SIGTERM", times: 5, target: "0 stalls; handed over at a mark",
			fault: func(c *trial, _ int) {
				w := c.busy(0)
				c.at()
				took := c.drain(w, drainLimit)
				c.note("%.1f s", took.Seconds())
				c.restart(w)
			},
		},
		{
			name: "edge SIGTERM, of two", times: 2, target: "0 stalls", shape: twoEdges,
			fault: func(c *trial, n int) {
				e := c.edges[n%2]
				c.at()
				took := c.drain(e, drainLimit)
				c.note("%.1f s", took.Seconds())
				c.restart(e)
			},
		},
		{
			name: "ingest SIGTERM, publisher goes to another one", times: 1, breaks: 1, stalls: 2,
			shape:  shape{ingests: 2, args: map[string][]string{"ingest": {"--drain", "3s"}}},
			target: "same broadcast, 1 discontinuity, picture ≤ 2 s after the keyframe",
			fault: func(c *trial, _ int) {
				c.at()
				old := c.ingests[0]
				_ = old.cmd.Process.Signal(syscall.SIGTERM)
				_ = c.pub.wait(20 * time.Second) // closed by the ingest
				c.returns(func() { c.pub = c.publishDemo(c.ingests[1]) })
				if err := old.wait(drainLimit); err != nil {
					c.problem("the ingest after SIGTERM: %v", err)
				}
				c.restart(old)
			},
		},
		{
			name: "rolling restart of all services", times: 1, breaks: 1, stalls: 2,
			shape:  shape{ingests: 2, edges: 3, args: map[string][]string{"ingest": {"--drain", "2s"}}},
			target: "0 stalls but for what the ingest's reconnect costs",
			fault: func(c *trial, _ int) {
				c.at()
				for _, list := range [][]*server{{c.api}, c.workers, c.edges[:2]} {
					for _, s := range list {
						c.drain(s, drainLimit)
						c.restart(s)
						time.Sleep(3 * time.Second)
					}
				}
				stood := len(stalls(c.witness.looks()))
				c.note("%d stalls before the ingest's turn", stood)
				if stood > 0 {
					c.late("%d stalls before the ingest's turn", stood)
				}
				_ = c.ingests[0].cmd.Process.Signal(syscall.SIGTERM)
				_ = c.pub.wait(20 * time.Second)
				c.returns(func() { c.pub = c.publishDemo(c.ingests[1]) })
				if err := c.ingests[0].wait(drainLimit); err != nil {
					c.problem("the ingest after SIGTERM: %v", err)
				}
				c.restart(c.ingests[0])
			},
		},
		{
			name: "handover between two builds of FFmpeg, SIGTERM", times: 2, target: "0 stalls, 0 discontinuities",
			shape: shape{workerArgs: [][]string{nil, {"--ffmpeg", otherBuild}}},
			fault: func(c *trial, _ int) {
				w := c.busy(0)
				c.at()
				c.drain(w, drainLimit)
				c.restart(w)
			},
		},
		{
			name: "handover between two builds of FFmpeg, kill -9", times: 2, target: "0 stalls, 0 discontinuities",
			shape: shape{workerArgs: [][]string{nil, {"--ffmpeg", otherBuild}}}, fault: killWorker(false),
		},
	}
}

// otherBuild stands for a program that foreignFFmpeg writes.
const otherBuild = "another-ffmpeg"

// foreignFFmpeg writes a program that is ffmpeg and says that it is another build.
func foreignFFmpeg(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ffmpeg")
	script := "#!/bin/sh\nfor a in \"$@\"; do if [ \"$a\" = -version ]; then \"" + testenv.FFmpeg(t) + "\" \"$@\" | sed 's/^ffmpeg version /&chaos-/'; exit 0; fi; done\nexec \"" + testenv.FFmpeg(t) + "\" \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// beginsSoon publishes on a channel of its own and measures how soon it plays.
func (c *trial) beginsSoon(name, key string) {
	c.t.Helper()
	start := time.Now()
	p := c.publishAs(c.ingests[0], key, common)
	tried := start
	err := until(c.t.Context(), 20*time.Second, func() error {
		// An encoder that is refused tries again.
		if !p.running() && time.Since(tried) > time.Second {
			p, tried = c.publishAs(c.ingests[0], key, common), time.Now()
		}
		a, err := fetch(c.t.Context(), client, c.edges[len(c.edges)-1].playlist(name))
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
	took := time.Since(start)
	p.kill()
	if err != nil {
		c.problem("a new broadcast doesn't begin: %v", err)
		return
	}
	c.note("a new broadcast plays after %.1f s", took.Seconds())
	// Two keyframes, 2 s apart, settle the target duration: a start takes that anyhow.
	if took > 3*time.Second+2500*time.Millisecond {
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
				c.beginsSoon(name, key)
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
				c.beginsSoon(name, key)
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
				c.beginsSoon("new", key)
			},
		},
		{
			name: "Redis hangs for 30 s", times: 1, shape: shape{proxies: true}, target: "0 stalls",
			fault: func(c *trial, _ int) {
				c.at()
				c.redisProxy.Hang()
				time.Sleep(c.length(30 * time.Second))
				c.redisProxy.Restore()
			},
		},
		{
			name: "Redis takes 50 ms a command for 30 s", times: 1, shape: shape{proxies: true}, target: "0 stalls",
			fault: func(c *trial, _ int) {
				c.at()
				c.redisProxy.Slow(50 * time.Millisecond)
				time.Sleep(c.length(30 * time.Second))
				c.redisProxy.Restore()
			},
		},
		{
			name: "Redis away, and a worker kill -9 in it", times: 1, shape: shape{proxies: true}, stalls: 1,
			target: "another worker as soon as Redis is back; nothing lost",
			fault: func(c *trial, _ int) {
				w := c.busy(0)
				c.at()
				c.redisProxy.Cut()
				time.Sleep(time.Second)
				w.kill()
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
				c.beginsSoon("new", key)
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
				time.Sleep(time.Until(c.faults[0].Add(15 * time.Second)))
				c.sentinels.Signal(old, syscall.SIGCONT)
				c.beginsSoon("new", key)
			},
		},
	}
}

func edgeRows() []row {
	return []row{
		{
			name: "edge kill -9, of two", times: 3, shape: shape{edges: 3}, stalls: 1, longest: 5 * time.Second, settle: 12 * time.Second,
			target: "at most one short stall each",
			fault: func(c *trial, n int) {
				e := c.edges[n%2]
				c.at()
				e.kill()
				time.Sleep(4 * time.Second)
				c.restart(e)
			},
		},
		{
			name: "all but edge and api gone for 5 s", times: 1, shape: shape{proxies: true}, breaks: 1, stalls: 2, losesOpen: true,
			target: "the edge serves what it holds, and comes back by itself",
			fault: func(c *trial, _ int) {
				edge := c.edges[0]
				c.at()
				c.redisProxy.Cut()
				c.s3Proxy.Cut()
				for _, s := range append(c.ingests[:1:1], c.workers...) {
					s.kill()
				}
				c.pub.kill()
				time.Sleep(2 * time.Second)
				if a, err := fetch(c.t.Context(), client, edge.playlist("demo")); err != nil || a.status != 200 {
					c.problem("the edge doesn't serve the playlist: %d %v", a.status, err)
				}
				time.Sleep(3 * time.Second)
				c.s3Proxy.Restore()
				c.redisProxy.Restore()
				for _, s := range append(c.ingests[:1:1], c.workers...) {
					c.restart(s)
				}
				c.returns(func() { c.pub = c.publishDemo(c.ingests[0]) })
			},
		},
	}
}

// overloadRow publishes far more than a worker with one core can encode.
func overloadRow() row {
	const more = 11
	return row{
		name: "overload: 12 broadcasts on one core's worth of encoders", times: 1,
		shape:  shape{workers: 1, workerProcs: 1, level: 1},
		target: "0 stalls; every source goes on; rungs come back",
		fault: func(c *trial, _ int) {
			var keys []string
			for n := range more {
				keys = append(keys, c.newChannel(fmt.Sprintf("load%d", n)))
			}
			c.at()
			var pubs []*publisher
			for _, key := range keys {
				pubs = append(pubs, c.publishAs(c.ingests[0], key, common))
				// Encoders have machines of their own: their start isn't to be the load.
				time.Sleep(500 * time.Millisecond)
			}
			time.Sleep(c.length(45 * time.Second))
			shed := c.workers[0].metric("millrace_transcode_rungs_shed", "")
			problems := c.ingests[0].metric("millrace_ingest_health_problems", "")
			for n := range keys {
				c.sourceGoesOn(fmt.Sprintf("load%d", n))
			}
			if shed == 0 {
				c.problem("no rung was shed: this is no overload")
			}
			for _, p := range pubs {
				p.kill()
			}
			err := until(c.t.Context(), 150*time.Second, func() error {
				if n := c.workers[0].metric("millrace_transcode_rungs_shed", ""); n > 0 {
					return fmt.Errorf("%g rungs are still shed", n)
				}
				return nil
			})
			if err != nil {
				c.problem("after the load: %v", err)
			}
			c.note("%g rungs shed under load, %g health problems told; all back %.0f s after the fault", shed, problems, time.Since(c.faults[0]).Seconds())
		},
	}
}

// sourceGoesOn checks that a channel's source rendition is live.
func (c *trial) sourceGoesOn(channel string) {
	c.t.Helper()
	address := c.edges[0].playlist(channel)
	a, err := fetch(c.t.Context(), client, address)
	if err != nil || a.status != 200 {
		c.problem("%s: %d %v", channel, a.status, err)
		return
	}
	m, err := parseMultivariant(string(a.body))
	if err != nil {
		c.problem("%s: %v", channel, err)
		return
	}
	for _, uri := range m.renditions() {
		if !isSource(uri) {
			continue
		}
		text, err := fetch(c.t.Context(), client, address[:len(address)-len("index.m3u8")]+uri)
		if err != nil {
			c.problem("%s: %v", channel, err)
			return
		}
		media, err := parseMedia(string(text.body))
		if err != nil || len(media.Segments) == 0 {
			c.problem("%s: no source: %v", channel, err)
			return
		}
		last := media.Segments[len(media.Segments)-1]
		end := last.Time
		for _, p := range last.Parts {
			end = end.Add(time.Duration(p.Duration * float64(time.Second)))
		}
		if late := time.Since(end); late > 3*time.Second {
			c.problem("%s: the source's newest part ended %.1f s ago", channel, late.Seconds())
		}
		return
	}
	c.problem("%s has no source rendition", channel)
}

func isSource(uri string) bool { return filepath.Base(filepath.Dir(uri)) == "source" }
