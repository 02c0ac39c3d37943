//go:build !linux

package child

import "os/exec"

// Limit does nothing: only Linux can do it to a process that runs.
func Limit(*exec.Cmd, int64) error { return nil }
