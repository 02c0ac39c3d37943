package relay

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"millrace/internal/media"
)

var (
	testMark = Mark{
		Kind: Open, Epoch: 1_790_000_000_000, Sequence: 12, Discontinuity: 3, DecodeFrom: 11,
		Start: 900_090, AudioStart: 480_064, Time: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
	}
	testSettings = Settings{
		TargetDuration: 4, PartTarget: 32_790, PartDuration: 30_900, PartHoldBack: 108_000, Video: true, Audio: true,
		FrameRate: 29.97, FrameStep: 1, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
)

func script(t *testing.T, tag []byte, err error) media.Tag {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := media.ReadTag(bytes.NewReader(tag))
	if err != nil || parsed.Type != media.TagScript {
		t.Fatalf("%+v, %v", parsed, err)
	}
	return parsed
}

// The wire form is a contract between versions: it changes only on purpose.
func TestWireForm(t *testing.T) {
	b, err := AppendMark(nil, testMark)
	mark := script(t, b, err)
	if want := "\x02\x00\x09onCutMark\x02\x00\x9c" + `{"kind":"open","epoch":1790000000000,"sequence":12,"discontinuity":3,"decode_from":11,"start":900090,"audio_start":480064,"time":"2026-01-02T03:04:05.678Z"}`; string(mark.Payload) != want || mark.Timestamp != 10_001 {
		t.Errorf("a mark at %d is %q", mark.Timestamp, mark.Payload)
	}
	b, err = AppendSettings(nil, 900_090, testSettings)
	settings := script(t, b, err)
	if want := `{"target_duration":4,"part_target":32790,"part_duration":30900,"part_hold_back":108000,"video":true,"audio":true,"frame_rate":29.97,"frame_step":1,"started":"2026-01-02T03:04:05Z"}`; !bytes.HasSuffix(settings.Payload, []byte(want)) {
		t.Errorf("settings are %q", settings.Payload)
	}
	m, none, err := ParseScript(mark.Payload)
	if err != nil || none != nil || *m != testMark {
		t.Errorf("the mark became %+v, %+v, %v", m, none, err)
	}
	nothing, s, err := ParseScript(settings.Payload)
	if err != nil || nothing != nil || *s != testSettings {
		t.Errorf("the settings became %+v, %+v, %v", s, nothing, err)
	}
}

func TestParseScriptRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		payload string
		foreign bool
	}{
		{"empty", "", true},
		{"metadata", "\x02\x00\x0aonMetaData\x08\x00\x00\x00\x00\x00\x00\x09", true},
		{"cut short", "\x02\x00\x09onCut", true},
		{"no body", "\x02\x00\x09onCutMark", false},
		{"a number for a body", "\x02\x00\x09onCutMark\x00\x3f\xf0\x00\x00\x00\x00\x00\x00", false},
		{"no JSON", "\x02\x00\x09onCutMark\x02\x00\x01x", false},
		{"an unknown kind", "\x02\x00\x09onCutMark\x02\x00\x10" + `{"kind":"other"}`, false},
		{"settings without JSON", "\x02\x00\x13onBroadcastSettings\x02\x00\x01x", false},
	} {
		m, s, err := ParseScript([]byte(c.payload))
		if m != nil || s != nil || err == nil || errors.Is(err, ErrForeign) != c.foreign {
			t.Errorf("%s gave %+v, %+v, %v", c.name, m, s, err)
		}
	}
}

func TestIndependent(t *testing.T) {
	if m := testMark; m.Independent() {
		t.Error("a cut within a GOP is called independent")
	}
	if m := (Mark{Sequence: 4, DecodeFrom: 4}); !m.Independent() {
		t.Error("an IDR isn't called independent")
	}
}

func TestPath(t *testing.T) {
	if got := Path("a/b?c", 7); got != "/relay/a%2Fb%3Fc.flv?from=7" {
		t.Error(got)
	}
}

func FuzzParseScript(f *testing.F) {
	for _, add := range []func() ([]byte, error){
		func() ([]byte, error) { return AppendMark(nil, testMark) },
		func() ([]byte, error) { return AppendSettings(nil, 0, testSettings) },
	} {
		b, err := add()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[11 : len(b)-4])
	}
	f.Add([]byte("\x02\xff\xffonCutMark"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, s, err := ParseScript(b)
		if err != nil && (m != nil || s != nil) || err == nil && (m == nil) == (s == nil) {
			t.Fatalf("%+v, %+v, %v", m, s, err)
		}
		if m == nil {
			return
		}
		tag, err := AppendMark(nil, *m)
		if err != nil {
			return // a time that JSON can't hold
		}
		again, _, err := ParseScript(tag[11 : len(tag)-4])
		if err != nil || !again.Time.Equal(m.Time) || again.Start != m.Start || again.Kind != m.Kind || again.Sequence != m.Sequence {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}
