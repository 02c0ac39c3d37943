//go:build chaos

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"millrace/e2e/harness"
)

// children are the processes that a service has started, by name.
func children(pid int, name string) []int {
	var list []int
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range entries {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (comm) state ppid ...
		open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
		if open < 0 || end < open {
			continue
		}
		fields := strings.Fields(string(text[end+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) || !strings.Contains(string(text[open:end]), name) {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(text[:open]))); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// rss is a process's resident memory in bytes, 0 when it is gone.
func rss(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// memory is the resident memory of each role's processes, their mean, in MB.
func (c *cluster) memory() map[string]float64 {
	sum, count := make(map[string]float64), make(map[string]float64)
	for _, s := range c.all() {
		if s.Running() {
			sum[s.Role] += float64(rss(s.Cmd.Process.Pid)) / 1e6
			count[s.Role]++
		}
	}
	for role := range sum {
		sum[role] /= count[role]
	}
	return sum
}

// sum adds a metric up over services that run.
func sum(list []*harness.Server, name, label string) float64 {
	total := 0.0
	for _, s := range list {
		if s.Running() {
			total += s.Metric(name, label)
		}
	}
	return total
}
