package harness

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"millrace/e2e/hls"
	"millrace/internal/testenv"
)

// suite is what the tests share: the binary, and files made once.
type suite struct {
	tests interface{ Run() int }
}

// shared is set before the tests run; made is guarded by mu.
var shared struct {
	dir    string
	binary string

	mu   sync.Mutex
	made map[string]*sync.Once
}

// Run builds the binary, unless the environment variable E2E_BINARY names one, runs
// the tests and removes what they shared.
func (s suite) Run() int {
	dir, err := os.MkdirTemp("", "millrace-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared.dir, shared.binary, shared.made = dir, filepath.Join(dir, "millrace"), make(map[string]*sync.Once)
	if built := os.Getenv("E2E_BINARY"); built != "" {
		shared.binary = built
	} else if out, err := exec.Command("go", "build", "-o", shared.binary, "millrace/cmd/millrace").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	code := s.tests.Run()
	hls.Client.CloseIdleConnections()
	return code
}

// perCore is how many tests run side by side for each core, unless -parallel
// says otherwise. Most of a test's life is a broadcast's own time; one of 360
// lines with its two rungs takes a fifth of a core.
const perCore = 3

// Main runs a package's tests, and checks that they leave no goroutine behind.
func Main(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(perCore*runtime.GOMAXPROCS(0))) // a number
	}
	testenv.Main(suite{m})
}

// Binary is the millrace that the tests run.
func Binary() string { return shared.binary }

// Root is the folder of the sources.
var Root = sync.OnceValue(func() string {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "."
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
})

// OutputDir is where logs are kept of what failed.
func OutputDir() string { return filepath.Join(Root(), "e2e", "output") }
