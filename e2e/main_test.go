package e2e

import (
	"testing"

	"millrace/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(suite{m}) }
