package hls

import (
	"strings"
	"testing"
)

// goodPlaylist is what the checker must accept, and badPlaylists change one thing of it.
const goodPlaylist = `#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:4
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.00000,HOLD-BACK=12.00000,PART-HOLD-BACK=1.20000
#EXT-X-PART-INF:PART-TARGET=0.36567
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-DISCONTINUITY-SEQUENCE:1
#EXT-X-MAP:URI="init-a.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-23T12:00:00.000Z
#EXTINF:2.00000,
1.7.p.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="init-b.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-23T12:00:02.000Z
#EXT-X-PART:DURATION=0.33333,URI="1.8.0.p.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.33333,URI="1.8.1.p.m4s"
#EXT-X-PART:DURATION=0.10000,URI="1.8.2.p.m4s"
#EXTINF:0.76667,
1.8.p.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-23T12:00:02.767Z
#EXT-X-PART:DURATION=0.33333,URI="1.9.0.p.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="1.9.1.p.m4s"
#EXT-X-RENDITION-REPORT:URI="../audio/index.m3u8",LAST-MSN=9,LAST-PART=0
`

func mustParse(t *testing.T, text string) *MediaPlaylist {
	t.Helper()
	m, err := ParseMedia(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return m
}

func TestCheckerReadsAPlaylist(t *testing.T) {
	m := mustParse(t, goodPlaylist)
	if n := len(m.Segments); n != 3 {
		t.Fatalf("%d segments, want 3", n)
	}
	for i, want := range []struct {
		sequence, discontinuity uint64
		init                    string
		open                    bool
	}{{7, 1, "init-a.mp4", false}, {8, 2, "init-b.mp4", false}, {9, 2, "init-b.mp4", true}} {
		s := m.Segments[i]
		if s.Sequence != want.sequence || s.Discontinuity != want.discontinuity || s.Map != want.init || s.Open() != want.open {
			t.Errorf("segment %d is %+v, want %+v", i, s, want)
		}
	}
	if sequence, part := m.Next(); sequence != 9 || part != 1 {
		t.Errorf("next is %d.%d, want 9.1", sequence, part)
	}
}

func TestCheckerFindsFaults(t *testing.T) {
	for name, change := range map[string][2]string{
		"no header":             {"#EXTM3U\n", ""},
		"unknown tag":           {"#EXT-X-VERSION:9", "#EXT-X-VERSION:9\n#EXT-X-FOO"},
		"old version":           {"#EXT-X-VERSION:9", "#EXT-X-VERSION:6"},
		"long segment":          {"#EXTINF:2.00000", "#EXTINF:4.50000"},
		"long part":             {"DURATION=0.33333,URI=\"1.8.0", "DURATION=0.36568,URI=\"1.8.0"},
		"short part":            {"DURATION=0.33333,URI=\"1.8.1", "DURATION=0.30000,URI=\"1.8.1"},
		"sum of parts":          {"#EXTINF:0.76667", "#EXTINF:0.76700"},
		"hold-back":             {"PART-HOLD-BACK=1.20000", "PART-HOLD-BACK=0.70000"},
		"skip until":            {"CAN-SKIP-UNTIL=24.0", "CAN-SKIP-UNTIL=23.0"},
		"no map":                {"#EXT-X-MAP:URI=\"init-a.mp4\"\n", ""},
		"no time":               {"#EXT-X-PROGRAM-DATE-TIME:2026-11-23T12:00:02.000Z\n", ""},
		"time goes back":        {"T12:00:02.000Z", "T11:59:59.000Z"},
		"late discontinuity":    {"#EXTINF:0.76667", "#EXT-X-DISCONTINUITY\n#EXTINF:0.76667"},
		"late map":              {"#EXT-X-PART:DURATION=0.10000", "#EXT-X-MAP:URI=\"x\"\n#EXT-X-PART:DURATION=0.10000"},
		"late sequence":         {"#EXTINF:2.00000", "#EXT-X-DISCONTINUITY-SEQUENCE:1\n#EXTINF:2.00000"},
		"part twice":            {"1.8.1.p", "1.8.0.p"},
		"hint is listed":        {"1.9.1.p", "1.9.0.p"},
		"hint after the end":    {"#EXT-X-PRELOAD-HINT", "#EXT-X-ENDLIST\n#EXT-X-PRELOAD-HINT"},
		"media after the hint":  {"#EXT-X-RENDITION-REPORT", "#EXT-X-GAP\n#EXT-X-RENDITION-REPORT"},
		"open quote":            {"INDEPENDENT=YES\n#EXT-X-PART:DURATION=0.33333,URI=\"1.8.1.p.m4s\"", "INDEPENDENT=YES\n#EXT-X-PART:DURATION=0.33333,URI=\"1.8.1.p.m4s"},
		"negative":              {"#EXTINF:2.0", "#EXTINF:-2.0"},
		"segment without media": {"#EXTINF:2.00000,\n", ""},
		"no end of line":        {"LAST-PART=0\n", "LAST-PART=0"},
	} {
		text := strings.Replace(goodPlaylist, change[0], change[1], 1)
		if text == goodPlaylist {
			t.Fatalf("%s changes nothing", name)
		}
		if _, err := ParseMedia(text); err == nil {
			t.Errorf("%s isn't found", name)
		}
	}
}

func TestCheckerComparesPlaylists(t *testing.T) {
	before := mustParse(t, goodPlaylist)
	if err := CheckSuccessor(before, before); err != nil {
		t.Errorf("the same playlist: %v", err)
	}
	more := strings.Replace(goodPlaylist, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"1.9.1.p.m4s\"", "#EXT-X-PART:DURATION=0.33333,URI=\"1.9.1.p.m4s\"", 1)
	if err := CheckSuccessor(before, mustParse(t, more)); err != nil {
		t.Errorf("one more part: %v", err)
	}
	if err := CheckSuccessor(mustParse(t, more), before); err == nil {
		t.Error("a part that went isn't found")
	}
	for name, change := range map[string][2]string{
		"target duration":        {"TARGETDURATION:4", "TARGETDURATION:3"},
		"part target":            {"PART-TARGET=0.36567", "PART-TARGET=0.36600"},
		"media sequence":         {"MEDIA-SEQUENCE:7", "MEDIA-SEQUENCE:6"},
		"discontinuity sequence": {"DISCONTINUITY-SEQUENCE:1", "DISCONTINUITY-SEQUENCE:2"},
		"segment's name":         {"\n1.7.p.m4s", "\n1.7.q.m4s"},
		"segment's duration":     {"#EXTINF:2.00000", "#EXTINF:2.10000"},
		"part's name":            {"1.9.0.p", "1.9.0.q"},
		"init":                   {"init-b", "init-c"},
		"time":                   {"02.767Z", "02.768Z"},
		"removed segment": {
			"#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n#EXT-X-MAP:URI=\"init-a.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-23T12:00:00.000Z\n#EXTINF:2.00000,\n1.7.p.m4s\n",
			"#EXT-X-MEDIA-SEQUENCE:8\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n",
		},
	} {
		text := strings.Replace(goodPlaylist, change[0], change[1], 1)
		if text == goodPlaylist {
			t.Fatalf("%s changes nothing", name)
		}
		if err := CheckSuccessor(before, mustParse(t, text)); err == nil {
			t.Errorf("another %s isn't found", name)
		}
	}
}

func TestCheckerMergesDeltas(t *testing.T) {
	full := mustParse(t, goodPlaylist)
	head, tail, _ := strings.Cut(goodPlaylist, "#EXT-X-MAP:URI=\"init-a.mp4\"")
	_, tail, _ = strings.Cut(tail, "1.7.p.m4s\n")
	delta := mustParse(t, head+"#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n"+tail)
	merged, err := delta.merge(full)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkMerged(merged, full); err != nil {
		t.Error(err)
	}
	if err := checkMerged(merged, mustParse(t, strings.Replace(goodPlaylist, "1.7.p", "1.7.q", 1))); err == nil {
		t.Error("another segment isn't found")
	}
	if _, err := delta.merge(delta); err == nil {
		t.Error("a skipped segment that isn't known isn't found")
	}
}
