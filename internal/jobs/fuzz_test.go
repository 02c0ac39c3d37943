package jobs

import (
	"encoding/json"
	"testing"
)

// FuzzLines reads any line of a claim, in either direction, and any offer: what is accepted is
// written and read again without a change.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{
		`{"epoch":{"lease":3,"grant":1},"live":12,"backfill":10,"index":true}`,
		`{"consumed":18446744073709551615,"finished":12,"safe":10,"leaving":true}`,
		`{"until":13}`, `{"end":"the broadcast is over"}`, `{}`, `null`, `[]`,
		`{"broadcast":"b","channel":"c","slot":-1,"ingest":"http://h:1"}`,
		`{"address":"http://h:1","epoch":{}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again[Grant](t, b)
		again[Progress](t, b)
		again[Order](t, b)
		again[Job](t, b)
		again[Slot](t, b)
	})
}

func again[T comparable](t *testing.T, b []byte) {
	var v, w T
	if json.Unmarshal(b, &v) != nil {
		return
	}
	line, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(line, &w); err != nil || v != w {
		t.Fatalf("%+v became %+v, %v", v, w, err)
	}
}
