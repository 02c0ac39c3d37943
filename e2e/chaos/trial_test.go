//go:build chaos

package chaos

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/viewer"
)

// trial is a row as it runs.
type trial struct {
	*cluster
	row row
	// broadcastID is the one that was live before the first fault.
	broadcastID string
	pub         publisher
	observer    *viewer.Observer
	witness     *viewer.Witness
	recording   *recording // of the log, where the row is remade
	faults      []time.Time
	// conflicts are those that workers counted that have ended.
	conflicts float64
	// notes are what the table says besides, problems what is wrong, and slow what
	// is so only for how long it took: CI's short run doesn't fail for that.
	notes, problems, slow []string
}

// at notes that the fault happens now.
func (c *trial) at() { c.faults = append(c.faults, time.Now()) }

// ends is when the n-th fault is over: at the next one, or now.
func (c *trial) ends(n int) time.Time {
	if n+1 < len(c.faults) {
		return c.faults[n+1]
	}
	return time.Now()
}

func (c *trial) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *trial) problem(format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	c.t.Logf("problem at %s: %s", time.Now().Format("15:04:05.000"), text)
	c.problems = append(c.problems, text)
}

// late is a problem of time.
func (c *trial) late(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.t.Logf("late at %s: %s", time.Now().Format("15:04:05.000"), text)
	c.slow = append(c.slow, text)
}

// tally keeps what a worker has counted that is about to end.
func (c *trial) tally(w *harness.Server) {
	c.conflicts += w.Metric("millrace_transcode_conflicts_total", "")
}

// drain is SIGTERM and the wait for the end; it returns how long that took.
func (c *trial) drain(s *harness.Server) time.Duration {
	c.t.Helper()
	if s.Role == "transcode" {
		c.tally(s)
	}
	start := time.Now()
	_ = s.Cmd.Process.Signal(syscall.SIGTERM)
	c.leaves(s)
	return time.Since(start)
}

// drainLimit is how long a service may take to leave.
const drainLimit = 60 * time.Second

// leaves waits until a service has ended that is to end by itself.
func (c *trial) leaves(s *harness.Server) {
	select {
	case <-s.Ended:
		if s.Err != nil {
			c.problem("%s after SIGTERM: %v", s.Name, s.Err)
		}
	case <-time.After(drainLimit):
		c.problem("%s hasn't ended %s after SIGTERM", s.Name, drainLimit)
		s.Kill()
	}
}
