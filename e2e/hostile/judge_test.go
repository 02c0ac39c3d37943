//go:build hostile

package hostile

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/viewer"
)

// attack is a row as it is done. Its methods but noteAnswer and what counts are for
// the test's goroutine.
type attack struct {
	*target
	t     *testing.T
	row   row
	began time.Time
	ended time.Time
	// requests, connections and bytes are what was sent.
	requests, connections, bytes atomic.Int64
	notes, problems              []string
	closing                      []func()

	mu      sync.Mutex
	answers map[string]int
}

// note adds to what the table says of the answers.
func (a *attack) note(format string, args ...any) {
	a.notes = append(a.notes, fmt.Sprintf(format, args...))
}

// problem is what the product did wrong.
func (a *attack) problem(format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	if !slices.Contains(a.problems, text) {
		a.t.Logf("problem at %s: %s", time.Now().Format("15:04:05.000"), text)
		a.problems = append(a.problems, text)
	}
}

// check is a problem unless ok.
func (a *attack) check(ok bool, format string, args ...any) {
	if !ok {
		a.problem(format, args...)
	}
}

// answered counts an answer. It may be called by any goroutine.
func (a *attack) answered(what string) { a.answeredTimes(what, 1) }

// answeredTimes counts an answer that came n times.
func (a *attack) answeredTimes(what string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.answers == nil {
		a.answers = make(map[string]int)
	}
	a.answers[what] += n
}

// answersOf is how many answers had that text.
func (a *attack) answersOf(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answers[what]
}

// later has something done when the row is over.
func (a *attack) later(fn func()) { a.closing = append(a.closing, fn) }

// end does it.
func (a *attack) end() {
	for i := len(a.closing) - 1; i >= 0; i-- {
		a.closing[i]()
	}
}

// result is a row of the table.
type result struct {
	row                  row
	sent, seen           string
	measured             measured
	stalls               int
	lateSource, lateRung time.Duration
	problems, slow       []string
}

var table = harness.Table{Name: "the table: written by make hostile", Columns: []string{
	"attack", "sent", "asked for", "seen", "memory before → peak → after, MB", "may rise by", "descriptors before → peak", "stalls", "latest part: source / rung, ms", "met", "measured"}}

// shownProblems is how many problems the table shows of a row.
const shownProblems = 4

// cells are the row's columns.
func (x *result) cells() []string {
	met := "yes"
	if all := slices.Concat(x.problems, x.slow); len(all) > 0 {
		if n := len(all); n > shownProblems {
			all = append(all[:shownProblems], fmt.Sprintf("and %d more", n-shownProblems))
		}
		met = "**no**: " + strings.Join(all, "; ")
	}
	m := x.measured
	return []string{
		x.row.name, x.sent, x.row.target, x.seen,
		fmt.Sprintf("%.0f → %.0f → %.0f", m.before.resident, m.peak.resident, m.after.resident), fmt.Sprintf("%.0f", x.row.growthBound()),
		fmt.Sprintf("%d → %d", m.before.files, m.peak.files), fmt.Sprint(x.stalls),
		fmt.Sprintf("%d / %d", x.lateSource.Milliseconds(), x.lateRung.Milliseconds()), met, harness.Measured(),
	}
}

// judge looks at what the attack did to all.
func (a *attack) judge(m measured) *result {
	x := &result{row: a.row, measured: m, sent: a.sent(), seen: a.seen()}
	a.check(!m.died, "the server or its redis-server isn't the process that it was")
	a.t.Logf("memory of the server itself: %.0f MB, %.0f at the peak of all", m.before.own, m.peak.own)
	if grown := m.peak.resident - m.before.resident; grown > a.row.growthBound() {
		a.problem("memory rose by %.0f MB, at most %.0f", grown, a.row.growthBound())
	}
	a.check(a.pub.Running(), "the calm channel's publisher has ended:\n%s", harness.LastLines(a.pub.Log.String(), 3))
	looks := viewer.Within(a.witness.Looks(), a.began, a.ended)
	got, want := len(looks), int(a.ended.Sub(a.began)/viewer.SamplePeriod)
	starved := got < want/2
	if starved || got == 0 { // the browser itself has no time
		x.slow = append(x.slow, fmt.Sprintf("the page was looked at %d times, not %d", got, want))
	}
	for _, s := range viewer.Stalls(looks) {
		a.t.Logf("a stall of %s at %s", s.Length.Round(time.Millisecond), s.From.Format("15:04:05.000"))
		x.stalls++
		text := fmt.Sprintf("a stall of %s", s.Length.Round(10*time.Millisecond))
		if s.Length > hardStall && !starved {
			a.problem("%s", text)
		} else {
			x.slow = append(x.slow, text)
		}
	}
	if _, fatal := a.witness.Errors(a.began); fatal > 0 {
		a.problem("%d fatal errors of hls.js", fatal)
	}
	r := a.observer.Recovered(a.began, a.ended)
	x.lateSource, x.lateRung = r.LateSource, r.LateRung
	a.check(r.Source >= 0 && (r.Rung >= 0 || a.shape.loud), "no new parts came") // loud ones have no rungs
	x.problems = a.problems
	return x
}

// hardStall is how long a stall is where even a slow machine is no excuse.
const hardStall = 2 * time.Second

// sent says what was sent.
func (a *attack) sent() string {
	var list []string
	add := func(n int64, what string) {
		if n > 0 {
			list = append(list, grouped(n)+" "+what)
		}
	}
	add(a.connections.Load(), "connections")
	add(a.requests.Load(), "requests")
	if n := a.bytes.Load(); n >= 1e6 {
		list = append(list, fmt.Sprintf("%.1f MB", float64(n)/1e6))
	} else {
		list = append(list, fmt.Sprintf("%.0f kB", float64(n)/1e3))
	}
	return strings.Join(list, ", ") + fmt.Sprintf(" in %.0f s", (a.ended.Sub(a.began)-lengthOf(afterwards)).Seconds())
}

// seen says what was answered.
func (a *attack) seen() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []string
	for _, what := range sortedKeys(a.answers) {
		list = append(list, fmt.Sprintf("%s × %s", grouped(int64(a.answers[what])), what))
	}
	return strings.Join(append(list, a.notes...), ", ")
}
