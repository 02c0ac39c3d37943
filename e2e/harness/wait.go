package harness

import (
	"context"
	"testing"
	"time"
)

// Eventually calls try until it returns nil; the test fails with its last error.
func Eventually(t testing.TB, limit time.Duration, try func() error) {
	t.Helper()
	if err := Until(t.Context(), limit, try); err != nil {
		t.Fatalf("after %s: %v", limit, err)
	}
}

// Until calls try until it returns nil, and returns its last error.
func Until(ctx context.Context, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
