// Package millrace_test checks what docs and house rules promise of the whole
// tree: who may import whom, what stays free of I/O, how long files and
// functions are, that packages say what they are.
package millrace_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// walls names each package of the module and the packages of the module that it
// may import. Services meet in internal/ only; inside a service, arrows run one
// way: the root ties its sub-packages together, and these know no more than
// stands here. Tests may import, beyond that, what is in forTests.
var walls = map[string][]string{
	"cmd/millrace": {"ingest", "transcode", "edge", "api", "api/store", "chat", "web",
		"internal/channelname", "internal/child", "internal/credentials", "internal/gate", "internal/objects", "internal/private", "internal/s3server", "internal/seal", "internal/session"},
	"deploy": {},
	"web":    {},

	"ingest": {"ingest/front", "ingest/rtmp", "ingest/timeline",
		"internal/credentials", "internal/jobs", "internal/lease", "internal/media", "internal/private", "internal/rate", "internal/relay", "internal/seal"},
	"ingest/access":   {"ingest/front", "internal/media"},
	"ingest/front":    {"internal/media"},
	"ingest/rtmp":     {"ingest/access", "ingest/front", "internal/flv", "internal/gate", "internal/media", "internal/rate", "internal/sparselog"},
	"ingest/timeline": {"internal/media", "internal/relay"},

	"transcode": {"transcode/encode", "transcode/logread", "transcode/storage",
		"internal/index", "internal/jobs", "internal/lease", "internal/media", "internal/objects", "internal/private", "internal/relay", "internal/seal", "internal/sparselog"},
	"transcode/encode":  {"transcode/logread", "internal/child", "internal/flv", "internal/index", "internal/jobs", "internal/matroska", "internal/media", "internal/relay"},
	"transcode/logread": {"internal/media", "internal/relay"},
	"transcode/storage": {"internal/credentials", "internal/index", "internal/jobs", "internal/media", "internal/objects", "internal/sparselog", "internal/window"},

	"edge": {"edge/fold", "edge/playlist", "internal/gate",
		"internal/index", "internal/jobs", "internal/lease", "internal/media", "internal/objects", "internal/private", "internal/rate", "internal/seal", "internal/sparselog", "internal/viewers", "internal/window"},
	"edge/fold":     {"edge/playlist", "internal/channelname", "internal/index", "internal/jobs", "internal/media"},
	"edge/playlist": {"internal/media"},

	"api":       {"api/store", "internal/channelname", "internal/credentials", "internal/session", "internal/lease", "internal/sparselog", "internal/viewers"},
	"api/store": {"internal/channelname", "internal/credentials", "internal/session"},

	"chat":            {"chat/front/irc", "chat/front/ws", "chat/room", "chat/talk", "chat/websocket", "internal/gate", "internal/credentials", "internal/session"},
	"chat/event":      {},
	"chat/front/irc":  {"chat/event", "chat/moderation", "chat/room", "chat/talk", "chat/websocket", "internal/channelname", "internal/rate", "internal/session"},
	"chat/front/ws":   {"chat/event", "chat/room", "chat/talk", "chat/websocket", "internal/rate", "internal/session"},
	"chat/moderation": {"chat/event"},
	"chat/room":       {},
	"chat/store":      {"chat/event", "internal/sparselog"},
	"chat/talk":       {"chat/event", "chat/moderation", "chat/room", "chat/store", "internal/channelname", "internal/credentials", "internal/session"},
	"chat/websocket":  {"chat/room"},

	"internal/channelname": {},
	"internal/child":       {},
	"internal/credentials": {},
	"internal/flv":         {"internal/media"},
	"internal/gate":        {"internal/sparselog"},
	"internal/index":       {"internal/jobs", "internal/media"},
	"internal/jobs":        {"internal/seal"},
	"internal/lease":       {"internal/jobs", "internal/media", "internal/relay", "internal/seal"},
	"internal/matroska":    {"internal/media"},
	"internal/media":       {},
	"internal/objects":     {},
	"internal/private":     {"internal/seal"},
	"internal/rate":        {},
	"internal/relay":       {"internal/media"},
	"internal/seal":        {},
	"internal/session":     {},
	"internal/s3server":    {"internal/objects", "internal/sparselog"},
	"internal/sparselog":   {},
	"internal/viewers":     {},
	"internal/window":      {},

	// For tests alone.
	"internal/testenv":         {"internal/child", "internal/objects", "internal/private", "internal/s3server", "internal/seal"},
	"internal/media/mediatest": {"internal/media"},
	"edge/fold/foldtest":       {"edge/fold", "internal/index", "internal/jobs", "internal/media"},
	"transcode/transcodetest":  {"transcode/logread", "internal/media/mediatest", "internal/index", "internal/jobs", "internal/media", "internal/relay", "internal/testenv"},
	"e2e": {"e2e/harness", "e2e/hls", "e2e/ertmp", "edge", "ingest", "ingest/front", "transcode",
		"internal/credentials", "internal/flv", "internal/media", "internal/objects", "internal/private"},
	"e2e/chaos": {"e2e/harness", "e2e/hls", "e2e/viewer",
		"internal/child", "internal/index", "internal/jobs", "internal/objects", "internal/private", "internal/relay", "internal/seal"},
	"e2e/hostile":   {"e2e/harness", "e2e/hls", "e2e/viewer"},
	"e2e/chatbench": {"chat/room", "chat/websocket"}, // a module of its own
	"e2e/ertmp":     {"internal/media", "internal/media/mediatest"},
	"e2e/harness":   {"e2e/hls", "internal/child", "internal/objects", "internal/testenv"},
	"e2e/hls":       {"internal/testenv"},
	"e2e/viewer":    {"e2e/harness", "e2e/hls"},
}

