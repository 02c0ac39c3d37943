//go:build chaos

package chaos

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/viewer"
)

// memoryAt is the resident memory of all processes of one kind, at a time.
type memoryAt struct {
	at    time.Duration
	bytes map[string]int64
}

// TestSoak publishes twice what the encoders can carry for as long as SOAK says
// (20 minutes without it), with memory measured once a second and plotted into
// the SVG file that SOAK_PLOT names. A process that grows without bound fails it.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		// Not just when the clip begins again: there a frame lasts 11 ms longer, and the
		// part before it is shorter than the specification has it.
		length = 20*time.Minute + 30*time.Second
	}
	turn := new(machineLock)
	defer turn.give()
	turn.take(t)
	// What is kept for long is full after minutes: the edge's cache, and the DVR
	// window that indexes and ledgers have.
	window := []string{"--dvr-window", "2m"}
	c := startCluster(t, shape{workers: 1, level: -1, args: map[string][]string{
		"ingest": window, "transcode": append([]string{"--encode-cores", "1"}, window...), "api": window, "edge": append([]string{"--cache-max", "64MB"}, window...),
	}})
	const broadcasts = 12
	keys := []string{c.key}
	for n := 1; n < broadcasts; n++ {
		keys = append(keys, c.newChannel(fmt.Sprintf("load%d", n)))
	}
	path := common.File(t)
	for _, key := range keys {
		harness.PublishTo(t, "rtmp://"+c.ingests[0].RTMP+"/live/"+key, []string{"-re", "-stream_loop", "-1", "-i", path, "-c", "copy"})
	}
	harness.WaitSegments(t, c.edges[0].Playlist("demo"), 1)
	w := c.watch()
	began := time.Now()
	var used []memoryAt
	pid := os.Getpid()
	for next := 30 * time.Second; time.Since(began) < length; time.Sleep(time.Second) {
		u := memoryAt{time.Since(began), make(map[string]int64)}
		for _, s := range c.all() {
			if !s.Running() {
				t.Fatalf("%s ended: %v", s.Name, s.Err)
			}
			u.bytes[s.Role] += harness.Resident(s.Cmd.Process.Pid)
		}
		for _, s := range c.workers {
			for _, p := range harness.Children(s.Cmd.Process.Pid, "ffmpeg") {
				u.bytes["FFmpeg"] += harness.Resident(p)
			}
		}
		for _, p := range harness.Children(pid, "redis-server") {
			u.bytes["redis"] += harness.Resident(p)
		}
		used = append(used, u)
		if u.at > next {
			next += 30 * time.Second
			say("soak, %s: %s; %g rungs shed", u.at.Round(time.Second), megabytes(u), c.workers[0].Metric("millrace_transcode_rungs_shed", ""))
		}
	}
	if file := os.Getenv("SOAK_PLOT"); file != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, plot(used), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list := w.Looks()
	longest := time.Duration(0)
	for _, s := range viewer.Stalls(list) {
		say("soak: a stall of %.1f s, %s after the start", s.Length.Seconds(), s.From.Sub(began).Round(time.Second))
		longest = max(longest, s.Length)
	}
	if count, _ := w.Errors(began); len(count) > 0 {
		say("soak: hls.js told of %v", count)
	}
	say("soak: %d stalls of the witness, the longest %.1f s, of %s; %g segments of rungs shed", len(viewer.Stalls(list)), longest.Seconds(),
		time.Since(began).Round(time.Second), c.workers[0].Metric("millrace_transcode_rung_segments_shed_total", ""))
	for n := range keys[1:] {
		x := &trial{cluster: c}
		x.sourceGoesOn(fmt.Sprintf("load%d", n+1))
		for _, p := range x.problems {
			t.Error(p)
		}
	}
	checkGrowth(t, used)
}

func megabytes(u memoryAt) string {
	var list []string
	for role, b := range u.bytes {
		list = append(list, fmt.Sprintf("%s %d MB", role, b/1e6))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// checkGrowth compares the last fifth with the one in the middle. Within a few
// minutes caches and windows still fill up, so short runs decide nothing.
func checkGrowth(t *testing.T, used []memoryAt) {
	t.Helper()
	if len(used) < 600 {
		return
	}
	for role := range used[0].bytes {
		mean := func(part []memoryAt) float64 {
			total := 0.0
			for _, u := range part {
				total += float64(u.bytes[role])
			}
			return total / float64(len(part)) / 1e6
		}
		n := len(used)
		middle, end := mean(used[2*n/5:3*n/5]), mean(used[4*n/5:])
		if end > 1.25*middle+20 {
			t.Errorf("%s grew from %.0f MB in the middle to %.0f MB at the end", role, middle, end)
		}
	}
}

// plot draws memory over time, a line for each kind of process.
func plot(used []memoryAt) []byte {
	const width, height, left, right, top, bottom = 820, 380, 60, 110, 30, 40
	colors := []string{"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf"}
	roles := []string{"ingest", "transcode", "edge", "api", "FFmpeg", "redis"}
	most, end := 1.0, 1.0
	for _, u := range used {
		for _, b := range u.bytes {
			most = max(most, float64(b)/1e6)
		}
		end = max(end, u.at.Minutes())
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	if most/step < 3 {
		step /= 2
	}
	most = math.Ceil(most/step) * step
	x := func(at time.Duration) float64 { return left + at.Minutes()/end*(width-left-right) }
	y := func(mb float64) float64 { return height - bottom - mb/most*(height-top-bottom) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/><text x="%d" y="18" font-size="14">Resident memory in an overload, MB over minutes</text>`+"\n", width, height, left)
	for mb := 0.0; mb <= most+step/2; mb += step {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n", left, y(mb), width-right, left-6, y(mb)+4, mb)
	}
	for i := range 6 {
		minutes := end * float64(i) / 5
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.3g</text>`+"\n", x(time.Duration(minutes*float64(time.Minute))), height-bottom+18, minutes)
	}
	last := make([]float64, 0, len(roles)) // where labels stand already
	for i, role := range roles {
		var points strings.Builder
		for n, u := range used {
			if n%max(1, len(used)/400) == 0 {
				fmt.Fprintf(&points, "%.1f,%.1f ", x(u.at), y(float64(u.bytes[role])/1e6))
			}
		}
		now := float64(used[len(used)-1].bytes[role]) / 1e6
		at := y(now) + 4
		for slices.ContainsFunc(last, func(other float64) bool { return math.Abs(other-at) < 13 }) {
			at -= 13
		}
		last = append(last, at)
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/><text x="%d" y="%.1f" fill="%s">%s %.0f</text>`+"\n",
			colors[i], strings.TrimSpace(points.String()), width-right+6, at, colors[i], role, now)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}
