package encode

import (
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// machineMemory returns how much memory this process and its children may use at most, in
// bytes: the machine's, or less where its control groups say so; without bound where
// nothing tells.
func machineMemory() int64 {
	memory := int64(math.MaxInt64)
	info, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(info)) {
		if text, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			if err == nil && kilobytes > 0 {
				memory = kilobytes << 10
			}
		}
	}
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		within, ok := strings.CutPrefix(strings.TrimSpace(line), "0::") // version 2
		for ; ok; within = path.Dir(within) {
			memory = min(memory, groupLimit(path.Join("/sys/fs/cgroup", within, "memory.max")))
			ok = len(within) > 1
		}
	}
	return min(memory, groupLimit("/sys/fs/cgroup/memory/memory.limit_in_bytes")) // version 1, in a container
}

// groupLimit is what a control group's file says; without bound where it says "max", or
// isn't there.
func groupLimit(file string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}
