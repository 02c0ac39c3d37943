package harness

import (
	"context"
	"testing"
	"time"

	"millrace/internal/testenv"
)

// Eventually is [testenv.Eventually].
func Eventually(t testing.TB, limit time.Duration, try func() error) {
	t.Helper()
	testenv.Eventually(t, limit, try)
}

// Until is [testenv.Until].
func Until(ctx context.Context, limit time.Duration, try func() error) error {
	return testenv.Until(ctx, limit, try)
}

// Nap waits for a while, or for the context's end.
func Nap(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
