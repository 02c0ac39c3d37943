//go:build chaos

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// row is one fault, done several times to one cluster.
type row struct {
	name string
	// times is how often in the whole run; in the short one each row is done once.
	times int
	// short rows are in CI.
	short bool
	shape shape
	// fault injects it once and undoes it; it calls c.at when it happens.
	fault func(c *trial, n int)
	// after is checked when all is over.
	after func(c *trial)
	// breaks is how many discontinuities a fault is to cost.
	breaks int
	// stalls is how many stalls a fault may cost, longest how long one may be; 0: no bound.
	stalls  int
	longest time.Duration
	// gaps are allowed: the fault loses media, and says so.
	gaps bool
	// losesOpen is set where all who had the open segment die.
	losesOpen bool
	// target is what the issue asks for, in words.
	target string
	// settle is the least time from one fault to the next; 0 means 7 s.
	settle time.Duration
	// warm is the time before the first fault; 0 means 6 s.
	warm time.Duration
}

// trial is a row as it runs.
type trial struct {
	*cluster
	row row
	// broadcastID is the one that was live before the first fault.
	broadcastID string
	pub         *publisher
	observer    *observer
	witness     *witness
	faults      []time.Time
	// notes are what the table says besides, problems what is wrong, and slow what
	// is so only for how long it took: CI's short run doesn't fail for that.
	notes, problems, slow []string
}

// at notes that the fault happens now.
func (c *trial) at() { c.faults = append(c.faults, time.Now()) }

func (c *trial) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *trial) problem(format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	c.t.Logf("problem at %s: %s", time.Now().Format("15:04:05.000"), text)
	c.problems = append(c.problems, text)
}

// late is a problem of time.
func (c *trial) late(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.t.Logf("late at %s: %s", time.Now().Format("15:04:05.000"), text)
	c.slow = append(c.slow, text)
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
	turn := new(machineLock)
	defer turn.give()
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
			turn.take(t)
			say("%s, %d times", r.name, max(r.times, 1))
			began := time.Now()
			x := r.run(t)
			say("%s took %.0f s\n    %s", r.name, time.Since(began).Seconds(), strings.Join(x.cells(), " | "))
			for _, p := range x.problems {
				say("    problem: %s", p)
			}
			if file := os.Getenv("CHAOS_REPORT"); file != "" {
				if err := x.write(file); err != nil {
					t.Error(err)
				}
			}
			if t.Failed() {
				return
			}
			hard := x.problems
			if short {
				hard = x.hard
			}
			for _, p := range hard {
				t.Error(p)
			}
		})
	}
}

// run starts the cluster, injects the fault as often as asked, and judges.
func (r row) run(t *testing.T) *result {
	c := &trial{cluster: startCluster(t, r.shape), row: r}
	c.pub = c.publishDemo(c.ingests[0])
	playlist := c.edges[len(c.edges)-1].playlist("demo")
	waitSegments(t, playlist, 1)
	c.broadcastID = c.broadcast()
	c.observer = observe(t, playlist)
	c.witness = c.watch()
	warm := r.warm
	if warm == 0 {
		warm = 6 * time.Second
	}
	time.Sleep(warm)
	began := time.Now()
	before := c.memory()
	settle := r.settle
	if settle == 0 {
		settle = 7 * time.Second
	}
	var ends []time.Time
	for n := range max(r.times, 1) {
		faults := len(c.faults)
		r.fault(c, n)
		if len(c.faults) == faults {
			t.Fatal("the row doesn't say when its fault happened")
		}
		rest := time.Now()
		// Well again: parts come, and the end of the newest isn't long ago.
		err := until(t.Context(), 40*time.Second, func() error {
			if late := c.observer.behind(); late > 1200*time.Millisecond {
				return fmt.Errorf("the newest part of some rendition ended %s ago", late.Round(time.Millisecond))
			}
			return nil
		})
		if err != nil {
			c.problem("not well 40 s after fault %d: %v", n+1, err)
			ends = append(ends, time.Now())
			break
		}
		// Faults come at any place in a segment.
		time.Sleep(time.Until(rest.Add(settle + time.Duration(n*370%2000)*time.Millisecond)))
		ends = append(ends, time.Now())
		say("    fault %d of %d is over", n+1, max(r.times, 1))
	}
	after := c.memory()
	x := c.judge(began, ends, before, after)
	return x
}
