package index

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzParseLine reads any line of a follow stream. What is accepted is written and read again
// without a change, entry by entry as it stands in Redis too.
func FuzzParseLine(f *testing.F) {
	for _, seed := range []string{
		`[]`, `null`, `[{"type":"end","sequence":9}]`,
		`[{"type":"part","rendition":"source","epoch":1,"sequence":3,"part":999,"duration":30000,"size":1}]`,
		`[{"type":"segment","rendition":"audio","parts":6,"duration":-1}]`,
		`[{"type":"broadcast","broadcast":{"target_duration":4,"part_target":40000,"renditions":[{"name":"source","kind":1}]}}]`,
		`[{"type":"gap","rendition":"x","time":"2026-01-02T03:04:05Z","reason":"no"}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := ParseLine(b)
		if err != nil {
			return
		}
		line, err := AppendLine(nil, entries)
		if err != nil {
			return // a time that JSON can't hold
		}
		again, err := ParseLine(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if second, err := AppendLine(nil, again); err != nil || !bytes.Equal(line, second) {
			t.Fatalf("%s became %s, %v", line, second, err)
		}
		for _, e := range entries {
			doc, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Parse(doc); err != nil {
				t.Fatalf("%s: %v", doc, err)
			}
		}
	})
}
