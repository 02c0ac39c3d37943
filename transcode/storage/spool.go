package storage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"millrace/internal/index"
	"millrace/internal/objects"
)

// tmpPrefix begins the names of files that aren't complete.
const tmpPrefix = "tmp-"

// lockName is the file whose lock keeps a second process out.
const lockName = "lock"

// errCorrupt means that a file of the spool isn't what was written.
var errCorrupt = errors.New("the file is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// spool is a directory of objects on their way to S3. A file's name is its
// key, escaped; its first line is a spoolHeader, the object follows. Files
// appear whole, by a rename. They survive the death of the process; after a
// power cut those that didn't reach the disk show by their checksum.
type spool struct {
	dir  string
	lock *os.File
}

// spoolHeader describes the object that follows it in a file.
type spoolHeader struct {
	// Size is the object's, in bytes, Sum its CRC-32C.
	Size int    `json:"size"`
	Sum  uint32 `json:"sum"`
	// Entry announces the object once it is in S3.
	Entry index.Entry `json:"entry"`
}

// spoolFile is a file of the spool.
type spoolFile struct {
	key      string
	size     int64
	modified time.Time
}

// openSpool makes the directory, locks it until close, and returns what an
// earlier run left in it, oldest first.
func openSpool(dir string) (*spool, []spoolFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open spool: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil, fmt.Errorf("open spool %s: %w", dir, errSpoolInUse)
		}
		return nil, nil, fmt.Errorf("lock spool %s: %w", dir, err)
	}
	s := &spool{dir: dir, lock: lock}
	left, err := s.scan()
	if err != nil {
		s.close()
		return nil, nil, err
	}
	return s, left, nil
}

// errSpoolInUse means that another process works in the directory.
var errSpoolInUse = errors.New("another process uses this directory; give each its own --data")

func (s *spool) close() { s.lock.Close() }

// scan lists the files and removes those that aren't complete.
func (s *spool) scan() ([]spoolFile, error) {
	dir, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	var found []spoolFile
	for _, d := range dir {
		if strings.HasPrefix(d.Name(), tmpPrefix) {
			if err := os.Remove(filepath.Join(s.dir, d.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("clear spool: %w", err)
			}
			continue
		}
		key, err := url.PathUnescape(d.Name())
		if err != nil || broadcastOf(key) == "" {
			continue
		}
		info, err := d.Info()
		if err != nil {
			return nil, fmt.Errorf("read spool: %w", err)
		}
		found = append(found, spoolFile{key, info.Size(), info.ModTime()})
	}
	slices.SortFunc(found, func(a, b spoolFile) int { return a.modified.Compare(b.modified) })
	return found, nil
}

func (s *spool) path(key string) string { return filepath.Join(s.dir, url.PathEscape(key)) }

// write stores an object and returns its file's size.
func (s *spool) write(o object) (int64, error) {
	h := spoolHeader{Entry: o.entry}
	for _, d := range o.data {
		h.Size += len(d)
		h.Sum = crc32.Update(h.Sum, castagnoli, d)
	}
	head, err := json.Marshal(h)
	if err != nil {
		return 0, fmt.Errorf("spool %s: %w", o.key, err)
	}
	f, err := os.CreateTemp(s.dir, tmpPrefix+"*")
	if err != nil {
		return 0, fmt.Errorf("spool %s: %w", o.key, err)
	}
	size := int64(len(head) + 1 + h.Size)
	_, err = f.Write(append(head, '\n'))
	for i := 0; err == nil && i < len(o.data); i++ {
		_, err = f.Write(o.data[i])
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), s.path(o.key))
	}
	if err != nil {
		err = fmt.Errorf("spool %s: %w", o.key, err)
		if rerr := os.Remove(f.Name()); rerr != nil {
			err = errors.Join(err, rerr)
		}
		return 0, err
	}
	return size, nil
}

// read returns an object's entry and bytes. [errCorrupt] when they aren't whole.
func (s *spool) read(key string) (index.Entry, []byte, error) {
	b, err := os.ReadFile(s.path(key))
	if err != nil {
		return index.Entry{}, nil, fmt.Errorf("read spooled %s: %w", key, err)
	}
	head, data, ok := bytes.Cut(b, []byte{'\n'})
	var h spoolHeader
	if !ok || json.Unmarshal(head, &h) != nil || h.Size != len(data) || h.Sum != crc32.Checksum(data, castagnoli) {
		return index.Entry{}, nil, fmt.Errorf("read spooled %s: %w", key, errCorrupt)
	}
	return h.Entry, data, nil
}

// remove deletes an object's file; a missing one is no error.
func (s *spool) remove(key string) error {
	if err := os.Remove(s.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove spooled %s: %w", key, err)
	}
	return nil
}

// broadcastOf returns the broadcast that an object's key names, or "".
func broadcastOf(key string) string {
	f := strings.Split(key, "/")
	if len(f) < 3 || f[1] == "" || !strings.HasPrefix(key, objects.Prefix(f[1])) {
		return ""
	}
	return f[1]
}
