package encode

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	// watchInterval is how often encoders are looked at.
	watchInterval = 250 * time.Millisecond
	// hangSilence is how long an encoder may be silent and use no CPU time
	// while there is something to do.
	hangSilence = time.Second
	// encoderSilence is how long it may be silent in any case.
	encoderSilence = 10 * time.Second
	// backgroundSilence is that of one with low priority: where others need all
	// of the machine it gets no CPU time for long, and nobody waits for it.
	backgroundSilence = 2 * time.Minute
	// hangUnits is how many access units an encoder is fed without an answer
	// before it counts as silent: decoders keep a few back.
	hangUnits = 10
)

// watchdog tells whether an encoder answers what it is fed.
type watchdog struct {
	background bool // it runs with low priority
	units      int  // fed since it last answered
	all        bool
	since      time.Time // of the first of them, or of the newest answer
	cpu        uint64    // at the last look
	moved      time.Time // when that last changed
}

func (d *watchdog) fed(now time.Time) {
	if d.units == 0 {
		d.since, d.moved = now, now
	}
	d.units++
}

// answered notes that the process made a frame.
func (d *watchdog) answered(now time.Time) {
	d.units = 0
	d.since = now
}

// finish says that all is fed: the process then ends.
func (e *encoder) finish() {
	e.process.finish()
	e.watchdog.all = true
	if e.watchdog.units == 0 {
		e.watchdog.since, e.watchdog.moved = time.Now(), time.Now()
	}
}

// errHung is why an encoder was ended that was stopped or waits for ever. A
// slow one isn't hung: it uses CPU time.
var errHung = errors.New("it makes nothing of what it is fed")

// hung looks at the process, which was fed. Its limits are multiplied by tolerance.
func (d *watchdog) hung(now time.Time, pid int, tolerance float64) error {
	cpu, known := cpuTime(pid)
	if cpu != d.cpu {
		d.cpu, d.moved = cpu, now
	}
	if !d.all && d.units < hangUnits {
		return nil
	}
	limit, idle := encoderSilence, times(hangSilence, tolerance)
	if d.background {
		limit = backgroundSilence
	}
	limit = times(limit, tolerance)
	quiet := now.Sub(d.since)
	switch {
	case quiet >= limit:
		return fmt.Errorf("%w: nothing for %s", errHung, limit)
	case known && !d.background && quiet >= idle && now.Sub(d.moved) >= idle:
		return fmt.Errorf("%w, and used no CPU time for %s", errHung, idle)
	}
	return nil
}

// times multiplies a limit.
func times[T ~int64](limit T, tolerance float64) T { return T(float64(limit) * tolerance) }

// watch ends the process if it hangs.
func (p *process) watch(now time.Time, d *watchdog, c *Config) {
	if p.ctx.Err() != nil {
		return
	}
	if err := d.hung(now, p.cmd.Process.Pid, c.Tolerance); err != nil {
		c.Metrics.hangs.Inc()
		p.stop(err)
	}
}

// cpuTime returns what a process has used, in clock ticks, where /proc tells it.
func cpuTime(pid int) (ticks uint64, ok bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// The second field is the name in parentheses; the times are fields 14 and 15.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, false
	}
	user, err1 := strconv.ParseUint(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseUint(string(fields[12]), 10, 64)
	return user + system, err1 == nil && err2 == nil
}
