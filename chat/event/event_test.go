package event

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCompare(t *testing.T) {
	sorted := []ID{"", "5-0", "5-1", "5-10", "10-0", "1795797369266-0", "1795797369266-2"}
	shuffled := []ID{"10-0", "5-10", "1795797369266-2", "", "5-1", "1795797369266-0", "5-0"}
	slices.SortFunc(shuffled, Compare)
	if !slices.Equal(shuffled, sorted) {
		t.Errorf("sorted as %q", shuffled)
	}
	for _, id := range []ID{"", "5", "-1", "5-", "-5-0", "a-0", "99999999999999999999-0"} {
		if id.Valid() || !id.Time().IsZero() {
			t.Errorf("%q is an ID of %v", id, id.Time())
		}
	}
	if at := ID("1795797369266-3").Time(); !at.Equal(time.UnixMilli(1795797369266)) {
		t.Errorf("it happened at %v", at)
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"hello":                 "hello",
		"  two\n\twords \r\n":   "two words",
		"cafe\u0301":            "café",
		"null\x00bell\a":        "nullbell",
		"turned \u202egnirts":   "turned gnirts",
		"zero\u200bwidth\ufeff": "zerowidth",
		"family \U0001f468\u200d\U0001f469\u200d\U0001f467": "family \U0001f468\u200d\U0001f469\u200d\U0001f467",
		"z" + strings.Repeat("\u0336\u0489", 20):            "z\u0336\u0489\u0336\u0489",
		"ทั้งนี้":                                           "ทั้งนี้",
		strings.Repeat("ß", MaxText):                        strings.Repeat("ß", MaxText),
	} {
		if got, err := Clean(text); err != nil || got != want {
			t.Errorf("%q became %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]error{
		"": ErrEmpty, " \u200b\n": ErrEmpty, "\u200d\u200d": ErrEmpty,
		strings.Repeat("x", MaxText+1): ErrTooLong, strings.Repeat("x", 1<<20): ErrTooLong,
		"\xff\xfe": ErrNotText,
	} {
		if got, err := Clean(text); err != want {
			t.Errorf("%.20q became %q, %v; want %v", text, got, err, want)
		}
	}
}

// What is clean stays as it is, and is never more than it was allowed to be.
func FuzzClean(f *testing.F) {
	for _, text := range []string{"hello", "z\u0336\u0489", "\u202e", "a\u0301\u0301\u0301\u0301\u0301\u0301"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		clean, err := Clean(text)
		if err != nil {
			return
		}
		again, err := Clean(clean)
		if err != nil || again != clean || len([]rune(clean)) > MaxText || strings.ContainsAny(clean, "\r\n\x00") {
			t.Fatalf("%q became %q and then %q, %v", text, clean, again, err)
		}
	})
}
