package ingest

import (
	"testing"

	"go.uber.org/goleak"

	"millrace/internal/testenv"
)

// A client of a Redis that is away looks for it once a second, and then sees
// that it was closed.
func TestMain(m *testing.M) {
	testenv.Main(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}
