//go:build hostile

package hostile

import (
	"maps"
	"slices"
	"strconv"
)

// grouped writes a number with commas between thousands.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func sortedKeys(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
