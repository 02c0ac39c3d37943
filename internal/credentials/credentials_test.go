package credentials_test

import (
	"strings"
	"testing"

	"millrace/internal/credentials"
)

// A key is found however a keyboard or a paste changed it, as long as it is the same key.
func TestTyped(t *testing.T) {
	key := credentials.NewStreamKey()
	for _, text := range []string{key.Reveal(), " " + key.Reveal() + "\r\n", strings.ToUpper(key.Reveal()), "L" + key.Reveal()[1:9] + "\n  " + key.Reveal()[9:]} {
		if credentials.Typed(text) != key {
			t.Errorf("%q became another key", text)
		}
	}
}
