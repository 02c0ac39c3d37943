//go:build hostile

package hostile

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/e2e/harness"
)

// row is one attack.
type row struct {
	name string
	// short rows are part of make test.
	short bool
	// on is the server that it is done to.
	on shape
	// attack does it and checks the answers.
	attack func(a *attack)
	// growth is by how many MB the memory of all the server's processes may rise; 0
	// means defaultGrowth.
	growth float64
	// target is what is asked for, in words, besides 0 stalls, the memory and that
	// everything lives.
	target string
}

// defaultGrowth is for attacks that needn't cost memory: Go's collector lets the heap
// grow to twice what is in use, and encoders come and go meanwhile.
const defaultGrowth = 120

// rows are all attacks, in the order of the table. Those on the same shape share a
// server, as long as it does well.
func rows() []row {
	var list []row
	list = append(list, connectionRows()...)
	list = append(list, requestRows()...)
	list = append(list, playlistRows()...)
	list = append(list, neighbourRows()...)
	list = append(list, encoderRows()...)
	list = append(list, keyRows()...)
	return append(list, mediaRows()...)
}

// say prints progress.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// TestHostile does all rows whose name matches the environment variable ROWS, a
// regular expression. HOSTILE_SHORT does those of make test; HOSTILE_REPORT names the
// Markdown file that gets the table.
func TestHostile(t *testing.T) {
	wanted, err := regexp.Compile(os.Getenv("ROWS"))
	if err != nil {
		t.Fatalf("ROWS: %v", err)
	}
	short := isShort()
	harness.Measured() // of what is run, whatever is edited meanwhile
	var names []string
	var groups [][]row // of one shape each
	for _, r := range rows() {
		names = append(names, r.name)
		if !wanted.MatchString(r.name) || short && !r.short {
			continue
		}
		n := slices.IndexFunc(groups, func(g []row) bool { return g[0].on.name == r.on.name })
		if n < 0 {
			n, groups = len(groups), append(groups, nil)
		}
		groups[n] = append(groups[n], r)
	}
	for _, group := range groups {
		t.Run(group[0].on.name, func(t *testing.T) {
			var at *target
			for _, r := range group {
				if at == nil || at.spoiled {
					at.stop()
					at = start(t, group[0].on)
				}
				t.Run(strings.ReplaceAll(r.name, " ", "_"), func(t *testing.T) { r.do(t, at, names, short) })
			}
			at.stop()
		})
	}
}

// do does the attack, judges, and writes its line.
func (r row) do(t *testing.T, at *target, names []string, short bool) {
	at.in(t)
	a := &attack{target: at, t: t, row: r, began: time.Now()}
	defer a.end()
	say("%s", r.name)
	x := &result{row: r, problems: []string{"ended early"}}
	defer func() { // a row that ends early has its line too
		at.spoiled = at.spoiled || len(x.problems) > 0 || t.Failed()
		say("%s took %.0f s\n    %s", r.name, time.Since(a.began).Seconds(), strings.Join(x.cells(), " | "))
		if file := os.Getenv("HOSTILE_REPORT"); file != "" {
			if err := table.Write(file, x.cells(), names); err != nil {
				t.Error(err)
			}
		}
		for _, p := range x.problems {
			t.Error(p)
		}
		for _, p := range x.slow {
			if short { // there other work goes on beside
				t.Logf("late: %s", p)
			} else {
				t.Error(p)
			}
		}
	}()
	gauge := measure(at.server)
	r.attack(a)
	// What a player has in its buffer is played before it stands still.
	time.Sleep(lengthOf(afterwards))
	a.ended = time.Now()
	x = a.judge(gauge.stop())
}

// afterwards is how long a viewer is looked at after an attack.
const afterwards = 4 * time.Second

// isShort reports whether this is the run of make test.
func isShort() bool { return os.Getenv("HOSTILE_SHORT") != "" }

// lengthOf is how long an attack lasts, or something in it: less in the short run.
func lengthOf(d time.Duration) time.Duration {
	if isShort() {
		return d * 3 / 8
	}
	return d
}

// growthBound is by how many MB memory may rise.
func (r row) growthBound() float64 { return cmp.Or(r.growth, defaultGrowth) }
