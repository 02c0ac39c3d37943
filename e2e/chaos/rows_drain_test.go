//go:build chaos

package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/viewer"
	"millrace/internal/testenv"
)

func drainRows() []row {
	twoEdges := shape{edges: 3}
	drainWorker := func(c *trial, _ int) {
		w := c.busy(0)
		c.at()
		c.note("%.1f s", c.handsOver(w).Seconds())
		c.restart(w)
	}
	return []row{
		{
			name: "worker SIGTERM", times: 5, remade: true, target: "0 stalls; three broadcasts handed over at a mark",
			shape: shape{workers: 1},
			before: func(c *trial) {
				for _, name := range []string{"second", "third"} {
					c.publishAs(c.ingests[0], c.newChannel(name), common)
				}
			},
			fault: func(c *trial, n int) {
				if n == 0 { // until now there was one worker: it has all three
					harness.AwaitReady(c.t, c.launch("transcode"))
				}
				drainWorker(c, n)
				for _, name := range []string{"second", "third"} {
					c.sourceGoesOn(name)
				}
			},
		},
		{
			name: "edge SIGTERM, of two", times: 2, target: "0 stalls", shape: twoEdges,
			fault: func(c *trial, _ int) {
				e := c.edgeInUse()
				c.at()
				c.note("%.1f s", c.drain(e).Seconds())
				c.restart(e)
			},
		},
		{
			name: "ingest SIGTERM, publisher goes to another one", times: 1, breaks: 1, stalls: 2, longest: afterOutage,
			shape:  shape{ingests: 2, args: map[string][]string{"ingest": {"--drain", "3s"}}},
			target: "same broadcast, 1 discontinuity, picture ≤ 2 s after the keyframe",
			fault: func(c *trial, _ int) {
				c.at()
				old := c.ingests[0]
				_ = old.Cmd.Process.Signal(syscall.SIGTERM)
				_ = c.pub.Wait(20 * time.Second) // closed by the ingest
				c.returns(func() publisher { return c.publishDemo(c.ingests[1]) })
				c.leaves(old)
				c.restart(old)
			},
		},
		{
			name: "rolling restart of all services", times: 1, breaks: 1, stalls: 2, longest: afterOutage,
			shape:  shape{ingests: 2, edges: 3, args: map[string][]string{"ingest": {"--drain", "2s"}}},
			target: "0 stalls but for what the ingest's reconnect costs",
			fault: func(c *trial, _ int) {
				c.at()
				for _, list := range [][]*harness.Server{{c.api}, c.workers, c.edges[:2]} {
					for _, s := range list {
						c.drain(s)
						c.restart(s)
						time.Sleep(3 * time.Second)
					}
				}
				stood := len(viewer.Stalls(c.witness.Looks()))
				c.note("%d stalls before the ingest's turn", stood)
				if stood > 0 {
					c.late("%d stalls before the ingest's turn", stood)
				}
				_ = c.ingests[0].Cmd.Process.Signal(syscall.SIGTERM)
				_ = c.pub.Wait(20 * time.Second)
				c.returns(func() publisher { return c.publishDemo(c.ingests[1]) })
				c.leaves(c.ingests[0])
				c.restart(c.ingests[0])
			},
		},
		{
			name: "handover between two builds of FFmpeg, SIGTERM", times: 2, target: "0 stalls, 0 discontinuities",
			shape: shape{workerArgs: [][]string{nil, {"--ffmpeg", otherBuild}}}, fault: drainWorker,
			after: func(c *trial) { c.checkProfiles(rungs...) },
		},
		{
			name: "handover between two builds of FFmpeg, kill -9", times: 2, gaps: true, stalls: 1, longest: 3 * time.Second,
			target: "0 discontinuities; the segment that both made parts of may end as a gap of its rung",
			shape:  shape{workerArgs: [][]string{nil, {"--ffmpeg", otherBuild}}}, fault: killWorker(false),
			after: func(c *trial) { c.checkProfiles(rungs...) },
		},
		{
			name: "handover between two versions of the packager, SIGTERM", times: 2, target: "0 stalls, 0 discontinuities",
			before: func(c *trial) {
				w := c.workers[1]
				w.Kill()
				w.Binary = otherPackager(c.t)
				c.restart(w)
			},
			fault: drainWorker,
			after: func(c *trial) { c.checkProfiles(append([]string{"source", "audio"}, rungs...)...) },
		},
	}
}

// rungs are those of the common clip, the largest first.
var rungs = []string{"240p30", "160p30"}

// handsOver drains a worker and checks that it handed all its broadcasts over,
// and didn't just end.
func (c *trial) handsOver(w *harness.Server) time.Duration {
	c.t.Helper()
	done := func() float64 { return sum(c.ingests, "millrace_ingest_handovers_total", `result="done"`) }
	had, before := w.Metric("millrace_transcode_broadcasts", ""), done()
	took := c.drain(w)
	if n := done() - before; n != had || had == 0 {
		c.problem("%g of %g broadcasts were handed over", n, had)
	}
	return took
}

// otherBuild stands for a program that foreignFFmpeg writes.
const otherBuild = "another-ffmpeg"

// foreignFFmpeg writes a program that is ffmpeg, says that it is another build,
// and makes other bytes: its x264 looks back at two pictures.
func foreignFFmpeg(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ffmpeg")
	script := fmt.Sprintf(`#!/bin/sh
for a do
	shift
	case $a in
	-version) exec %[1]s -version | sed 's/^ffmpeg version /&chaos-/' ;;
	vbv-init=*) a=$a:ref=2 ;;
	esac
	set -- "$@" "$a"
done
exec %[1]s "$@"
`, "'"+testenv.FFmpeg(t)+"'")
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// otherPackager builds the program with another version of the packager.
func otherPackager(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	original := filepath.Join(harness.Root(), "transcode", "encode", "args.go")
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`packagerVersion = (\d+)`)
	if !version.Match(text) {
		t.Fatalf("%s has no packagerVersion", original)
	}
	changed, binary := filepath.Join(dir, "args.go"), filepath.Join(dir, "millrace")
	overlay, _ := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	for path, data := range map[string][]byte{changed: version.ReplaceAll(text, []byte("packagerVersion = 1000$1")), filepath.Join(dir, "overlay.json"): overlay} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "millrace/cmd/millrace").CombinedOutput()
	if err != nil {
		t.Fatalf("build another packager: %v\n%s", err, out)
	}
	return binary
}
