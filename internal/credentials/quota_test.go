package credentials_test

import (
	"maps"
	"testing"

	"millrace/internal/credentials"
	"millrace/internal/testenv"
)

// Quotas of channels that have none of their own any more are gone with the next Replace.
func TestQuotas(t *testing.T) {
	db := testenv.Redis(t)
	for _, step := range []struct {
		channels []credentials.Channel
		want     map[string]int64
	}{
		{nil, map[string]int64{}},
		{[]credentials.Channel{{Name: "a", KeyHash: "1", Quota: 2e10}, {Name: "b", KeyHash: "2"}, {Name: "c", KeyHash: "3", Quota: -1}}, map[string]int64{"a": 2e10, "c": -1}},
		{[]credentials.Channel{{Name: "a", KeyHash: "1"}}, map[string]int64{}},
	} {
		if err := credentials.Replace(t.Context(), db, credentials.Catalogue{Version: 1, Channels: step.channels}); err != nil {
			t.Fatal(err)
		}
		if got, err := credentials.Quotas(t.Context(), db); err != nil || !maps.Equal(got, step.want) {
			t.Errorf("quotas are %v, %v; want %v", got, err, step.want)
		}
	}
}