// forTests are packages that only tests, and each other, import.
var forTests = []string{"internal/testenv", "internal/media/mediatest", "edge/fold/foldtest", "transcode/transcodetest", "e2e", "e2e/chaos", "e2e/ertmp", "e2e/harness", "e2e/hls", "e2e/hostile", "e2e/viewer"}

// pure packages and files compute: they reach no network, file or process, and read no clock.
var pure = []string{
	"ingest/access", "ingest/front", "ingest/timeline", "edge/fold", "edge/playlist", "chat/event", "chat/moderation",
	"internal/channelname", "internal/flv", "internal/matroska", "internal/media", "internal/rate", "internal/relay", "internal/seal", "internal/window",
	// State machines of services.
	"ingest/grant.go", "ingest/health.go", "ingest/keyframes.go", "ingest/phase.go", "ingest/slots.go", "transcode/next.go", "transcode/state.go",
}

// impure are the packages by which code reaches the world, and clock what reads it.
var (
	impure = []string{"net", "net/http", "os", "os/exec", "syscall", "github.com/redis/go-redis/v9", "github.com/aws/"}
	clock  = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}
)

// The most lines of a file, and of a function without a reason in its comment
// that begins with longReason.
const (
	maxFileLines     = 500
	maxFunctionLines = 60
	longReason       = "It is long since "
)

// source is a parsed Go file.
type source struct {
	path  string // from the root, with slashes
	file  *ast.File
	fset  *token.FileSet
	lines int
}

func (s source) dir() string { return path.Dir(s.path) }
func (s source) test() bool  { return strings.HasSuffix(s.path, "_test.go") }

// own returns the packages of the module that s imports, from the root.
func (s source) own() []string {
	var list []string
	for _, name := range s.imports() {
		if rest, ok := strings.CutPrefix(name, "millrace/"); ok {
			list = append(list, rest)
		}
	}
	return list
}

func (s source) imports() []string {
	var list []string
	for _, spec := range s.file.Imports {
		name, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		list = append(list, name)
	}
	return list
}

