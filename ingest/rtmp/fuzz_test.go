package rtmp

import (
	"testing"
	"unicode/utf8"
)

// FuzzReadAMF reads what an encoder may send as a command or metadata. What is read is bounded,
// and what can be written again is read as the same.
func FuzzReadAMF(f *testing.F) {
	for _, b := range [][]byte{
		hugeArray, deepNest[:100], hiddenArray, objectForName,
		appendAMF(nil, "connect", 1.0, amfProperties{{"app", "live"}, {"flashVer", "FMLE/3.0"}}),
		appendAMF(nil, "publish", 3.0, nil, "s3cret", "live"),
		{amfDate, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {amfLongString, 0, 0, 0, 1, 0xff}, {amfECMAArray, 0, 0, 0, 9, 0, 0, amfObjectEnd},
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := readAMF(b)
		if err != nil {
			return
		}
		if n := countValues(t, values, 0); n > maxAMFValues {
			t.Fatalf("%d values were read", n)
		}
		for _, v := range values {
			switch v.(type) {
			case string, float64, nil:
			default:
				continue
			}
			if s, ok := v.(string); ok && len(s) > 0xffff {
				continue
			}
			again, err := readAMF(appendAMF(nil, v))
			if err != nil || len(again) != 1 || again[0] != v && v == v { // NaN differs from itself
				t.Fatalf("%v became %v, %v", v, again, err)
			}
		}
	})
}

func countValues(t *testing.T, values []any, depth int) int {
	if depth > maxAMFDepth {
		t.Fatalf("values nest %d deep", depth)
	}
	n := len(values)
	for _, v := range values {
		switch v := v.(type) {
		case string:
			if !utf8.ValidString(v) {
				t.Fatalf("%q isn't UTF-8", v)
			}
		case []any:
			n += countValues(t, v, depth+1)
		case map[string]any:
			for _, inner := range v {
				n += countValues(t, []any{inner}, depth+1)
			}
		}
	}
	return n
}
