package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// modes reads the rights of a directory and of what is in it.
func modes(t *testing.T, dir string) map[string]os.FileMode {
	t.Helper()
	found := map[string]os.FileMode{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"."}, names(entries)...) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		found[name] = info.Mode().Perm()
	}
	return found
}

func names(entries []os.DirEntry) (all []string) {
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestDataDirIsClosedToOthers(t *testing.T) {
	for name, c := range map[string]struct {
		holds []string // directories end with a slash
		want  map[string]os.FileMode
	}{
		"empty": {nil, map[string]os.FileMode{".": 0o700}},
		"its own": {[]string{"millrace.db", "private-secret", "s3/", "s3-keys.json"},
			map[string]os.FileMode{".": 0o700, "millrace.db": 0o600, "private-secret": 0o600, "s3": 0o700, "s3-keys.json": 0o600}},
		"a disk": {[]string{"lost+found/"}, map[string]os.FileMode{".": 0o700, "lost+found": 0o755}},
		"with others' things": {[]string{"millrace.db", "photos/"},
			map[string]os.FileMode{".": 0o755, "millrace.db": 0o600, "photos": 0o755}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			make := func(path string, isDir bool) {
				var err error
				mode := os.FileMode(0o644)
				if isDir {
					mode = 0o755
					err = os.Mkdir(path, mode)
				} else {
					err = os.WriteFile(path, nil, mode)
				}
				if err == nil {
					err = os.Chmod(path, mode) // whatever the umask is
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			make(dir, true)
			for _, e := range c.holds {
				make(filepath.Join(dir, e), strings.HasSuffix(e, "/"))
			}
			if err := makeDataDir(dir); err != nil {
				t.Fatal(err)
			}
			for name, got := range modes(t, dir) {
				if got != c.want[name] {
					t.Errorf("%s has mode %o, want %o", name, got, c.want[name])
				}
			}
		})
	}
}

// A running millrace leaves nothing that others could read.
func TestNothingIsLeftOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	old := syscall.Umask(0)
	err := os.Mkdir(dir, 0o777)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, "channel", dir, "create", "alice")
	<-r.ended
	for name, mode := range modes(t, dir) {
		if mode&0o077 != 0 {
			t.Errorf("%s has mode %o", name, mode)
		}
	}
}
