//go:build chaos

package chaos

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/viewer"
)

// row is one fault, done several times to one cluster.
type row struct {
	name string
	// times is how often in the whole run; in the short one each row is done once.
	times int
	// short rows are in CI.
	short bool
	shape shape
	// before is done before the row's broadcast begins.
	before func(c *trial)
	// fault injects it once and undoes it; it calls c.at when it happens.
	fault func(c *trial, n int)
	// after is checked when all is over.
	after func(c *trial)
	// breaks is how many discontinuities a fault is to cost.
	breaks int
	// stalls is how many stalls a fault may cost, longest how long one may be; 0: no bound.
	stalls  int
	longest time.Duration
	// late is how much later than before the fault the latest part of any picture
	// may come, lateSource the source's; 0: no bound.
	late, lateSource time.Duration
	// skipped is how much of the broadcast the playhead may leap over; 0 means 1 s.
	skipped time.Duration
	// gaps are allowed: the fault loses media, and says so.
	gaps bool
	// losesOpen is set where all who had the open segment die.
	losesOpen bool
	// remade has an undisturbed worker make the whole broadcast from the same log
	// afterwards: each object must have the same SHA-256.
	remade bool
	// target is what the issue asks for, in words.
	target string
	// settle is the least time from one fault to the next; 0 means 7 s.
	settle time.Duration
	// warm is the time before the first fault; 0 means 6 s.
	warm time.Duration
}

// length is how long a fault lasts: a third of it in the short run.
func (c *trial) length(d time.Duration) time.Duration {
	if os.Getenv("CHAOS_SHORT") != "" {
		return d / 3
	}
	return d
}

// say prints progress.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// TestChaos does all rows whose name matches the environment variable ROWS, a
// regular expression. TIMES overrides how often; CHAOS_SHORT does CI's rows,
// each once; CHAOS_REPORT names the Markdown file that gets the table.
func TestChaos(t *testing.T) {
	wanted, err := regexp.Compile(os.Getenv("ROWS"))
	if err != nil {
		t.Fatalf("ROWS: %v", err)
	}
	short := os.Getenv("CHAOS_SHORT") != ""
	if short {
		common.Seconds = "150" // enough for a row
	}
	harness.Measured() // of what is run, whatever is edited meanwhile
	turn := new(machineLock)
	defer turn.give()
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
	}
	for _, r := range rows() {
		if !wanted.MatchString(r.name) || short && !r.short {
			continue
		}
		if n, err := strconv.Atoi(os.Getenv("TIMES")); err == nil && n > 0 {
			r.times = min(n, max(r.times, 1))
		} else if short {
			r.times = 1
		}
		t.Run(strings.ReplaceAll(r.name, " ", "_"), func(t *testing.T) {
			if short { // times aren't judged: rows may share the machine
				t.Parallel()
			} else {
				turn.take(t)
			}
			say("%s, %d times", r.name, max(r.times, 1))
			began := time.Now()
			x := &result{name: r.name, target: r.target, problems: []string{"ended early"}, hard: []string{"ended early"}}
			defer func() { // a row that ends early has its line too
				if t.Failed() && len(x.problems) == 0 {
					x.problems = []string{"an error outside of the row's own checks"}
				}
				say("%s took %.0f s\n    %s", r.name, time.Since(began).Seconds(), strings.Join(x.cells(), " | "))
				if file := os.Getenv("CHAOS_REPORT"); file != "" {
					if err := table.Write(file, x.cells(), names); err != nil {
						t.Error(err)
					}
				}
				hard := x.problems
				if short {
					hard = x.hard
				}
				for _, p := range hard {
					say("    problem: %s", p)
					t.Error(p)
				}
			}()
			x = r.run(t)
		})
	}
}

// run starts the cluster, injects the fault as often as asked, and judges.
func (r row) run(t *testing.T) *result {
	c := &trial{cluster: startCluster(t, r.shape), row: r}
	if r.before != nil {
		r.before(c)
	}
	c.pub = c.publishDemo(c.ingests[0])
	playlist := c.edges[len(c.edges)-1].Playlist("demo")
	harness.WaitSegments(t, playlist, 1)
	c.broadcastID = c.broadcast()
	if r.remade {
		c.recording = c.record(c.ingests[0])
	}
	c.observer = viewer.Observe(t, playlist)
	c.witness = c.watch()
	time.Sleep(cmp.Or(r.warm, 6*time.Second))
	began, before := time.Now(), c.memory()
	for n := range max(r.times, 1) {
		r.fault(c, n)
		if len(c.faults) != n+1 {
			t.Fatalf("the row says %d times when its faults happened, and did %d", len(c.faults), n+1)
		}
		rest := time.Now()
		// Well again: parts come, and the end of the newest isn't long ago.
		err := harness.Until(t.Context(), 40*time.Second, func() error {
			if late := c.observer.Behind(); late > 1200*time.Millisecond {
				return fmt.Errorf("the newest part of some rendition ended %s ago", late.Round(time.Millisecond))
			}
			return nil
		})
		if err != nil {
			c.problem("not well 40 s after fault %d: %v", n+1, err)
			break
		}
		// Faults come at any place in a segment.
		time.Sleep(time.Until(rest.Add(cmp.Or(r.settle, 7*time.Second) + time.Duration(n*370%2000)*time.Millisecond)))
		say("    fault %d of %d is over", n+1, max(r.times, 1))
	}
	return c.judge(began, before, c.memory())
}
