package harness

import (
	"math"
	"os"
	"strconv"
	"strings"
)

// IdleShare begins to measure. What it returns tells the share of the machine's
// time since then in which it had nothing to do, from 0 to 1.
func IdleShare() func() float64 {
	idle, all := cpuTime()
	return func() float64 {
		i, a := cpuTime()
		if a == all {
			return math.NaN()
		}
		return (i - idle) / (a - all)
	}
}

// cpuTime is how long all cores together have had nothing to do since the
// machine's start, and how long they have been there.
func cpuTime() (idle, all float64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	// cpu user nice system idle iowait irq softirq steal ...
	for i, field := range strings.Fields(line) {
		if i == 0 || i > 8 {
			continue
		}
		n, _ := strconv.ParseFloat(field, 64) // the kernel's number
		all += n
		if i == 4 || i == 5 {
			idle += n
		}
	}
	return idle, all
}
