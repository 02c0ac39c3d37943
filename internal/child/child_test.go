package child

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestTailKeepsTheEnd(t *testing.T) {
	var tail Tail
	for range 3 {
		if _, err := tail.Write([]byte(strings.Repeat("x", tailSize) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tail.Write([]byte("first\n\n  second\nthird")); err != nil {
		t.Fatal(err)
	}
	if got, want := tail.Last(2), "second | third"; got != want {
		t.Errorf("Last(2) = %q, want %q", got, want)
	}
	if len(tail.buf) != tailSize {
		t.Errorf("%d bytes are kept, want %d", len(tail.buf), tailSize)
	}
}

func TestKillEndsTheGroup(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 & wait")
	Prepare(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Kill(cmd)
	if err := cmd.Wait(); err == nil {
		t.Error("a killed process ended without an error")
	}
	Kill(cmd) // has ended: no error, no panic
}
