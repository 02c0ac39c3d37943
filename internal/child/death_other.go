//go:build !linux

package child

import "syscall"

// setDeathSignal does nothing: only Linux can do it. What is left behind is
// found at the next start.
func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}
