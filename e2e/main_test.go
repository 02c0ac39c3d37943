package e2e

import (
	"testing"

	"millrace/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
