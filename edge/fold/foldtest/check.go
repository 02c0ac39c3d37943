package foldtest

import (
	"strconv"
	"strings"
)

// CheckPlaylist tests what every media playlist must obey, whatever is in it.
func CheckPlaylist(t interface {
	Helper()
	Errorf(string, ...any)
}, text string,
) {
	t.Helper()
	if !strings.HasPrefix(text, "#EXTM3U\n") || !strings.HasSuffix(text, "\n") {
		t.Errorf("not a playlist: %q", text)
	}
	if strings.Contains(text, "INDEPENDENT-SEGMENTS") {
		t.Errorf("EXT-X-INDEPENDENT-SEGMENTS must not be there")
	}
	var target, partTarget float64
	dated, ended, segments := false, false, 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		tag, value, _ := strings.Cut(line, ":")
		switch tag {
		case "#EXT-X-TARGETDURATION":
			target, _ = strconv.ParseFloat(value, 64)
		case "#EXT-X-PART-INF":
			partTarget, _ = strconv.ParseFloat(strings.TrimPrefix(value, "PART-TARGET="), 64)
		case "#EXT-X-PROGRAM-DATE-TIME":
			dated = true
		case "#EXT-X-DISCONTINUITY", "#EXT-X-MAP":
			if dated {
				t.Errorf("%s stands behind EXT-X-PROGRAM-DATE-TIME:\n%s", tag, text)
			}
		case "#EXT-X-PART":
			d, _ := strconv.ParseFloat(strings.TrimPrefix(strings.Split(value, ",")[0], "DURATION="), 64)
			if d > partTarget || !dated {
				t.Errorf("%s: longer than %f, or before the segment's date", line, partTarget)
			}
		case "#EXTINF":
			d, _ := strconv.ParseFloat(strings.TrimSuffix(value, ","), 64)
			if int(d+.5) > int(target) || !dated {
				t.Errorf("%s: longer than %f, or without a date", line, target)
			}
			dated = false
			segments++
		case "#EXT-X-ENDLIST":
			ended = true
		case "#EXT-X-PRELOAD-HINT":
			if ended {
				t.Errorf("a hint after the end")
			}
		}
	}
}
