//go:build chaos

package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/e2e/harness"
)

// result is a row of the table.
type result struct {
	name, target        string
	times               int
	stalls, hlsStalls   int // hls.js counts by itself
	longest             time.Duration
	skipped             float64
	regressions         int
	discontinuities     int
	wantDiscontinuities int
	gaps                int
	missing, differing  int
	drift               float64
	recoveries          []recovery
	before, after       map[string]float64
	notes, problems     []string
	// hard are the problems that aren't about time.
	hard []string
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
		x.name, fmt.Sprint(x.times), fmt.Sprintf("%d (hls.js %d)", x.stalls, x.hlsStalls), fmt.Sprintf("%.1f s", x.longest.Seconds()), fmt.Sprintf("%.1f s", x.skipped),
		fmt.Sprint(x.regressions), fmt.Sprintf("%d of %d", x.discontinuities, x.wantDiscontinuities), fmt.Sprint(x.gaps), fmt.Sprint(x.missing), fmt.Sprint(x.differing),
		fmt.Sprintf("%.0f ms", x.drift),
		first(func(r recovery) time.Duration { return r.source }) + " / " + first(func(r recovery) time.Duration { return r.rung }),
		first(func(r recovery) time.Duration { return r.lateSource }) + " / " + first(func(r recovery) time.Duration { return r.lateRung }),
		memoryText(x.before, x.after), x.target, met, time.Now().UTC().Format("2006-01-02 15:04") + ", " + commit(),
	}
}

// commit is what is tested, with a + when files beside the table were changed since.
var commit = sync.OnceValue(func() string {
	head, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	changed, err2 := exec.Command("git", "status", "--porcelain", "--", ":(top)", ":(top,exclude)docs/chaos.md").Output()
	if err != nil || err2 != nil {
		return "unknown"
	}
	if len(changed) > 0 {
		return strings.TrimSpace(string(head)) + "+"
	}
	return strings.TrimSpace(string(head))
})

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

// keepLogs saves what the services said, for whoever looks for a fault.
func (c *trial) keepLogs() {
	c.keepFile("requests.txt", []byte(c.witness.requests()))
	services := c.all()
	if p, ok := c.pub.(*harness.Publisher); ok {
		services = append(services, &harness.Server{Program: p.Program, Role: "publisher"})
	}
	for n, s := range services {
		c.keepFile(fmt.Sprintf("%d-%s.log", n, s.Role), []byte(s.Log.String()))
	}
}

// keepFile saves something of the row beside its logs.
func (c *trial) keepFile(name string, data []byte) {
	dir := filepath.Join(harness.OutputDir(), strings.ReplaceAll(c.row.name, " ", "_"))
	if err := os.MkdirAll(dir, 0o755); err == nil {
		_ = os.WriteFile(filepath.Join(dir, name), data, 0o644)
	}
}
