package testenv

import (
	"context"
	"testing"
	"time"
)

// What has no signal is looked at this often: at first often, for tests that
// wait for what takes a moment, later less so, since the machine is busy.
const (
	firstLook = time.Millisecond
	lastLook  = 50 * time.Millisecond
)

// Eventually calls try until it returns nil; the test fails with its last error
// when that isn't so within the limit. It is for what another process or
// goroutine does without telling.
func Eventually(t testing.TB, limit time.Duration, try func() error) {
	t.Helper()
	if err := Until(t.Context(), limit, try); err != nil {
		t.Fatalf("after %s: %v", limit, err)
	}
}

// Until calls try until it returns nil, and returns its last error when that
// isn't so within the limit, or when ctx ends.
func Until(ctx context.Context, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// Await returns when is is true or ctx has ended, and reports which. It looks
// each millisecond.
func Await(ctx context.Context, is func() bool) bool {
	for !is() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(firstLook):
		}
	}
	return true
}
