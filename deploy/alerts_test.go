// Package deploy holds what a cluster needs beside the binary.
package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every alert names a metric that exists and a heading of the runbook.
func TestAlerts(t *testing.T) {
	rules, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(runbook), -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		headings[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	for _, m := range regexp.MustCompile(`runbook: docs/runbook.md#(\S+)`).FindAllStringSubmatch(string(rules), -1) {
		if !headings[m[1]] {
			t.Errorf("the runbook has no heading #%s", m[1])
		}
	}
	alerts, links := strings.Count(string(rules), "- alert: "), strings.Count(string(rules), "runbook: ")
	if alerts == 0 || alerts != links {
		t.Errorf("%d alerts have %d links to the runbook", alerts, links)
	}

	// A service names its metrics in full, or what follows its prefix.
	named := map[string]string{}
	for _, service := range []string{"ingest", "transcode", "edge", "api"} {
		files, err := filepath.Glob("../" + service + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") {
				named[service] += string(source)
			}
		}
	}
	for _, m := range regexp.MustCompile(`millrace_([a-z]+)_([a-z0-9_]+)`).FindAllStringSubmatch(string(rules), -1) {
		if code := named[m[1]]; !strings.Contains(code, `"`+m[2]+`"`) && !strings.Contains(code, `"`+m[0]+`"`) {
			t.Errorf("no metric is called %s", m[0])
		}
	}
}
