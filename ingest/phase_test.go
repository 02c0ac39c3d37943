package ingest

import (
	"testing"
	"time"
)

// Every phase with every event. What isn't listed changes nothing.
func TestPhases(t *testing.T) {
	want := [phases][events]phase{
		waiting:       {attached: live, detached: waiting, ends: ended, moves: moved, stops: stopping},
		live:          {attached: live, detached: reconnecting, ends: live, moves: live, stops: live},
		reconnecting:  {attached: live, detached: reconnecting, ends: ended, moves: moved, stops: stopping},
		ended:         {attached: ended, detached: ended, ends: ended, moves: ended, stops: endedStopping},
		moved:         {attached: moved, detached: moved, ends: moved, moves: moved, stops: movedStopping},
		stopping:      {attached: stopping, detached: stopping, ends: endedStopping, moves: movedStopping, stops: stopping},
		endedStopping: {attached: endedStopping, detached: endedStopping, ends: endedStopping, moves: endedStopping, stops: endedStopping},
		movedStopping: {attached: movedStopping, detached: movedStopping, ends: movedStopping, moves: movedStopping, stops: movedStopping},
	}
	for p := range phases {
		for e := range events {
			got, ok := next(p, e)
			if got != want[p][e] || ok != (got != p) {
				t.Errorf("%s on event %d: %s, %v; want %s", p, e, got, ok, want[p][e])
			}
			if p.over() && !got.over() {
				t.Errorf("%s is over, and begins again on event %d", p, e)
			}
		}
	}
}

// What the phases mean to the rest of ingest.
func TestPhaseMeaning(t *testing.T) {
	type meaning struct{ over, hasEnded, hasMoved, stops bool }
	want := [phases]meaning{
		ended:         {over: true, hasEnded: true},
		moved:         {over: true, hasMoved: true},
		stopping:      {over: true, stops: true},
		endedStopping: {over: true, hasEnded: true, stops: true},
		movedStopping: {over: true, hasMoved: true, stops: true},
	}
	for p := range phases {
		if got := (meaning{p.over(), p.hasEnded(), p.hasMoved(), p.stops()}); got != want[p] {
			t.Errorf("%s: %+v, want %+v", p, got, want[p])
		}
	}
}

// The shortest of the times that workers may have counts.
func TestLife(t *testing.T) {
	began := time.Unix(1_800_000_000, 0)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	type step struct {
		event event
		at    int
		keep  time.Duration
	}
	for _, c := range []struct {
		name        string
		steps       []step
		lost, until int // seconds; until 0: the log is kept
	}{
		{"a reconnect", []step{{attached, 1, 0}, {detached, 5, 0}, {attached, 6, 0}, {detached, 9, 0}}, 9, 0},
		{"the end", []step{{attached, 1, 0}, {detached, 5, 0}, {ends, 65, time.Minute}}, 5, 125},
		{"the end, then a stop", []step{{ends, 60, time.Minute}, {stops, 70, 10 * time.Second}}, 0, 80},
		{"the end, then a stop just before its time", []step{{ends, 60, time.Minute}, {stops, 119, 10 * time.Second}}, 0, 120},
		{"a stop, then another ingest", []step{{stops, 10, 10 * time.Second}, {moves, 12, time.Minute}}, 0, 20},
		{"a stop twice", []step{{stops, 10, 10 * time.Second}, {stops, 15, 10 * time.Second}}, 0, 20},
	} {
		l := life{lost: at(0)}
		for _, s := range c.steps {
			l.enter(s.event, at(s.at), s.keep)
		}
		if !l.lost.Equal(at(c.lost)) {
			t.Errorf("%s: lost at %v, want %v", c.name, l.lost, at(c.lost))
		}
		if c.until == 0 && (!l.until.IsZero() || l.givenUp(at(1e6))) {
			t.Errorf("%s: the log is given up at %v", c.name, l.until)
		}
		if c.until != 0 && (l.givenUp(at(c.until).Add(-1)) || !l.givenUp(at(c.until))) {
			t.Errorf("%s: the log is given up at %v, want %v", c.name, l.until, at(c.until))
		}
	}
}
