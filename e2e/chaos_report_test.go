//go:build chaos

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/internal/index"
)

// result is a row of the table.
type result struct {
	name, target       string
	times              int
	stalls             int
	longest            time.Duration
	skipped            float64
	regressions        int
	discontinuities    int
	wantDiscontinuites int
	gaps               int
	missing, differing int
	drift              float64
	recoveries         []recovery
	before, after      map[string]float64
	notes, problems    []string
	// hard are the problems that aren't about time.
	hard []string
}

// judge ends the broadcast's readers and sums up.
func (c *trial) judge(began time.Time, ends []time.Time, before, after map[string]float64) *result {
	r := c.row
	x := &result{name: r.name, target: r.target, times: len(c.faults), before: before, after: after, wantDiscontinuites: r.breaks * len(c.faults)}
	looks := between(c.witness.looks(), began, time.Now())
	for _, s := range stalls(looks) {
		x.stalls++
		c.t.Logf("a stall of %s at %s", s.length.Round(time.Millisecond), s.from.Format("15:04:05.000"))
		x.longest = max(x.longest, s.length)
	}
	x.skipped = jumps(looks)
	for i := 1; i < len(looks); i++ {
		if looks[i].instance != looks[i-1].instance {
			c.t.Logf("the page made its player anew at %s", looks[i].at.Format("15:04:05.000"))
		}
	}
	errors, fatal := c.witness.errors()
	if errors != "" {
		c.t.Logf("hls.js: %s; fatal %d", errors, fatal)
	}
	if fatal > 0 {
		c.note("%d fatal errors of hls.js", fatal)
	}
	for n, f := range c.faults {
		if n < len(ends) {
			x.recoveries = append(x.recoveries, c.observer.recovered(f, ends[n]))
		}
	}
	if c.pub.running() {
		c.pub.end() // the last segment is closed
	}
	time.Sleep(time.Second)
	c.observer.stop()
	o := c.observer
	x.regressions, x.discontinuities, x.gaps, x.drift = o.regressions, o.discontinuities(), len(o.gaps), o.drift()
	for i, v := range o.violations {
		if i < 3 {
			c.problem("playlist or media: %.300s", v)
		}
	}
	if x.discontinuities != x.wantDiscontinuites {
		c.problem("%d discontinuities, want %d", x.discontinuities, x.wantDiscontinuites)
	}
	if x.gaps > 0 && !r.gaps {
		c.problem("%d segments are gaps", x.gaps)
	}
	if list := o.holes(); len(list) > 0 {
		c.problem("segments never seen: %.200s", strings.Join(list, " "))
	}
	for i, s := range o.seams() {
		if i < 3 {
			c.problem("%s", s)
		}
	}
	if now := c.broadcast(); now != c.broadcastID {
		c.problem("the broadcast was %s and is %s", c.broadcastID, now)
	}
	missing, differing := o.stored(c.bucket, c.broadcastID, 45*time.Second)
	if r.gaps {
		listed := c.indexGaps()
		missing = slices.DeleteFunc(missing, func(name string) bool { return listed[name] })
		c.note("%d segments are gaps in the index", len(listed))
	}
	x.missing, x.differing = len(missing), len(differing)
	if r.losesOpen && len(missing) > 0 && len(missing) <= len(c.faults)*len(o.r.renditions) {
		c.note("the segment that was open is kept by the edge alone")
	} else if len(missing) > 0 {
		slices.Sort(missing)
		c.problem("missing in S3: %.200s", strings.Join(missing, " "))
	}
	if len(differing) > 0 {
		slices.Sort(differing)
		c.problem("other bytes in S3: %.200s", strings.Join(differing, " "))
	}
	if n := sum(c.workers, "millrace_transcode_conflicts_total", ""); n > 0 {
		x.differing += int(n)
		c.problem("%g parts or segments were made twice with different bytes", n)
	}
	if x.drift >= 40 {
		c.problem("sound and picture drift by %.0f ms", x.drift)
	}
	if r.after != nil {
		r.after(c)
	}
	if limit := r.stalls * len(c.faults); x.stalls > limit {
		c.late("%d stalls, at most %d", x.stalls, limit)
	}
	if r.longest > 0 && x.longest > r.longest {
		c.late("a stall of %s, at most %s", x.longest, r.longest)
	}
	x.notes, x.hard, x.problems = c.notes, c.problems, append(c.problems, c.slow...)
	if len(x.problems) > 0 {
		c.keepLogs()
	}
	return x
}

var columns = []string{"fault", "times", "stalls", "longest", "skipped", "regressions", "discontinuities, of the expected", "gaps", "missing in S3", "bytes differ", "A/V drift", "first new part: source / rung", "latest part: source / rung", "memory before → after, MB", "target", "met", "measured"}

