package viewer

import (
	"fmt"
	"testing"
	"time"

	"millrace/e2e/harness"
)

// SamplePeriod is how often the page is looked at.
const SamplePeriod = 50 * time.Millisecond

// sampler is a script that does that, in the page.
const sampler = `(() => {
	const seen = window.witness = {samples: [], errors: []}
	let heard = null, instance = 0
	performance.setResourceTimingBufferSize(20000)
	setInterval(() => {
		const v = window.millrace?.video, h = window.millrace?.hls
		if (!v) return
		if (h && h !== heard) {
			heard = h
			instance++
			h.on('hlsError', (_, d) => seen.errors.push({at: Date.now(), details: d.details, fatal: d.fatal}))
		}
		let end = 0
		for (let i = 0; i < v.buffered.length; i++) end = Math.max(end, v.buffered.end(i))
		seen.samples.push([Date.now(), v.currentTime, end, v.ended ? 1 : 0, h ? h.currentLevel : -1, instance, +(h?.playingDate ?? 0)])
	}, 50)
})()`

// Glance is one sample.
type Glance struct {
	At       time.Time
	Playhead float64
	Buffered float64
	Ended    bool
	Level    int
	// Instance counts the page's hls.js instances: each has a timeline of its own.
	Instance int
	// Date is the picture's program date-time; zero when hls.js doesn't know it.
	Date time.Time
}

// Stall is a time in which the playhead stood still though it should have moved.
type Stall struct {
	From   time.Time
	Length time.Duration
}

// shortestStall is what counts as one.
const shortestStall = 150 * time.Millisecond

// Witness is a viewer: our watch page in Chromium.
type Witness struct {
	*harness.Browser
}

// Watch opens a watch page and waits until it plays. level is the rendition that
// it stays on: 0 for the smallest, -1 for what hls.js chooses.
func Watch(t testing.TB, page string, level int) *Witness {
	t.Helper()
	w := &Witness{harness.OpenBrowser(t)}
	w.Open(page)
	w.WaitPlaying(30 * time.Second)
	if level >= 0 {
		harness.Eval[int](w.Browser, fmt.Sprintf("window.millrace.hls.nextLevel = %d", level))
	}
	harness.Eval[any](w.Browser, sampler)
	return w
}

// Looks reads the samples.
func (w *Witness) Looks() []Glance {
	raw := harness.Eval[[][]float64](w.Browser, "window.witness.samples")
	list := make([]Glance, 0, len(raw))
	for _, r := range raw {
		l := Glance{At: time.UnixMilli(int64(r[0])), Playhead: r[1], Buffered: r[2], Ended: r[3] != 0, Level: int(r[4]), Instance: int(r[5])}
		if r[6] != 0 {
			l.Date = time.UnixMilli(int64(r[6]))
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

// Errors counts hls.js's errors by name since a time.
func (w *Witness) Errors(since time.Time) (count map[string]int, fatal int) {
	count = make(map[string]int)
	for _, e := range harness.Eval[[]hlsError](w.Browser, "window.witness.errors") {
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

// Stalls finds the times in which the playhead stood. Nobody pauses it.
func Stalls(list []Glance) []Stall {
	var found []Stall
	for i := 0; i+1 < len(list); {
		j := i
		for j+1 < len(list) && !list[j+1].Ended && list[j+1].Playhead-list[i].Playhead < 0.01 && list[j+1].Playhead-list[i].Playhead > -0.01 {
			j++
		}
		if length := list[j].At.Sub(list[i].At); length > shortestStall {
			found = append(found, Stall{list[i].At, length})
		}
		i = max(j, i+1)
	}
	return found
}

// Jumps is how many seconds of the broadcast were never shown, as far as the
// playhead leapt over them. From one hls.js instance to the next, which counts
// its time anew and begins by a seek, the program date-time tells, by how much
// of the broadcast there is from one to another; before that seek it dates what it
// doesn't show.
func Jumps(list []Glance, between func(from, to time.Time) float64) float64 {
	total := 0.0
	count := func(moved, took float64) {
		if over := moved - 1.6*took; over > 0.25 {
			total += moved - took
		}
	}
	var dated Glance // the last of an instance that had a date
	for i, l := range list {
		if i > 0 && l.Instance == list[i-1].Instance && l.Instance == dated.Instance {
			count(l.Playhead-list[i-1].Playhead, l.At.Sub(list[i-1].At).Seconds())
		}
		runs := i > 0 && l.Instance == list[i-1].Instance && l.Playhead > list[i-1].Playhead && l.Playhead < list[i-1].Playhead+0.5
		if l.Date.IsZero() || l.Instance != dated.Instance && !runs {
			continue
		}
		if l.Instance != dated.Instance && dated.Instance > 0 {
			count(between(dated.Date, l.Date), l.At.Sub(dated.At).Seconds())
		}
		dated = l
	}
	return total
}

// Within is the part of the samples within a time.
func Within(list []Glance, from, to time.Time) []Glance {
	var some []Glance
	for _, l := range list {
		if !l.At.Before(from) && l.At.Before(to) {
			some = append(some, l)
		}
	}
	return some
}

// Resumed is when the playhead's last standstill ended that ended after a time;
// zero if it stands still, that time if it didn't stand.
func Resumed(list []Glance, after time.Time) time.Time {
	at := after
	for _, s := range Stalls(list) {
		end := s.From.Add(s.Length)
		if !end.Before(list[len(list)-1].At) {
			return time.Time{}
		}
		if end.After(at) {
			at = end
		}
	}
	return at
}

// Requests is what the page has asked for: when it asked, for how long it
// waited, and for what.
func (w *Witness) Requests() string {
	return harness.Eval[string](w.Browser, `performance.getEntriesByType('resource').map(e =>
		new Date(performance.timeOrigin + e.startTime).toISOString().slice(11, 23) + ' ' + Math.round(e.duration).toString().padStart(5) + ' ms  ' + e.responseStatus + ' ' +
		e.name.replace(/[?&]CMCD=[^&]*/, '')).join('\n')`)
}