// walk calls fn with every file of the module that is written by hand and has
// one of the endings.
func walk(t *testing.T, fn func(name string, text []byte), endings ...string) {
	t.Helper()
	root := os.DirFS(".")
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			ignored := slices.Contains([]string{"node_modules", "testdata", "dist", "output"}, d.Name()) || name == "bin" || name == "data"
			if ignored || name != "." && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.Contains(endings, path.Ext(name)) {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err == nil {
			fn(name, text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	fset := token.NewFileSet()
	walk(t, func(name string, text []byte) {
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, source{name, f, fset, bytes.Count(text, []byte("\n"))})
	}, ".go")
	return list
}

func TestPackagesHaveComments(t *testing.T) {
	documented := make(map[string]bool)
	for _, s := range sources(t) {
		if !s.test() {
			documented[s.dir()] = documented[s.dir()] || s.file.Doc.Text() != ""
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func TestWalls(t *testing.T) {
	seen := map[string]bool{".": true}
	for _, s := range sources(t) {
		seen[s.dir()], seen[s.path] = true, true
		allowed, listed := walls[s.dir()]
		if !listed && s.dir() != "." {
			t.Errorf("%s: its package has no line in walls", s.path)
			continue
		}
		if s.test() {
			allowed = slices.Concat(allowed, forTests, []string{s.dir()})
		}
		for _, name := range s.own() {
			if !slices.Contains(allowed, name) {
				t.Errorf("%s imports %s: that is beyond its wall", s.path, name)
			}
			if slices.Contains(forTests, name) && !s.test() && !slices.Contains(forTests, s.dir()) {
				t.Errorf("%s imports %s, which is for tests", s.path, name)
			}
		}
	}
	for _, dir := range slices.Concat(slices.Sorted(maps.Keys(walls)), pure, forTests) {
		if !seen[dir] {
			t.Errorf("%s is listed and isn't there", dir)
		}
	}
}

func TestPurePackages(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || !slices.Contains(pure, s.dir()) && !slices.Contains(pure, s.path) {
			continue
		}
		for _, name := range s.imports() {
			if slices.ContainsFunc(impure, func(p string) bool {
				return name == p || strings.HasSuffix(p, "/") && strings.HasPrefix(name, p)
			}) {
				t.Errorf("%s imports %s, but it is pure", s.path, name)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if x, ok := n.(*ast.SelectorExpr); ok {
				if of, ok := x.X.(*ast.Ident); ok && of.Name == "time" && slices.Contains(clock, x.Sel.Name) {
					t.Errorf("%s reads the clock (time.%s), but it is pure", s.fset.Position(x.Pos()), x.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestFilesAreShort(t *testing.T) {
	walk(t, func(name string, text []byte) {
		if n := bytes.Count(text, []byte("\n")); n > maxFileLines {
			t.Errorf("%s has %d lines, at most %d are read with ease", name, n, maxFileLines)
		}
	}, ".go", ".ts", ".svelte", ".lua", ".sql")
}

func TestFunctionsAreShort(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || s.test() {
				continue
			}
			lines := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
			if lines > maxFunctionLines && !strings.Contains(fn.Doc.Text(), longReason) {
				t.Errorf("%s: %s has %d lines, and no reason in its comment (%q...)", s.path, fn.Name.Name, lines, longReason)
			}
		}
	}
}

// docPath finds what looks like a path of the tree in the documents.
var docPath = regexp.MustCompile("`((?:api|cmd|deploy|docs|e2e|edge|ingest|internal|scripts|transcode|web)/[a-zA-Z0-9_./-]*[a-zA-Z0-9])`")

func TestDocsNameWhatIsThere(t *testing.T) {
	walk(t, func(name string, text []byte) {
		if strings.HasPrefix(name, "docs/decisions/") || name == "CHANGELOG.md" {
			return // they tell of their time
		}
		for _, m := range docPath.FindAllSubmatch(text, -1) {
			if _, err := os.Stat(string(m[1])); err != nil {
				t.Errorf("%s names %s, which isn't there", name, m[1])
			}
		}
	}, ".md")
}
