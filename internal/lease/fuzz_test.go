package lease

import (
	"encoding/json"
	"testing"
)

// FuzzParse reads any record of a channel, as the scripts answer it. A carry that is accepted is
// written and read again without a change.
func FuzzParse(f *testing.F) {
	f.Add("b1", "7", "live", "1800000000000", "0", "60000", "30", "{}")
	f.Add("b1", "18446744073709551615", "reconnecting", "-1", "1800000000000", "9223372036854775807", "NaN",
		`{"settings":{"target_duration":4,"part_target":40000,"video":true,"started":"2026-01-02T03:04:05Z"},"mark":{"kind":"pause","epoch":7,"sequence":12,"decode_from":12,"start":900000,"time":"2026-01-02T03:04:05Z"}}`)
	f.Add("", "", "", "", "", "", "", "")
	f.Add("b", "x", "ended", "1e9", "0x1", "", "1e400", "[")
	f.Fuzz(func(t *testing.T, broadcast, epoch, state, started, lost, grace, rate, carry string) {
		r, err := parse([]any{
			"broadcast", broadcast, "epoch", epoch, "state", state, "started", started,
			"lost", lost, "grace", grace, "rate", rate, "carry", carry, "age", "5", "odd",
		})
		if err != nil {
			return
		}
		doc, err := json.Marshal(r.Handoff)
		if err != nil {
			return // a time that JSON can't hold
		}
		again, err := parse([]any{"carry", string(doc)})
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		if second, err := json.Marshal(again.Handoff); err != nil || string(second) != string(doc) {
			t.Fatalf("%s became %s, %v", doc, second, err)
		}
	})
}
