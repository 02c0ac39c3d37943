package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Table is a table of measurements in a Markdown file, between the lines
// "<!-- Name -->" and "<!-- the table's end -->".
type Table struct {
	Name    string
	Columns []string
}

const tableEnds = "<!-- the table's end -->"

// Write puts a row into the file's table, in the place of an earlier one with the
// same first cell. The rows are those of order, in that order.
func (x Table) Write(file string, cells, order []string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begins := "<!-- " + x.Name + " -->"
	head, rest, ok := strings.Cut(string(text), begins)
	table, tail, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", file, begins, tableEnds)
	}
	lines := make(map[string]string)
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) == len(x.Columns) {
			lines[strings.TrimPrefix(cells[0], "| ")] = strings.TrimSpace(line)
		}
	}
	for i := range cells {
		cells[i] = strings.NewReplacer("|", "/", "\n", " ").Replace(cells[i])
	}
	lines[cells[0]] = "| " + strings.Join(cells, " | ") + " |"
	var b strings.Builder
	b.WriteString(head + begins + "\n| " + strings.Join(x.Columns, " | ") + " |\n|" + strings.Repeat(" --- |", len(x.Columns)) + "\n")
	for _, name := range order {
		if line := lines[name]; line != "" {
			b.WriteString(line + "\n")
		}
	}
	b.WriteString(tableEnds + tail)
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

// Measured says when and of which commit something is measured.
func Measured() string {
	return time.Now().UTC().Format("2006-01-02 15:04") + ", " + commit()
}

// commit is what is tested, with a + when files beside the tables were changed since.
var commit = sync.OnceValue(func() string {
	head, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	changed, err2 := exec.Command("git", "status", "--porcelain", "--",
		":(top)", ":(top,exclude)docs/chaos.md", ":(top,exclude)docs/security.md").Output()
	if err != nil || err2 != nil {
		return "unknown"
	}
	if len(changed) > 0 {
		return strings.TrimSpace(string(head)) + "+"
	}
	return strings.TrimSpace(string(head))
})
