// Package deploy holds what a cluster needs beside the binary.
package deploy

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every alert links to a heading of the runbook.
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
}
