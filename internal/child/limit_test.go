package child

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A limited process gets no more memory than its limit, and goes before us where memory is
// short; so do its own children.
func TestLimit(t *testing.T) {
	if _, err := os.Stat("/proc/self/oom_score_adj"); err != nil {
		t.Log("only Linux limits processes")
		return
	}
	const limit = 64 << 20
	var tail Tail
	// A shell that doubles a word until it has 256 MiB, in a child of its own.
	cmd := exec.Command("sh", "-c", `read go; (x=0123456789abcdef; for i in $(seq 24); do x=$x$x; done; echo ${#x})`)
	Prepare(cmd, syscall.SIGKILL)
	cmd.Stdout, cmd.Stderr = &tail, &tail
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer Kill(cmd)
	if err := Limit(cmd, limit); err != nil {
		t.Fatal(err)
	}
	score, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/oom_score_adj")
	if n, _ := strconv.Atoi(strings.TrimSpace(string(score))); err != nil || n < oomScore {
		t.Errorf("its score is %s, %v", score, err)
	}
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || strings.Contains(tail.Last(1), "268435456") {
		t.Errorf("it took what it wanted: %s, %v", tail.Last(3), err)
	}
	if err := Limit(cmd, limit); err != nil {
		t.Errorf("of one that has ended: %v", err)
	}
}
