//go:build chaos

package chaos

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"millrace/e2e/viewer"
)

// judge ends the broadcast's readers and sums up.
func (c *trial) judge(began time.Time, before, after map[string]float64) *result {
	x := &result{
		name: c.row.name, target: c.row.target, times: len(c.faults), before: before, after: after,
		wantDiscontinuities: c.row.breaks * len(c.faults),
	}
	c.judgeWitness(x, began)
	c.judgeParts(x)
	c.checkSlots()
	if c.pub.Running() {
		c.pub.End() // the last segment is closed
	}
	time.Sleep(time.Second)
	c.observer.Stop()
	c.judgeReader(x)
	c.judgeStore(x)
	if c.row.after != nil {
		c.row.after(c)
	}
	x.notes, x.hard, x.problems = c.notes, c.problems, slices.Concat(c.problems, c.slow)
	if len(x.problems) > 0 {
		c.keepLogs()
	}
	return x
}

// hardStall is how much longer than it may be a stall is where even a slow machine is no excuse.
const hardStall = 2 * time.Second

// judgeWitness looks at what the viewer in the browser went through.
func (c *trial) judgeWitness(x *result, began time.Time) {
	r := c.row
	looks := viewer.Within(c.witness.Looks(), began, time.Now())
	list := viewer.Stalls(looks)
	x.stalls, x.skipped = len(list), viewer.Jumps(looks, c.observer.Between)
	for _, s := range list {
		c.t.Logf("a stall of %s at %s", s.Length.Round(time.Millisecond), s.From.Format("15:04:05.000"))
		x.longest = max(x.longest, s.Length)
	}
	for i := 1; i < len(looks); i++ {
		if looks[i].Instance != looks[i-1].Instance {
			c.t.Logf("the page made its player anew at %s", looks[i].At.Format("15:04:05.000"))
		}
	}
	for n, from := range c.faults {
		to := c.ends(n)
		if got, want := len(viewer.Within(looks, from, to)), int(to.Sub(from)/viewer.SamplePeriod); got < want/2 || got == 0 {
			c.problem("the page was looked at %d times after fault %d, not %d", got, n+1, want)
		}
		some := 0
		for _, s := range list {
			if !s.From.Before(from) && s.From.Before(to) {
				some++
			}
		}
		if some > r.stalls {
			c.late("%d stalls after fault %d, at most %d", some, n+1, r.stalls)
		}
	}
	switch over := x.longest - r.longest; {
	case r.stalls > 0 && r.longest == 0:
	case over > hardStall:
		c.problem("a stall of %s, at most %s", x.longest, r.longest)
	case r.stalls > 0 && over > 0:
		c.late("a stall of %s, at most %s", x.longest, r.longest)
	}
	if limit := cmp.Or(r.skipped, time.Second); x.skipped > limit.Seconds() {
		c.late("%.1f s were skipped", x.skipped)
	}
	count, fatal := c.witness.Errors(began)
	if x.hlsStalls = count["bufferStalledError"]; r.stalls == 0 && x.hlsStalls > 0 { // it may tell of one stall several times
		c.late("hls.js counts %d stalls", x.hlsStalls)
	}
	if len(count) > 0 {
		c.t.Logf("hls.js: %v", count)
	}
	if fatal > 0 {
		c.note("%d fatal errors of hls.js", fatal)
	}
}

// judgeParts looks at when parts came.
func (c *trial) judgeParts(x *result) {
	var late, lateSource time.Duration
	for n, f := range c.faults {
		r := c.observer.Recovered(f, c.ends(n))
		x.recoveries = append(x.recoveries, r)
		if r.Source < 0 || r.Rung < 0 {
			c.problem("not all renditions came back after fault %d", n+1)
		}
		late, lateSource = max(late, r.LateSource, r.LateRung), max(lateSource, r.LateSource)
	}
	if c.row.late > 0 && late > c.row.late {
		c.late("a part came %s ms late, at most %s", millis(late), millis(c.row.late))
	}
	if c.row.lateSource > 0 && lateSource > c.row.lateSource {
		c.late("a part of the source came %s ms late, at most %s", millis(lateSource), millis(c.row.lateSource))
	}
}

// judgeReader looks at what the reader has, which has ended.
func (c *trial) judgeReader(x *result) {
	o := c.observer
	x.regressions, x.discontinuities, x.gaps, x.drift = o.Regressions, o.Discontinuities(), len(o.Gaps), o.Drift()
	for i, v := range o.Violations {
		if i < 3 {
			c.problem("playlist or media: %.300s", v)
		}
	}
	for _, r := range o.Reader.Renditions {
		if n := int(o.Breaks[r.Name]); n != x.wantDiscontinuities {
			c.problem("%d discontinuities of %s, want %d", n, r.Name, x.wantDiscontinuities)
		}
	}
	if x.gaps > 0 && !c.row.gaps {
		c.problem("%d segments are gaps", x.gaps)
	}
	if list := o.Holes(); len(list) > 0 {
		c.problem("segments never seen: %.200s", strings.Join(list, " "))
	}
	for i, s := range o.Seams() {
		if i < 3 {
			c.problem("%s", s)
		}
	}
	if math.IsNaN(x.drift) {
		c.problem("there is nothing to measure drift by")
	} else if x.drift >= 40 {
		c.problem("sound and picture drift by %.0f ms", x.drift)
	}
	if len(o.Troubles) > 0 {
		c.note("requests of the reader that failed: %s", strings.TrimSuffix(strings.TrimPrefix(fmt.Sprint(o.Troubles), "map["), "]"))
	}
}

// judgeStore looks at what is left of the broadcast in S3 and Redis.
func (c *trial) judgeStore(x *result) {
	if now := c.broadcast(); now != c.broadcastID {
		c.problem("the broadcast was %s and is %s", c.broadcastID, now)
	}
	missing, differing := c.stored(45 * time.Second)
	if c.row.gaps {
		c.note("%d segments are gaps in the index", len(c.gaps()))
	}
	x.missing, x.differing = len(missing), len(differing)
	slices.Sort(missing)
	open := make(map[string]bool) // the numbers of what is missing
	for _, name := range missing {
		open[path.Base(name)] = true
	}
	var lost []string
	if c.row.losesOpen && len(missing) > 0 && len(open) <= len(c.faults) {
		lost = missing
		c.note("the segment that was open is kept by the edge alone")
	} else if len(missing) > 0 {
		c.problem("missing in S3: %.200s", strings.Join(missing, " "))
	}
	c.checkIndex(lost)
	if len(differing) > 0 {
		slices.Sort(differing)
		c.problem("other bytes in S3: %.200s", strings.Join(differing, " "))
	}
	if n := c.conflicts + sum(c.workers, "millrace_transcode_conflicts_total", ""); n > 0 {
		x.differing += int(n)
		c.problem("%g parts or segments were made twice with different bytes", n)
	}
	if c.recording != nil {
		same, others := c.undisturbed(c.recording)
		c.note("%d objects with the SHA-256 of an undisturbed worker's", same)
		if len(others) > 0 {
			x.differing += len(others)
			slices.Sort(others)
			c.problem("an undisturbed worker makes %d of %d objects otherwise: %.200s", len(others), same+len(others), strings.Join(others, " "))
		}
	}
}
