package playlist

import (
	"testing"

	"millrace/internal/media"
)

func testMedia() *Media {
	parts := make([]Part, 6)
	for i := range parts {
		parts[i] = Part{Epoch: 1, Profile: "p", Duration: 30000}
	}
	return &Media{
		Settings: Settings{TargetDuration: 4, PartTarget: 30000},
		Segments: []*Segment{{Sequence: 5, Duration: 180000}, {Sequence: 6, Duration: 180000, Parts: parts}},
		Open:     &Segment{Sequence: 7, Parts: parts[:2]},
	}
}

func TestHasAndTooFar(t *testing.T) {
	tests := []struct {
		sequence    uint64
		part        int
		has, tooFar bool
	}{
		{0, NoPart, true, false}, // long gone: the whole playlist at once
		{0, 99, true, false},
		{6, NoPart, true, false},
		{6, 5, true, false},
		{6, 6, true, false}, // part 0 of 7
		{7, NoPart, false, false},
		{7, 1, true, false},
		{7, 2, false, false},
		{7, 10, false, false}, // 9 parts past the last one: 3 / PART-TARGET
		{7, 11, false, true},
		{8, NoPart, false, false}, // the last complete one is 6: plus two
		{8, 0, false, false},
		{8, 9, false, true},
		{9, NoPart, false, true},
		{9, 0, false, true},
	}
	m := testMedia()
	for _, tt := range tests {
		if got := m.Has(tt.sequence, tt.part); got != tt.has {
			t.Errorf("Has(%d, %d) = %t", tt.sequence, tt.part, got)
		}
		if got := m.TooFar(tt.sequence, tt.part); got != tt.tooFar {
			t.Errorf("TooFar(%d, %d) = %t", tt.sequence, tt.part, got)
		}
	}
	m.Open = nil
	if m.Has(6, 6) || !m.Has(6, 5) || !m.Has(5, 3) || m.Has(7, 0) {
		t.Error("without an open segment")
	}
	if (&Media{}).Has(0, NoPart) {
		t.Error("an empty playlist has nothing")
	}
}

func TestHint(t *testing.T) {
	m := testMedia()
	if h, ok := m.Hint(); !ok || h != (Hint{7, 2, 1, "p"}) {
		t.Errorf("%+v %t", h, ok)
	}
	m.Open = nil
	if h, ok := m.Hint(); !ok || h != (Hint{7, 0, 1, "p"}) {
		t.Errorf("%+v %t", h, ok)
	}
	for _, silent := range []func(*Media){
		func(m *Media) { m.Ended = true },
		func(m *Media) { m.Paused = true },
		func(m *Media) { m.Segments = m.Segments[:1]; m.Open = nil },
		func(m *Media) { m.Open.Parts = []Part{{Gap: true}} },
		func(m *Media) { m.Segments, m.Open = nil, nil },
	} {
		m := testMedia()
		silent(m)
		if h, ok := m.Hint(); ok {
			t.Errorf("hint %+v", h)
		}
	}
}

func TestAppendSeconds(t *testing.T) {
	tests := []struct {
		ticks media.Ticks
		up    bool
		want  string
	}{
		{0, false, "0.00000"},
		{1, false, "0.00001"},
		{1, true, "0.00002"},
		{30000, false, "0.33333"},
		{30000, true, "0.33334"},
		{90000, true, "1.00000"},
		{3003, false, "0.03337"},
		{media.VideoTimescale*3600*30 + 45000, false, "108000.50000"},
	}
	for _, tt := range tests {
		if got := string(appendSeconds(nil, tt.ticks, tt.up)); got != tt.want {
			t.Errorf("%d %t: %s, want %s", tt.ticks, tt.up, got, tt.want)
		}
	}
}
