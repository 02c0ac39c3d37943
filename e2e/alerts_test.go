package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// Every metric that an alert uses is there before anything has happened, with
// the label's value that the alert asks for: what appears with a first fault has
// no increase.
func TestAlertsBeginAtZero(t *testing.T) {
	t.Parallel()
	rules, err := os.ReadFile(filepath.Join(harness.Root(), "deploy", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	s := harness.StartAll(t)
	// Refusals are counted by many reasons, and the alert is on a rate that lasts:
	// they alone begin with the first one.
	if !wrongKey(t.Context(), s.RTMP) {
		t.Fatal("a wrong key isn't looked at")
	}
	// The refusal is counted when its connection has ended, which may be after the
	// encoder has heard of it.
	harness.Eventually(t, 10*time.Second, func() error {
		if s.Metric("millrace_ingest_connections_refused_total", "") == 0 {
			return errors.New("the refusal isn't counted")
		}
		return nil
	})
	series := string(hls.Get(t, "http://"+s.Ops+"/metrics").Body)
	used := regexp.MustCompile(`(millrace_\w+)(?:\{(\w+="[^"]*")\})?`).FindAllStringSubmatch(string(rules), -1)
	if len(used) == 0 {
		t.Fatal("the alerts use no metric")
	}
	for _, m := range used {
		found := false
		for line := range strings.Lines(series) {
			rest, ok := strings.CutPrefix(line, m[1])
			found = found || ok && (rest[0] == ' ' || rest[0] == '{') && strings.Contains(rest, m[2])
		}
		if !found {
			t.Errorf("%s{%s} isn't there at the start", m[1], m[2])
		}
	}
}
