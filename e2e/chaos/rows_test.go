//go:build chaos

package chaos

import (
	"slices"
	"syscall"
	"time"

	"millrace/e2e/harness"
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
	return append(list, overloadRow(), fullRow())
}

// killWorker is kill -9 of the worker in the first slot, and of its encoders if
// asked; it is started again two seconds later.
func killWorker(encoders bool) func(c *trial, _ int) {
	return func(c *trial, _ int) {
		w := c.busy(0)
		pids := []int{w.Cmd.Process.Pid}
		if encoders {
			pids = append(harness.Children(pids[0], "ffmpeg"), pids...)
		}
		c.tally(w)
		c.at()
		signalAll(syscall.SIGKILL, pids...)
		w.Kill()
		time.Sleep(2 * time.Second)
		c.restart(w)
	}
}

// hangWorker is SIGSTOP of the worker in the first slot, and SIGCONT ten seconds later.
func hangWorker(c *trial, _ int) {
	w := c.busy(0)
	c.at()
	signalAll(syscall.SIGSTOP, w.Cmd.Process.Pid)
	time.Sleep(10 * time.Second)
	signalAll(syscall.SIGCONT, w.Cmd.Process.Pid)
}

// cutWorker cuts the network of the worker in the first slot for ten seconds.
func cutWorker(c *trial, _ int) {
	w := c.busy(0)
	pid := w.Cmd.Process.Pid
	own := c.edgeWires[c.number(w)]
	c.at()
	for _, wire := range slices.Concat(c.ingestWires, c.outWires) {
		wire.sever(pid)
	}
	own.sever(0)
	time.Sleep(10 * time.Second)
	c.mend("ingest", true, c.ingestWires...)
	c.mend("Redis and S3", true, c.outWires...)
	c.mend("the worker", true, own)
}

// rareKeyframes has a keyframe each 8 s, as OBS makes them when nobody says otherwise.
var rareKeyframes = harness.Clip{Name: "chaos-gop8", Seconds: "240", Size: "640x360", Rate: "30", Video: []string{"-g", "240", "-bf", "2"}, Audio: harness.Stereo}

func workerRows() []row {
	standby := map[string][]string{"ingest": {"--redundancy", "2"}}
	list := []row{
		{
			name: "worker kill -9", times: 10, short: true, fault: killWorker(false), late: 300 * time.Millisecond,
			target: "0 stalls; parts late by ≤ 300 ms",
		},
		{
			name: "FFmpeg kill -9", times: 10, short: true, lateSource: 150 * time.Millisecond,
			target: "0 stalls; the source untouched",
			fault: func(c *trial, _ int) {
				pids := harness.Children(c.busy(0).Cmd.Process.Pid, "ffmpeg")
				if len(pids) == 0 {
					c.t.Fatal("the worker has no ffmpeg")
				}
				c.at()
				signalAll(syscall.SIGKILL, pids...)
			},
		},
		{
			name: "worker and FFmpeg kill -9", times: 10, fault: killWorker(true), late: 300 * time.Millisecond,
			target: "0 stalls; parts late by ≤ 300 ms",
		},
		{
			name: "worker SIGSTOP for 10 s", times: 10, fault: hangWorker, stalls: 1, longest: 3 * time.Second,
			target: "at most one short stall each; waking up it harms nothing",
		},
		{
			name: "worker's network cut for 10 s", times: 10, fault: cutWorker, stalls: 1, longest: 3 * time.Second, shape: shape{wires: true},
			target: "at most one short stall each",
		},
		{
			name: "the only worker kill -9, started again at once", times: 10, stalls: 1, longest: 8 * time.Second, shape: shape{workers: 1},
			target: "nothing lost; the stall is stated",
			fault: func(c *trial, _ int) {
				w := c.busy(0)
				c.tally(w)
				c.at()
				w.Kill()
				c.restart(w)
			},
		},
		{
			name: "redundancy 2, worker kill -9", times: 10, fault: killWorker(false), shape: shape{workers: 3, args: standby},
			target: "0 stalls",
		},
		{
			name: "redundancy 2, worker SIGSTOP for 10 s", times: 10, fault: hangWorker, shape: shape{workers: 3, args: standby},
			target: "0 stalls",
		},
		{
			name: "redundancy 2, worker's network cut for 10 s", times: 5, fault: cutWorker, shape: shape{workers: 3, args: standby, wires: true},
			target: "0 stalls",
		},
		{
			name: "8 s between keyframes, worker kill -9", times: 5, fault: killWorker(false), shape: shape{clip: rareKeyframes},
			stalls: 1, longest: 10 * time.Second, warm: 20 * time.Second, settle: 12 * time.Second,
			target: "nothing lost; the stall is stated",
		},
		{
			name: "HEVC, worker kill -9", times: 5, fault: killWorker(false), late: 300 * time.Millisecond, shape: shape{clip: hevcClip},
			target: "0 stalls; parts late by ≤ 300 ms",
		},
		{
			name: "AV1, worker kill -9", times: 5, fault: killWorker(false), late: 300 * time.Millisecond, shape: shape{clip: av1Clip},
			target: "0 stalls; parts late by ≤ 300 ms",
		},
	}
	for i := range list {
		list[i].remade = true
	}
	return list
}
