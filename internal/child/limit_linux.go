package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// oomScore is at least what a limited process has: the kernel's choice where memory is
	// short, from 0 on, by which it goes before us.
	oomScore    = 500
	oomScoreGap = 200 // and by so much more than ours, of a service that has one itself
	maxOOMScore = 1000
)

// Limit bounds the memory of a cmd that was just started, in bytes of what it maps for
// itself alone and writes to (RLIMIT_DATA, which its threads and children inherit): beyond
// that its allocations fail. It also has the kernel choose this process before us where
// memory is short. On systems other than Linux it does nothing.
func Limit(cmd *exec.Cmd, memory int64) error {
	pid := cmd.Process.Pid
	limit := unix.Rlimit{Cur: uint64(memory), Max: uint64(memory)}
	if err := unix.Prlimit(pid, unix.RLIMIT_DATA, &limit, nil); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("limit the memory of process %d: %w", pid, err)
	}
	if err := raiseOOMScore(pid); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("have process %d go first where memory is short: %w", pid, err)
	}
	return nil // it may have ended
}

func raiseOOMScore(pid int) error {
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(own)))
	if err != nil {
		return err
	}
	score = min(max(oomScore, score+oomScoreGap), maxOOMScore)
	return os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(score)), 0)
}
