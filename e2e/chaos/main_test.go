//go:build chaos

package chaos

import (
	"testing"

	"millrace/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
