package storage

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/index"
)

// newIdleStorage returns a storage that isn't run: nothing leaves memory.
func newIdleStorage() *Storage {
	return New(Config{Log: slog.New(slog.DiscardHandler)})
}

// lockedBuffer is what a follow stream is written to.
type lockedBuffer struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	flushed int
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flushed++
	return nil
}

func (b *lockedBuffer) flushes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.flushed
}

// take returns and forgets what was written.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

func TestFollowHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newIdleStorage()
		p := s.Open("b", "c", grantOf(1, 0, 0))
		var got lockedBuffer
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- p.store.stream(ctx, &got, got.flush)
		}()
		expect := func(what, want string) {
			t.Helper()
			synctest.Wait()
			if text := got.take(); text != want {
				t.Errorf("%s: got %q, want %q", what, text, want)
			}
		}
		expect("at the start", "[]\n")
		time.Sleep(index.Heartbeat - 1)
		expect("before the heartbeat", "")
		time.Sleep(time.Nanosecond)
		expect("a heartbeat", "[]\n")
		time.Sleep(index.Heartbeat / 2)
		p.Pause(0, "away")
		expect("an entry", `[{"type":"pause","writer":{"lease":1,"grant":1},"reason":"away"}]`+"\n")
		time.Sleep(index.Heartbeat - 1)
		expect("the entry puts the heartbeat off", "")
		time.Sleep(time.Nanosecond)
		expect("a heartbeat", "[]\n")
		if n := got.flushes(); n != 4 {
			t.Errorf("flushed %d times, want 4", n)
		}
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("ended with %v", err)
		}
		if n := len(p.store.feed.readers); n != 0 {
			t.Errorf("%d readers are left", n)
		}
	})
}

func TestFollowEndsWithTheBroadcast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newIdleStorage()
		p := s.Open("b", "c", grantOf(1, 0, 0))
		done := make(chan error, 1)
		var got lockedBuffer
		go func() { done <- p.store.stream(t.Context(), &got, got.flush) }()
		synctest.Wait()
		p.End(0, "done")
		time.Sleep(ForgetAfter - 1)
		s.forget(time.Now())
		synctest.Wait()
		if !strings.Contains(got.take(), `"end"`) {
			t.Error("the end isn't delivered")
		}
		select {
		case err := <-done:
			t.Fatalf("the stream ended early: %v", err)
		default:
		}
		time.Sleep(time.Nanosecond)
		s.forget(time.Now())
		if err := <-done; err != nil {
			t.Error(err)
		}
		_, r := p.store.follow()
		if _, ok := <-r.lines; ok {
			t.Error("a forgotten broadcast can be followed")
		}
	})
}

func TestFollowCutsSlowReadersOff(t *testing.T) {
	s := newIdleStorage()
	p := s.Open("b", "c", grantOf(1, 0, 0))
	_, slow := p.store.follow()
	_, quick := p.store.follow()
	for n := range uint64(readerLines) {
		publish(t, p, "v", n) // two lines
		for range 2 {
			if _, ok := <-quick.lines; !ok {
				t.Fatal("the quick reader was cut off")
			}
		}
	}
	lines := 0
	for range slow.lines {
		lines++
	}
	if lines != readerLines {
		t.Errorf("the slow reader got %d lines, want %d", lines, readerLines)
	}
	if n := value(t, s.metrics.disconnects.WithLabelValues("slow")); n != 1 {
		t.Errorf("%g readers are counted, want 1", n)
	}
	p.store.unfollow(slow)
	p.store.unfollow(quick)
}

func TestFollowHTTP(t *testing.T) {
	s := newIdleStorage()
	mux := http.NewServeMux()
	s.Routes(mux)
	server := httptest.NewServer(mux)
	defer server.Close()

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", index.FollowPath("unknown"), nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("an unknown broadcast: %d, want 404", w.Code)
	}
	p := s.Open("b", "c", grantOf(1, 0, 0))
	p.Broadcast(index.Broadcast{TargetDuration: 4, PartTarget: 1, Renditions: []index.Rendition{{Name: "v"}}})
	publish(t, p, "v", 0)
	res, err := server.Client().Get(server.URL + index.FollowPath("b"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() []index.Entry {
		t.Helper()
		for lines.Scan() {
			entries, err := index.ParseLine(lines.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) > 0 {
				return entries
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return nil
	}
	if got := say([][]index.Entry{next()}); got != "broadcast v0.0 v0.1 v0" {
		t.Errorf("first came %s", got)
	}
	publish(t, p, "v", 1)
	if got := say([][]index.Entry{next(), next()}); got != "v1.0 | v1.1 v1" {
		t.Errorf("then came %s", got)
	}
	close(s.stopped) // the service ends
	for lines.Scan() {
		if lines.Text() != "[]" {
			t.Errorf("after the end came %s", lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
}
