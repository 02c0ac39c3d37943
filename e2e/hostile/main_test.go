//go:build hostile

package hostile

import (
	"testing"

	"millrace/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
