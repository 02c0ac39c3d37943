// Package millrace_test checks what docs and house rules promise of the whole
// tree: who may import whom, what stays free of I/O, that packages say what
// they are.
package millrace_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// services must not know each other: they meet in internal/.
var services = []string{"ingest", "transcode", "edge", "api", "chat"}

// pure files compute and do no I/O. One that doesn't exist yet, or goes, is
// no error: it is listed once it does.
var pure = []string{
	"ingest/front", "ingest/timeline", "ingest/health.go", "ingest/phase.go", "ingest/slots.go", "ingest/grant.go",
	"transcode/encode/ladder.go", "transcode/encode/args.go", "transcode/encode/packager.go",
	"transcode/storage/shelf.go", "transcode/storage/track.go", "transcode/storage/retain.go",
	"edge/fold", "edge/playlist", "internal/window",
	"chat/command.go",
	"internal/channelname", "internal/flv", "internal/matroska", "internal/media",
}

// rooms are the packages inside of services, and what of their own service each
// may import besides itself. A service's root package may import all of them.
var rooms = map[string][]string{
	"api/store":               nil,
	"edge/fold":               {"edge/playlist"},
	"edge/fold/foldtest":      {"edge/fold", "edge/playlist"},
	"edge/playlist":           nil,
	"ingest/front":            nil,
	"ingest/rtmp":             {"ingest/front"},
	"ingest/timeline":         nil,
	"transcode/encode":        {"transcode/logread"},
	"transcode/logread":       nil,
	"transcode/storage":       nil,
	"transcode/transcodetest": {"transcode/logread"},
}

// testRooms are packages for tests: only tests import them.
var testRooms = []string{"edge/fold/foldtest", "transcode/transcodetest"}

// impure are the packages by which code reaches the world.
var impure = []string{"net", "net/http", "os", "os/exec", "syscall", "github.com/redis/go-redis/v9"}

// source is a parsed Go file.
type source struct {
	path string // from the root, with slashes
	file *ast.File
}

func (s source) imports() []string {
	var list []string
	for _, spec := range s.file.Imports {
		name, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		list = append(list, name)
	}
	return list
}

// sources parses every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	fset := token.NewFileSet()
	root := os.DirFS(".")
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			ignored := name == "bin" || name == "data" || d.Name() == "node_modules" || d.Name() == "testdata"
			if ignored || name != "." && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		list = append(list, source{name, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPackagesHaveComments(t *testing.T) {
	documented := make(map[string]bool)
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		dir := path.Dir(s.path)
		documented[dir] = documented[dir] || s.file.Doc.Text() != ""
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func TestServicesDontImportEachOther(t *testing.T) {
	for _, s := range sources(t) {
		own, _, _ := strings.Cut(s.path, "/")
		if !slices.Contains(services, own) {
			continue
		}
		for _, name := range s.imports() {
			rest, ok := strings.CutPrefix(name, "millrace/")
			if !ok {
				continue
			}
			other, _, _ := strings.Cut(rest, "/")
			if other == "cmd" || other != own && slices.Contains(services, other) {
				t.Errorf("%s imports %s: services meet in internal/ only", s.path, name)
			}
		}
	}
}

// TestRoomsHaveWalls holds the walls inside of services.
func TestRoomsHaveWalls(t *testing.T) {
	for _, s := range sources(t) {
		dir := path.Dir(s.path)
		service, inside, _ := strings.Cut(dir, "/")
		if !slices.Contains(services, service) {
			continue
		}
		may, listed := rooms[dir]
		if inside != "" && !listed {
			t.Errorf("%s is in no room: list %s, and what it may import", s.path, dir)
			continue
		}
		test := strings.HasSuffix(s.path, "_test.go")
		for _, name := range s.imports() {
			other, ok := strings.CutPrefix(name, "millrace/")
			switch {
			case !ok || other == dir || other != service && !strings.HasPrefix(other, service+"/"):
			case slices.Contains(testRooms, other):
				if !test {
					t.Errorf("%s imports %s, which is for tests", s.path, name)
				}
			case inside != "" && !slices.Contains(may, other):
				t.Errorf("%s imports %s: there is a wall between them", s.path, name)
			}
		}
	}
}

func TestContractsDontImportServices(t *testing.T) {
	for _, s := range sources(t) {
		if !strings.HasPrefix(s.path, "internal/") {
			continue
		}
		for _, name := range s.imports() {
			rest, ok := strings.CutPrefix(name, "millrace/")
			if ok && !strings.HasPrefix(rest, "internal/") {
				t.Errorf("%s imports %s: a contract knows no service", s.path, name)
			}
		}
	}
}

func TestPureFilesDoNoIO(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") || !isPure(s.path) {
			continue
		}
		for _, name := range s.imports() {
			if slices.Contains(impure, name) || strings.HasPrefix(name, "github.com/aws/") {
				t.Errorf("%s imports %s, but it must stay free of I/O", s.path, name)
			}
		}
	}
}

// TestTestenvStaysInTests keeps the servers for tests out of the binary.
func TestTestenvStaysInTests(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") || strings.HasPrefix(s.path, "internal/testenv/") || strings.HasPrefix(s.path, "e2e/") {
			continue
		}
		if slices.Contains(s.imports(), "millrace/internal/testenv") {
			t.Errorf("%s imports internal/testenv, which is for tests", s.path)
		}
	}
}

func isPure(name string) bool {
	return slices.ContainsFunc(pure, func(p string) bool {
		return name == p || strings.HasPrefix(name, p+"/")
	})
}
