package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"millrace/internal/credentials"
)

// The journal is read by more people than a terminal, and keeps what it is told: it
// isn't told the key. Where another program's journal is in the environment, as that of
// the desktop that a terminal runs on, the key is shown.
func TestKeyIsNotToldToTheJournal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	key := credentials.NewStreamKey()
	for _, shown := range []bool{false, true} {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0) // as the journal's stream is
		if err != nil {
			t.Fatal(err)
		}
		stdout, journal := os.NewFile(uintptr(pair[0]), "stdout"), os.NewFile(uintptr(pair[1]), "journal")
		var st syscall.Stat_t
		if err := syscall.Fstat(pair[0], &st); err != nil {
			t.Fatal(err)
		}
		if shown {
			st.Ino++
		}
		t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
		if err := printBanner(stdout, settings{}, listeners{http: l, rtmp: l}, demo{key: key}); err != nil {
			t.Fatal(err)
		}
		if err := stdout.Close(); err != nil {
			t.Fatal(err)
		}
		told, err := io.ReadAll(journal)
		if err != nil {
			t.Fatal(err)
		}
		if err := journal.Close(); err != nil {
			t.Fatal(err)
		}
		text := string(told)
		if strings.Contains(text, key.Reveal()) != shown || strings.Contains(text, "reset-key demo") == shown {
			t.Errorf("with the key shown %t it says:\n%s", shown, text)
		}
	}
}

// A channel that was deleted isn't named.
func TestBannerWithoutDemo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var b strings.Builder
	if err := printBanner(&b, settings{}, listeners{http: l, rtmp: l}, demo{deleted: true}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "demo") || !strings.Contains(b.String(), "millrace channel create NAME") {
		t.Errorf("it says:\n%s", b.String())
	}
}
