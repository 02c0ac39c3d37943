package rtmp

import (
	"slices"
	"testing"
	"time"
)

// An encoder that sends all that it has to say at once gets each answer, in order, connect's first.
func TestQuestions(t *testing.T) {
	f := serveRTMP(t, &stage{}, Config{}, nil)
	e := dialRaw(t, f.address)
	e.send(
		command("connect", 1.0, amfProperties{{"app", "live"}}),
		command("releaseStream", 2.0, nil, "s3cret"),
		command("FCPublish", 3.0, nil, "s3cret"),
		command("createStream", 4.0, nil),
		command("_checkbw", 5.0, nil),
		command("getStreamLength", 6.0, nil, "s3cret"),
		command("neverHeardOf", 7.0, nil, "a", 1.0, amfProperties{{"b", "c"}}),
		command("publish", 8.0, nil, "s3cret", "live"),
	)
	for _, want := range [][]any{
		{"_result", 1.0}, {"_result", 2.0, nil, nil}, {"_result", 3.0, nil, nil}, {"onFCPublish", 0.0, nil}, {"_result", 4.0, nil, 1.0},
		{"_result", 5.0, nil, nil}, {"_result", 6.0, nil, 0.0}, {"_result", 7.0, nil, nil}, {"onStatus", 0.0, nil},
	} {
		if got := e.answer(); !slices.EqualFunc(want, got[:len(want)], func(a, b any) bool { return a == b }) {
			t.Fatalf("the answer is %v, want %v", got, want)
		}
	}
	p := receive(t, f.taken, "a publication")

	e.send(command("FCUnpublish", 9.0, nil, "s3cret"))
	if !receive(t, p.ended, "the end") {
		t.Error("the end wasn't clean")
	}
	if got := e.answer(); got[0] != "_result" || got[1] != 9.0 {
		t.Errorf("FCUnpublish was answered with %v", got)
	}
	got := e.answer()
	if object, _ := got[len(got)-1].(map[string]any); got[0] != "onFCUnpublish" || object["code"] != "NetStream.Unpublish.Success" {
		t.Errorf("after FCUnpublish came %v", got)
	}
}

// answer reads the next command.
func (e *rawEncoder) answer() []any {
	e.t.Helper()
	for {
		m, err := e.in.next()
		if err != nil {
			e.t.Fatal(err)
		}
		if m.kind != typeCommandAMF0 {
			continue
		}
		values, err := readAMF(m.payload)
		if err != nil {
			e.t.Fatal(err)
		}
		return values
	}
}

// What an encoder asks for as long as it sends may come once a second for ever.
func TestQuestionsForLong(t *testing.T) {
	s := sanitizer{limits: FilterConfig{}.withDefaults(), now: time.Now}
	ask := func(at time.Time) error {
		s.now = func() time.Time { return at }
		_, _, err := s.pass(rtmpMessage{kind: typeCommandAMF0, payload: appendAMF(nil, "_checkbw", 2.0, nil)})
		return err
	}
	at := time.Unix(1, 0)
	for range 3600 {
		at = at.Add(time.Second)
		if err := ask(at); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	for range 66 {
		err = ask(at)
	}
	if err == nil {
		t.Error("66 at once were taken")
	}
}
