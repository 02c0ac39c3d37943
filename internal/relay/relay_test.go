package relay

import (
	"testing"
	"time"
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

func TestIndependent(t *testing.T) {
	if m := testMark; m.Independent() {
		t.Error("a cut within a GOP is called independent")
	}
	if m := (Mark{Sequence: 4, DecodeFrom: 4}); !m.Independent() {
		t.Error("a keyframe isn't called independent")
	}
}

func TestPath(t *testing.T) {
	if got := Path("a/b?c", 7); got != "/relay/a%2Fb%3Fc?from=7" {
		t.Error(got)
	}
}
