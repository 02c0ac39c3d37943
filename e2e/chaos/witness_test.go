//go:build chaos

package chaos

import (
	"fmt"
	"time"

	"millrace/e2e/harness"
)

// samplePeriod is how often the page is looked at.
const samplePeriod = 50 * time.Millisecond

// sampler is a script that does that, in the page.
const sampler = `(() => {
	const chaos = window.chaos = {samples: [], errors: []}
	let heard = null, instance = 0
	performance.setResourceTimingBufferSize(20000)
	setInterval(() => {
		const v = window.millrace?.video, h = window.millrace?.hls
		if (!v) return
		if (h && h !== heard) {
			heard = h
			instance++
			h.on('hlsError', (_, d) => chaos.errors.push({at: Date.now(), details: d.details, fatal: d.fatal}))
		}
		let end = 0
		for (let i = 0; i < v.buffered.length; i++) end = Math.max(end, v.buffered.end(i))
		chaos.samples.push([Date.now(), v.currentTime, end, v.ended ? 1 : 0, h ? h.currentLevel : -1, instance, +(h?.playingDate ?? 0)])
	}, 50)
})()`

// glance is one sample.
type glance struct {
	at       time.Time
	playhead float64
	buffered float64
	ended    bool
	level    int
	// instance counts the page's hls.js instances: each has a timeline of its own.
	instance int
	// date is the picture's program date-time; zero when hls.js doesn't know it.
	date time.Time
}

// stall is a time in which the playhead stood still though it should have moved.
type stall struct {
	from   time.Time
	length time.Duration
}

// shortestStall is what counts as one.
const shortestStall = 150 * time.Millisecond

// witness is a viewer: our watch page in Chromium.
type witness struct {
	*harness.Browser
}

// watch opens the page and waits until it plays.
func (c *cluster) watch() *witness {
	c.t.Helper()
	w := &witness{harness.OpenBrowser(c.t)}
	w.Open(c.front + "/demo")
	w.WaitPlaying(30 * time.Second)
	if c.shape.level >= 0 {
		harness.Eval[int](w.Browser, fmt.Sprintf("window.millrace.hls.nextLevel = %d", c.shape.level))
	}
	harness.Eval[any](w.Browser, sampler)
	return w
}

// looks reads the samples.
func (w *witness) looks() []glance {
	raw := harness.Eval[[][]float64](w.Browser, "window.chaos.samples")
	list := make([]glance, 0, len(raw))
	for _, r := range raw {
		l := glance{at: time.UnixMilli(int64(r[0])), playhead: r[1], buffered: r[2], ended: r[3] != 0, level: int(r[4]), instance: int(r[5])}
		if r[6] != 0 {
			l.date = time.UnixMilli(int64(r[6]))
		}
		list = append(list, l)
	}
	return list
}

type hlsError struct {
	At      int64  `json:"at"`
	Details string `json:"details"`
	Fatal   bool   `json:"fatal"`
}

// errors counts hls.js's errors by name since a time.
func (w *witness) errors(since time.Time) (count map[string]int, fatal int) {
	count = make(map[string]int)
	for _, e := range harness.Eval[[]hlsError](w.Browser, "window.chaos.errors") {
		if e.At < since.UnixMilli() {
			continue
		}
		count[e.Details]++
		if e.Fatal {
			fatal++
		}
		w.T.Logf("hls.js at %s: %s, fatal %v", time.UnixMilli(e.At).Format("15:04:05.000"), e.Details, e.Fatal)
	}
	return count, fatal
}

// stalls finds the times in which the playhead stood. Nobody pauses it.
func stalls(list []glance) []stall {
	var found []stall
	for i := 0; i+1 < len(list); {
		j := i
		for j+1 < len(list) && !list[j+1].ended && list[j+1].playhead-list[i].playhead < 0.01 && list[j+1].playhead-list[i].playhead > -0.01 {
			j++
		}
		if length := list[j].at.Sub(list[i].at); length > shortestStall {
			found = append(found, stall{list[i].at, length})
		}
		i = max(j, i+1)
	}
	return found
}

// jumps is how many seconds of the broadcast were never shown, as far as the
// playhead leapt over them. From one hls.js instance to the next, which counts
// its time anew and begins by a seek, the program date-time tells, by how much
// of the broadcast there is from one to another; before that seek it dates what it
// doesn't show.
func jumps(list []glance, between func(from, to time.Time) float64) float64 {
	total := 0.0
	count := func(moved, took float64) {
		if over := moved - 1.6*took; over > 0.25 {
			total += moved - took
		}
	}
	var dated glance // the last of an instance that had a date
	for i, l := range list {
		if i > 0 && l.instance == list[i-1].instance && l.instance == dated.instance {
			count(l.playhead-list[i-1].playhead, l.at.Sub(list[i-1].at).Seconds())
		}
		runs := i > 0 && l.instance == list[i-1].instance && l.playhead > list[i-1].playhead && l.playhead < list[i-1].playhead+0.5
		if l.date.IsZero() || l.instance != dated.instance && !runs {
			continue
		}
		if l.instance != dated.instance && dated.instance > 0 {
			count(between(dated.date, l.date), l.at.Sub(dated.at).Seconds())
		}
		dated = l
	}
	return total
}

// between is the part of the samples within a time.
func between(list []glance, from, to time.Time) []glance {
	var some []glance
	for _, l := range list {
		if !l.at.Before(from) && l.at.Before(to) {
			some = append(some, l)
		}
	}
	return some
}

// resumed is when the playhead's last standstill ended that ended after a time;
// zero if it stands still, that time if it didn't stand.
func resumed(list []glance, after time.Time) time.Time {
	at := after
	for _, s := range stalls(list) {
		end := s.from.Add(s.length)
		if !end.Before(list[len(list)-1].at) {
			return time.Time{}
		}
		if end.After(at) {
			at = end
		}
	}
	return at
}

// requests is what the page has asked for: when it asked, for how long it
// waited, and for what.
func (w *witness) requests() string {
	return harness.Eval[string](w.Browser, `performance.getEntriesByType('resource').map(e =>
		new Date(performance.timeOrigin + e.startTime).toISOString().slice(11, 23) + ' ' + Math.round(e.duration).toString().padStart(5) + ' ms  ' + e.responseStatus + ' ' +
		e.name.replace(/[?&]CMCD=[^&]*/, '')).join('\n')`)
}

// edgeInUse is the edge that the page fetched from last.
func (c *trial) edgeInUse() *harness.Server {
	c.t.Helper()
	last := harness.Eval[string](c.witness.Browser, `performance.getEntriesByType('resource').map(e => e.name).filter(n => n.includes('/hls/')).at(-1) ?? ''`)
	host := hostOf(last)
	if host == hostOf(c.front) {
		host = c.edgeForPages().Host
	}
	for n, e := range c.edges {
		if host == hostOf(e.HTTP) || n < len(c.pageWires) && host == c.pageWires[n].address {
			return e
		}
	}
	c.t.Fatalf("the page fetched %q last: that is no edge's", last)
	return nil
}
