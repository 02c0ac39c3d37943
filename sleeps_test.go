package millrace_test

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// sleepers are tests that may sleep: what they do takes a time by its nature.
var sleepers = map[string]string{
	"e2e/chaos/":          "faults last, and there is a rest between them",
	"e2e/hostile/":        "attacks last, and most go slowly on purpose",
	"e2e/latency_test.go": "it draws frames in real time, and looks at them for a while",
	"e2e/watch_test.go":   "it looks at a page for a while",
	"e2e/hostile_test.go": "it sends frames in real time",
	"e2e/front_test.go":   "it sends frames in real time",
}

// inBubble marks a sleep in a function that is called in a bubble of
// testing/synctest only.
const inBubble = "// in a bubble"

// TestTestsDontSleep: a test that sleeps for as long as something usually takes
// fails on a busy machine. It waits for a signal, asks with testenv.Eventually, or
// has a clock of its own in a bubble of testing/synctest.
func TestTestsDontSleep(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test() && !slices.Contains(forTests, s.dir()) || maySleep(s.path) {
			continue
		}
		marked := make(map[int]bool)
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				marked[s.fset.Position(c.Pos()).Line] = c.Text == inBubble
			}
		}
		for _, at := range sleeps(s.file) {
			if line := s.fset.Position(at).Line; !marked[line] {
				t.Errorf("%s:%d sleeps", s.path, line)
			}
		}
	}
}

func maySleep(path string) bool {
	for name := range sleepers {
		if strings.HasPrefix(path, name) {
			return true
		}
	}
	return false
}

// sleeps are the calls of time.Sleep that aren't written inside synctest.Test.
func sleeps(f *ast.File) []token.Pos {
	var list []token.Pos
	ast.Inspect(f, func(n ast.Node) bool {
		switch {
		case isCall(n, "synctest", "Test"):
			return false
		case isCall(n, "time", "Sleep"):
			list = append(list, n.Pos())
		}
		return true
	})
	return list
}

// isCall reports whether a node calls a package's function.
func isCall(n ast.Node, pkg, name string) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name != name {
		return false
	}
	x, ok := f.X.(*ast.Ident)
	return ok && x.Name == pkg
}
