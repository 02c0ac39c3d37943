package harness

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Process is a process of the system; started tells it from a later one with
// the same number.
type Process struct {
	PID     int
	Name    string
	started string
}

// IsProgram returns a condition that is true for processes of a program.
func IsProgram(name string) func(Process) bool {
	return func(p Process) bool { return p.Name == name }
}

// look reads a process's entry; ok is false for one that is gone or only
// waits to be reaped.
func look(pid int) (p Process, parent int, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, 0, false
	}
	open, closing := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[closing+1:]))
	parent, err = strconv.Atoi(fields[1])
	return Process{pid, string(text[open+1 : closing]), fields[19]}, parent, err == nil && fields[0] != "Z"
}

// Descendants are the children of a process and theirs.
func Descendants(pid int) []Process {
	entries, _ := os.ReadDir("/proc")
	parents := make(map[int]int)
	found := make(map[int]Process)
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, parent, ok := look(n); ok {
			parents[n], found[n] = parent, p
		}
	}
	var list []Process
	for n, p := range found {
		for up := parents[n]; up > 1; up = parents[up] {
			if up == pid {
				list = append(list, p)
				break
			}
		}
	}
	return list
}

// WaitGone waits until the processes have ended.
func WaitGone(t testing.TB, list []Process) {
	t.Helper()
	Eventually(t, 5*time.Second, func() error {
		for _, old := range list {
			if p, _, ok := look(old.PID); ok && p.started == old.started {
				return fmt.Errorf("%v goes on without its parent", p)
			}
		}
		return nil
	})
}

// Children are the processes that a process has started, by name.
func Children(pid int, name string) []int {
	var list []int
	for _, p := range Descendants(pid) {
		if _, parent, ok := look(p.PID); ok && parent == pid && strings.Contains(p.Name, name) {
			list = append(list, p.PID)
		}
	}
	return list
}

// Resident is a process's resident memory in bytes, 0 when it is gone.
func Resident(pid int) int64 {
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
