package index_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// say lists entries: settings as "b", init sections as "i", segments by number.
func say(entries []index.Entry) string {
	var all []string
	for _, e := range entries {
		switch e.Type {
		case index.TypeBroadcast, index.TypeInit:
			all = append(all, string(e.Type[:1]))
		default:
			all = append(all, fmt.Sprint(e.Sequence))
		}
	}
	return strings.Join(all, " ")
}

func TestReader(t *testing.T) {
	db := testenv.Redis(t)
	// put writes an entry at a time, in seconds.
	put := func(second int, doc string) {
		t.Helper()
		err := db.XAdd(t.Context(), &redis.XAddArgs{
			Stream: index.StreamKey("b"), ID: fmt.Sprintf("%d-*", 1000*second), Values: []any{index.Field, doc},
		}).Err()
		if err != nil {
			t.Fatal(err)
		}
	}
	segment := func(second, sequence int) {
		doc, err := json.Marshal(index.Entry{Type: index.TypeSegment, Rendition: "v", Sequence: uint64(sequence)})
		if err != nil {
			t.Fatal(err)
		}
		put(second, string(doc))
	}
	malformed := 0
	r := &index.Reader{DB: db, Broadcast: "b", Malformed: func(id string, err error) {
		if malformed++; id != "2000-0" || err == nil {
			t.Errorf("malformed: %s, %v", id, err)
		}
	}}
	check := func(what, want string) func([]index.Entry, error) {
		return func(got []index.Entry, err error) {
			t.Helper()
			if say(got) != want || err != nil {
				t.Errorf("%s: %q, %v; want %q", what, say(got), err, want)
			}
		}
	}
	check("nothing", "")(r.Head(t.Context()))
	check("nothing", "")(r.Tail(t.Context(), time.Minute, 5))
	check("nothing", "")(r.Next(t.Context()))
	put(1, `{"type":"broadcast","broadcast":{"target_duration":4,"part_target":40000,"renditions":[{"name":"v"}]}}`)
	put(2, "{}")
	segment(3, 0)
	put(4, `{"type":"init","rendition":"v","init":"x"}`)
	segment(5, 1)
	check("head", "b i")(r.Head(t.Context()))
	check("next, from the beginning on", "b 0 i 1")(r.Next(t.Context()))
	check("next", "")(r.Next(t.Context()))
	segment(6, 2)
	check("next", "2")(r.Next(t.Context()))
	check("the newest two", "1 2")(r.Tail(t.Context(), 0, 2))
	check("all", "b 0 i 1 2")(r.Tail(t.Context(), 0, 100))
	for n := range 2500 {
		segment(10+n, 10+n)
	}
	got, err := r.Tail(t.Context(), 1500*time.Second, 10_000)
	if err != nil || len(got) != 2000 || got[0].Sequence != 510 || got[1999].Sequence != 2509 {
		t.Errorf("1,500 s: %d entries, %v", len(got), err)
	}
	if got, err = r.Tail(t.Context(), time.Hour, 10_000); err != nil || say(got[:6]) != "b 0 i 1 2 10" || len(got) != 2505 {
		t.Errorf("an hour: %d entries, %v", len(got), err)
	}
	check("next after the tail", "")(r.Next(t.Context()))
	if malformed != 4 {
		t.Errorf("%d entries were malformed, want that one four times", malformed)
	}
}
