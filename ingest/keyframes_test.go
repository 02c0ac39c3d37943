package ingest

import (
	"strings"
	"testing"
	"time"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// Each fault has its own name, and its own words.
func TestKeyframesMissing(t *testing.T) {
	plain, claimed := media.Unit{}, media.Unit{Access: media.Access{Claimed: true}}
	idr := media.Unit{RandomAccess: true, Access: media.Access{IDR: true, Claimed: true}}
	for _, c := range []struct {
		name    string
		units   []media.Unit
		reason  front.Reason
		problem problem
		text    string
	}{
		{"no picture", nil, front.NoPictures, problemNoPictures, "announced pictures"},
		{"never a keyframe", []media.Unit{plain, plain}, front.NoKeyframe, problemNoKeyframe, "interval to 2 s"},
		{"none any more", []media.Unit{idr, plain}, front.NoKeyframe, problemNoKeyframe, "interval to 2 s"},
		{"none that is one", []media.Unit{claimed, plain}, front.FalseKeyframes, problemFalseKeyframes, "neither IDR pictures nor recovery points"},
		{"none that is one any more", []media.Unit{claimed, idr, plain}, front.NoKeyframe, problemNoKeyframe, "interval to 2 s"},
	} {
		k := keyframes{format: media.H264}
		for i := range c.units {
			k.take(&c.units[i])
		}
		reason, a := k.missing(12 * time.Second)
		if r := k.refusal(); reason != c.reason || a.Problem != c.problem || !strings.Contains(a.Text, c.text) || !strings.Contains(a.Text, "for 12 s") || r.Reason != c.reason || !strings.Contains(r.Text, c.text) {
			t.Errorf("%s: %s, %+v, %+v", c.name, reason, a, r)
		}
	}
}

// Streams that not every player can start with are told what they are.
func TestOpenGOPAdvice(t *testing.T) {
	idr := media.Access{IDR: true}
	for _, c := range []struct {
		name   string
		format media.Format
		access media.Access
		want   string
	}{
		{"closed GOP", media.H264, idr, ""},
		{"open GOP", media.H264, media.Access{Recovery: true, Intra: true}, "x264: open-gop=0"},
		{"intra refresh", media.H264, media.Access{Recovery: true, RecoveryFrames: 18}, "x264: intra-refresh=0"},
		{"keyframes of I slices", media.H264, media.Access{Intra: true, Claimed: true}, "x264: open-gop=0"},
		{"I slices between", media.H264, media.Access{Intra: true}, ""},
		{"closed GOP of HEVC", media.HEVC, idr, ""},
		{"open GOP of HEVC", media.HEVC, media.Access{Intra: true, Claimed: true}, "x265: open-gop=0"},
		{"intra refresh of HEVC", media.HEVC, media.Access{Recovery: true, RecoveryFrames: 9}, "x265: intra-refresh=0"},
	} {
		k := keyframes{format: c.format}
		for _, a := range []media.Access{idr, c.access, {}} {
			k.take(&media.Unit{Access: a})
		}
		got := k.advice()
		if c.want == "" && got != nil || c.want != "" && (len(got) != 1 || got[0].Problem != problemOpenGOP || !strings.Contains(got[0].Text, c.want)) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
