//go:build chaos

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/viewer"
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
	recoveries          []viewer.Recovery
	before, after       map[string]float64
	notes, problems     []string
	// hard are the problems that aren't about time.
	hard []string
}

// table is where the rows go.
var table = harness.Table{Name: "the table: written by make chaos", Columns: []string{"fault", "times", "stalls", "longest", "skipped", "regressions", "discontinuities, of the expected", "gaps", "missing in S3", "bytes differ", "A/V drift", "first new part: source / rung", "latest part: source / rung", "memory before → after, MB", "target", "met", "measured"}}

// cells are the row's columns.
func (x *result) cells() []string {
	first := func(pick func(viewer.Recovery) time.Duration) string {
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
		first(func(r viewer.Recovery) time.Duration { return r.Source }) + " / " + first(func(r viewer.Recovery) time.Duration { return r.Rung }),
		first(func(r viewer.Recovery) time.Duration { return r.LateSource }) + " / " + first(func(r viewer.Recovery) time.Duration { return r.LateRung }),
		memoryText(x.before, x.after), x.target, met, harness.Measured(),
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

// keepLogs saves what the services said, for whoever looks for a fault.
func (c *trial) keepLogs() {
	c.keepFile("requests.txt", []byte(c.witness.Requests()))
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