// cells are the row's columns.
func (x *result) cells() []string {
	first := func(pick func(recovery) time.Duration) string {
		var list []time.Duration
		for _, r := range x.recoveries {
			list = append(list, pick(r))
		}
		if len(list) == 0 {
			return "–"
		}
		slices.Sort(list)
		if list[0] < 0 {
			return "never"
		}
		if len(list) == 1 {
			return millis(list[0])
		}
		return fmt.Sprintf("%s (%s)", millis(list[len(list)/2]), millis(list[len(list)-1]))
	}
	met := "yes"
	if len(x.problems) > 0 {
		met = "**no**: " + strings.Join(x.problems, "; ")
	}
	if len(x.notes) > 0 {
		met += "; " + strings.Join(x.notes, "; ")
	}
	return []string{
		x.name, fmt.Sprint(x.times), fmt.Sprint(x.stalls), fmt.Sprintf("%.1f s", x.longest.Seconds()), fmt.Sprintf("%.1f s", x.skipped),
		fmt.Sprint(x.regressions), fmt.Sprintf("%d of %d", x.discontinuities, x.wantDiscontinuites), fmt.Sprint(x.gaps), fmt.Sprint(x.missing), fmt.Sprint(x.differing),
		fmt.Sprintf("%.0f ms", x.drift),
		first(func(r recovery) time.Duration { return r.source }) + " / " + first(func(r recovery) time.Duration { return r.rung }),
		first(func(r recovery) time.Duration { return r.lateSource }) + " / " + first(func(r recovery) time.Duration { return r.lateRung }),
		memoryText(x.before, x.after), x.target, met, time.Now().UTC().Format("2006-01-02 15:04"),
	}
}

func millis(d time.Duration) string { return fmt.Sprintf("%d", d.Milliseconds()) }

func memoryText(before, after map[string]float64) string {
	var list []string
	for _, role := range []string{"ingest", "transcode", "edge", "api"} {
		list = append(list, fmt.Sprintf("%s %.0f→%.0f", role, before[role], after[role]))
	}
	return strings.Join(list, ", ")
}

// The table stands between these lines.
const (
	tableBegins = "<!-- the table: written by make chaos -->"
	tableEnds   = "<!-- the table's end -->"
)

// write puts the row into the table of a Markdown file, in the place of an
// earlier one of that name; the table's order is that of rows.
func (x *result) write(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), tableBegins)
	table, tail, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", file, tableBegins, tableEnds)
	}
	lines := make(map[string]string)
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) == len(columns) {
			lines[strings.TrimPrefix(cells[0], "| ")] = strings.TrimSpace(line)
		}
	}
	cells := x.cells()
	for i := range cells {
		cells[i] = strings.NewReplacer("|", "/", "\n", " ").Replace(cells[i])
	}
	lines[x.name] = "| " + strings.Join(cells, " | ") + " |"
	var b strings.Builder
	b.WriteString(head + tableBegins + "\n| " + strings.Join(columns, " | ") + " |\n|" + strings.Repeat(" --- |", len(columns)) + "\n")
	for _, r := range rows() {
		if line := lines[r.name]; line != "" {
			b.WriteString(line + "\n")
		}
	}
	b.WriteString(tableEnds + tail)
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

// machineLock keeps other heavy work off the machine, if that keeps to the lock
// file that CHAOS_LOCK names.
type machineLock struct {
	file  *os.File
	since time.Time
}

// take waits for the lock. It keeps one that it has had for a short time only.
func (l *machineLock) take(t testing.TB) {
	t.Helper()
	path := os.Getenv("CHAOS_LOCK")
	if path == "" || l.file != nil && time.Since(l.since) < 150*time.Second {
		return
	}
	l.give()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	l.file, l.since = f, time.Now()
}

// give gives the lock back.
func (l *machineLock) give() {
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}

// keepLogs saves what the services said, for whoever looks for a fault.
func (c *trial) keepLogs() {
	dir := filepath.Join("output", strings.ReplaceAll(c.row.name, " ", "_"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return
	}
	_ = os.WriteFile(filepath.Join(dir, "requests.txt"), []byte(c.witness.requests()), 0o644)
	for n, s := range append(c.all(), &server{program: c.pub.program, role: "publisher"}) {
		_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%s.log", n, s.role)), []byte(s.log.String()), 0o644)
	}
}

// indexGaps returns the segments that the broadcast's index lists as gaps, as
// rendition/sequence: for whoever plays it after the live window.
func (c *trial) indexGaps() map[string]bool {
	list, err := c.redis.XRange(context.Background(), index.StreamKey(c.broadcastID), "-", "+").Result()
	if err != nil {
		c.problem("the index can't be read: %v", err)
	}
	gaps := map[string]bool{}
	for _, message := range list {
		for _, value := range message.Values {
			text, ok := value.(string)
			if !ok {
				continue
			}
			if e, err := index.Parse([]byte(text)); err == nil && e.Type == index.TypeGap {
				gaps[fmt.Sprintf("%s/%d", e.Rendition, e.Sequence)] = true
			}
		}
	}
	return gaps
}
