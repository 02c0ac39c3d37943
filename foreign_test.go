package millrace_test

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// parsers are the libraries that read media which strangers send, with what may be called
// of them, where that isn't all: the rest believes lengths that stand in the data.
// avc.ParseSPSNALUnit makes a slice of up to 2^32 numbers, hevc.ParseSPSNALUnit indexes
// what isn't there, and what reads MP4 makes room for boxes of any size.
var parsers = map[string][]string{
	"github.com/Eyevinn/mp4ff/":                 {"DecodeAVCDecConfRec", "DecodeHEVCDecConfRec", "DecodeAV1CodecConfRec"},
	"github.com/bluenviron/mediacommon/v2/pkg/": nil,
}

// parsing is the name of a function that reads bytes; describing, that of a method of
// mp4ff that does so, too.
var (
	parsing    = regexp.MustCompile(`^(Parse|Decode|Read|Unmarshal|Get|Convert|Extract|CreateAVC|CreateHEVC)`)
	describing = []string{"SetAVCDescriptor", "SetHEVCDescriptor", "SetVVCDescriptor", "SetAACDescriptor", "SetAV1Descriptor"}
)

// parsersAt is where these libraries are used: its parsers are all fuzzed.
const parsersAt = "internal/media"

// Media that strangers send are read in one package, by parsers that are known to be bounded.
func TestForeignBytes(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || slices.Contains(forTests, s.dir()) {
			continue
		}
		for path, allowed := range parsers {
			for _, imported := range s.imports() {
				if !strings.HasPrefix(imported, path) {
					continue
				}
				if s.dir() != parsersAt {
					t.Errorf("%s imports %s: what strangers send is read in %s, where each parser is fuzzed", s.path, imported, parsersAt)
				}
				if allowed != nil {
					s.calls(imported, func(name, at string) {
						if parsing.MatchString(name) && !slices.Contains(allowed, name) || slices.Contains(describing, name) {
							t.Errorf("%s: %s of %s isn't for bytes that strangers send", at, name, imported)
						}
					})
				}
			}
		}
	}
}

// calls calls fn with each name that s uses of an imported package, and of methods that
// have such a name.
func (s source) calls(imported string, fn func(name, at string)) {
	local := imported[strings.LastIndexByte(imported, '/')+1:]
	for _, spec := range s.file.Imports {
		if spec.Path.Value == `"`+imported+`"` && spec.Name != nil {
			local = spec.Name.Name
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if x, ok := n.(*ast.SelectorExpr); ok {
			of, plain := x.X.(*ast.Ident)
			if plain && of.Name == local || slices.Contains(describing, x.Sel.Name) {
				fn(x.Sel.Name, s.fset.Position(x.Pos()).String())
			}
		}
		return true
	})
}
