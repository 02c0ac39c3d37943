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
	list = append(list, drainRows()...)
	list = append(list, publisherRows()...)
	list = append(list, ingestRows()...)
	list = append(list, storageRows()...)
	list = append(list, redisRows()...)
	list = append(list, edgeRows()...)
	return append(list, overloadRow())
}

// killWorker is kill -9 of the worker in the first slot, and of its encoders if
// asked; it is started again two seconds later.
func killWorker(encoders bool) func(c *trial, _ int) {
	return func(c *trial, _ int) {
		w := c.busy(0)
		pids := []int{w.cmd.Process.Pid}
		if encoders {
			pids = append(children(pids[0], "ffmpeg"), pids...)
		}
		c.at()
		signalAll(syscall.SIGKILL, pids...)
		w.kill()
		time.Sleep(2 * time.Second)
		c.restart(w)
	}
}

// hangWorker is SIGSTOP of the worker in the first slot, and SIGCONT ten seconds later.
func hangWorker(c *trial, _ int) {
	w := c.busy(0)
	c.at()
	signalAll(syscall.SIGSTOP, w.cmd.Process.Pid)
	time.Sleep(10 * time.Second)
	signalAll(syscall.SIGCONT, w.cmd.Process.Pid)
}

// rareKeyframes has a keyframe each 8 s, as OBS makes them when nobody says otherwise.
var rareKeyframes = clip{name: "chaos-gop8", seconds: "240", size: "640x360", rate: "30", video: []string{"-g", "240", "-bf", "2"}, audio: stereo}

func workerRows() []row {
	standby := map[string][]string{"ingest": {"--redundancy", "2"}}
	return []row{
		{
			name: "worker kill -9", times: 10, short: true, fault: killWorker(false),
			target: "0 stalls; parts late by ≤ 300 ms",
		},
		{
			name: "FFmpeg kill -9", times: 10, short: true,
			target: "0 stalls; the source untouched",
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
			name: "worker and FFmpeg kill -9", times: 10, fault: killWorker(true),
			target: "0 stalls; parts late by ≤ 300 ms",
		},
		{
			name: "worker SIGSTOP for 10 s", times: 3, fault: hangWorker, stalls: 1, longest: 3 * time.Second,
			target: "at most one short stall each; waking up it harms nothing",
		},
		{
			name: "worker's network cut for 10 s", times: 3, stalls: 1, longest: 3 * time.Second, shape: shape{wires: true},
			target: "at most one short stall each",
			fault: func(c *trial, _ int) {
				w := c.busy(0)
				pid := w.cmd.Process.Pid
				c.at()
				for _, wire := range append(c.ingestWires, c.outWires...) {
					wire.sever(pid)
				}
				c.edgeWires[c.number(w)].sever(0)
				time.Sleep(10 * time.Second)
				for _, list := range [][]*wire{c.ingestWires, c.outWires, c.edgeWires} {
					for _, wire := range list {
						wire.mend()
					}
				}
			},
		},
		{
			name: "the only worker kill -9, started again at once", times: 3, stalls: 1, longest: 8 * time.Second, shape: shape{workers: 1},
			target: "nothing lost; the stall is stated",
			fault: func(c *trial, _ int) {
				w := c.busy(0)
				c.at()
				w.kill()
				c.restart(w)
			},
		},
		{
			name: "redundancy 2, worker kill -9", times: 5, fault: killWorker(false), shape: shape{workers: 3, args: standby},
			target: "0 stalls",
		},
		{
			name: "redundancy 2, worker SIGSTOP for 10 s", times: 3, fault: hangWorker, shape: shape{workers: 3, args: standby},
			target: "0 stalls",
		},
		{
			name: "8 s between keyframes, worker kill -9", times: 5, fault: killWorker(false), shape: shape{clip: rareKeyframes},
			stalls: 1, longest: 10 * time.Second, warm: 20 * time.Second, settle: 12 * time.Second,
			target: "nothing lost; the stall is stated",
		},
	}
}

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
				if n == 0 {
					c.problem("nothing was counted as dropped from the spool")
				}
				c.note("%g segments dropped and counted", n)
			},
		},
	}
}
