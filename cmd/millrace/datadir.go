package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// ownFiles are what lies in a data directory: in these keys are, and what viewers may not see yet.
var ownFiles = []string{
	"millrace.lock", "millrace.db", "millrace.db-shm", "millrace.db-wal", "private-secret", "private-secret.new",
	"redis", "s3", "s3-keys.json", "spool",
}

// makeDataDir makes the data directory. One that is there is closed to others, if it
// holds nothing but millrace's; if it does, only what is millrace's in it is. One of another
// user is refused, but for root's: where volumes are mounted for a container, it stays
// root's, and what is in it is closed all the same.
func makeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w; choose another with --data", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w; choose another with --data", err)
	}
	user, owner := os.Geteuid(), 0
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(st.Uid)
	}
	if owner != user && owner != 0 && user != 0 {
		return fmt.Errorf("data directory %s belongs to another user (%d, this is %d), who can read the keys in it: chown it, or choose another with --data", dir, owner, user)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w; choose another with --data", err)
	}
	own := owner == user && info.Mode()&os.ModeSticky == 0
	for _, e := range entries {
		if !slices.Contains(ownFiles, e.Name()) {
			own = own && e.Name() == "lost+found" // of a disk's root
			continue
		}
		if err := closeToOthers(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if own {
		return closeToOthers(dir)
	}
	return nil
}

// closeToOthers takes other users' rights to a file or directory away.
func closeToOthers(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(path, info.Mode().Perm()&^0o077)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // SQLite's come and go
		return fmt.Errorf("other users can read %s, and it can't be closed to them: %w", path, err)
	}
	return nil
}
