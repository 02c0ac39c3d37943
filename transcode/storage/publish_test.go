package storage

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"millrace/internal/index"
	"millrace/internal/jobs"
)

// settled reports to a store that S3 has a segment.
func settled(b *broadcastStore, rendition string, sequence uint64) {
	b.do(func(c change) { c.uploaded(segmentEntry(rendition, sequence)) })
}

func TestPublicationsSideBySide(t *testing.T) {
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	older := s.Open("b", "c", grantOf(1, 5, 3))
	check := func(p *Writer, what string, safe, finished uint64) {
		t.Helper()
		if gotSafe, gotFinished := p.Safe(), p.Finished(); gotSafe != safe || gotFinished != finished {
			t.Errorf("%s: safe %d and finished %d, want %d and %d", what, gotSafe, gotFinished, safe, finished)
		}
	}
	for _, r := range []string{"v", "a"} {
		publish(t, older, r, 5)
	}
	if err := older.Part(partEntry("v", 6, 0), partData("v", 6, 0)); err != nil {
		t.Fatal(err)
	}
	check(older, "before the takeover", 3, 6)

	// Segment 6 is still the older one's; 7 and what follows are the newer one's.
	newer := s.Open("b", "c", grantOf(2, 7, 7))
	check(newer, "at its start", 7, 7)
	if err := newer.Part(partEntry("v", 7, 0), partData("v", 7, 0)); err != nil {
		t.Fatal(err)
	}
	// What comes early waits within each of them.
	publish(t, newer, "v", 8)
	if err := newer.Finish(partEntry("v", 7, 1), partData("v", 7, 1), segmentEntry("v", 7)); err != nil {
		t.Fatal(err)
	}
	if err := older.Finish(partEntry("v", 6, 1), partData("v", 6, 1), segmentEntry("v", 6)); err != nil {
		t.Errorf("the older grant's last segment: %v", err)
	}
	publish(t, older, "a", 6)
	if err := older.Part(partEntry("v", 7, 0), partData("v", 7, 0)); !errors.Is(err, ErrFenced) {
		t.Errorf("the older grant's part from the live mark on: %v, want %v", err, ErrFenced)
	}
	older.Gap(index.Entry{Rendition: "a", Sequence: 7, Reason: "no"})
	older.Skip("a", 7)
	older.Broadcast(index.Broadcast{TargetDuration: 9, PartTarget: 1})
	older.Pause(9, "no")
	older.End(7, "no")
	check(older, "all of its own is made", 3, 7)
	check(newer, "the sound hasn't come", 7, 7)
	publish(t, newer, "a", 7)
	check(newer, "7 is complete", 7, 8)

	want := "v5.0 v5.1 v5 a5.0 a5.1 a5 v6.0 v6.1 v6 a6.0 a6.1 a6 v7.0 v7.1 v7 a7.0 a7.1 a7 v8.0 v8.1 v8"
	if got := say(older.store.catalogue.snapshot()); got != want {
		t.Errorf("a new reader is told\n     %s\nwant %s", got, want)
	}
	v6 := older.store.catalogue.tracks["v"].find(6)
	if v6 == nil || v6.Writer != (jobs.Epoch{Lease: 1, Grant: 1}) {
		t.Errorf("segment 6 is told of as %+v", v6)
	}

	// Each counts its own from its own backfill mark.
	for _, r := range []string{"v", "a"} {
		older.Gap(index.Entry{Rendition: r, Sequence: 3, Reason: "the log no longer reaches back to it"})
		older.Skip(r, 4)
		settled(older.store, r, 5)
		settled(older.store, r, 7)
	}
	check(older, "6 isn't uploaded", 6, 7)
	check(newer, "7 is uploaded", 8, 8)
	settled(older.store, "v", 6)
	settled(older.store, "a", 6)
	if n := older.Safe(); n < 7 {
		t.Errorf("all of the older grant's is uploaded: safe is %d, want 7 at least", n)
	}

	older.Close()
	s.forget(time.Now().Add(2 * ForgetAfter))
	if s.find("b") == nil {
		t.Fatal("a broadcast with a publication is forgotten")
	}
	newer.Close()
	s.forget(time.Now().Add(2 * ForgetAfter))
	if s.find("b") != nil {
		t.Error("it isn't forgotten")
	}
}

// The newest one's close must not end what an older one is still finishing.
func TestPublicationOutlivesANewerOne(t *testing.T) {
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	older := s.Open("b", "c", grantOf(1, 0, 0))
	newer := s.Open("b", "c", grantOf(2, 1, 0))
	newer.Close()
	s.forget(time.Now().Add(2 * ForgetAfter))
	if s.find("b") == nil {
		t.Fatal("it is forgotten while a publication is open")
	}
	publish(t, older, "v", 0)
	older.Close()
	older.Close()
	if err := older.Part(partEntry("v", 0, 0), partData("v", 0, 0)); !errors.Is(err, ErrFenced) {
		t.Errorf("a publication that was closed: %v, want %v", err, ErrFenced)
	}
	s.forget(time.Now().Add(2 * ForgetAfter))
	if s.find("b") != nil {
		t.Error("it isn't forgotten")
	}
}

// Both may make the same segment: bytes that are the same are no conflict, and
// an older one's other version or gap doesn't replace what the newer one makes.
func TestPublicationsOfOneSegment(t *testing.T) {
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	older := s.Open("b", "c", grantOf(1, 0, 0))
	publish(t, older, "v", 0)
	if err := older.Part(partEntry("v", 1, 0), partData("v", 1, 0)); err != nil {
		t.Fatal(err)
	}
	newer := s.Open("b", "c", grantOf(2, 3, 0))
	for _, n := range []uint64{0, 1} {
		publish(t, newer, "v", n)
	}
	if err := older.Finish(partEntry("v", 1, 1), partData("v", 1, 1), segmentEntry("v", 1)); err != nil {
		t.Errorf("the same bytes: %v", err)
	}
	if err := newer.Part(partEntry("v", 2, 0), partData("v", 2, 0)); err != nil {
		t.Fatal(err)
	}
	other := partEntry("v", 2, 0)
	other.Profile = "q"
	if err := older.Part(other, []byte("x")); !errors.Is(err, errVersion) {
		t.Errorf("another version of what the newer one makes: %v, want %v", err, errVersion)
	}
	older.Gap(index.Entry{Rendition: "v", Sequence: 2, Reason: "no"})
	if got, want := say(newer.store.catalogue.snapshot()), "v0.0 v0.1 v0 v1.0 v1.1 v1 v2.0"; got != want {
		t.Errorf("a new reader is told %s, want %s", got, want)
	}
	if err := newer.Finish(partEntry("v", 2, 1), partData("v", 2, 1), segmentEntry("v", 2)); err != nil {
		t.Error(err)
	}
}

// What earlier workers made may be learnt of while media is published already.
func TestPublicationRestoresBesideTheStart(t *testing.T) {
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	p := s.Open("b", "c", grantOf(2, 6, 3))
	publish(t, p, "v", 6)
	p.Part(partEntry("v", 7, 0), partData("v", 7, 0))
	publish(t, p, "v", 4)
	p.Gap(index.Entry{Rendition: "v", Sequence: 3, Reason: "the log no longer reaches back to it"})

	var entries []index.Entry
	for n := range uint64(8) {
		e := segmentEntry("v", n)
		e.Writer = jobs.Epoch{Lease: 1, Grant: 1}
		entries = append(entries, e)
	}
	p.Restore(entries)
	want := "v0 v1 v2 v3! v4.0 v4.1 v4 v5 v6.0 v6.1 v6 v7.0 v7"
	if got := say(p.store.catalogue.snapshot()); got != want {
		t.Errorf("a new reader is told\n     %s\nwant %s", got, want)
	}
	// 4 and 6 were stored by the earlier worker as well, under the same names.
	if n := p.Safe(); n != 8 {
		t.Errorf("safe is %d, want 8", n)
	}
	if err := p.Finish(partEntry("v", 7, 1), partData("v", 7, 1), segmentEntry("v", 7)); err != nil {
		t.Error(err)
	}
	if n := p.Finished(); n != 8 {
		t.Errorf("finished is %d, want 8", n)
	}
}

// A worker that lost its ingest announces a pause of which it doesn't know the
// next segment's number; any new part ends it.
func TestPublicationOfAnOrphan(t *testing.T) {
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	p := s.Open("b", "c", grantOf(1, 0, 0))
	publish(t, p, "v", 0)
	p.Part(partEntry("v", 1, 0), partData("v", 1, 0))
	paused := func() bool {
		return slices.ContainsFunc(slices.Concat(p.store.catalogue.snapshot()...), func(e index.Entry) bool { return e.Type == index.TypePause })
	}
	p.Pause(0, "the ingest can't be reached")
	if !paused() {
		t.Fatal("no pause")
	}
	// Another ingest's log begins with a pause that knows the number: from then
	// on only that segment ends it.
	next := s.Open("b", "c", grantOf(2, 2, 1))
	next.Pause(2, "the publisher lost the connection")
	if err := p.Finish(partEntry("v", 1, 1), partData("v", 1, 1), segmentEntry("v", 1)); err != nil {
		t.Errorf("the segment that was closed short: %v", err)
	}
	if !paused() {
		t.Error("the tail of what was before the pause ended it")
	}
	next.Part(partEntry("v", 2, 0), partData("v", 2, 0))
	if paused() {
		t.Error("the first part after the pause didn't end it")
	}

	next.Pause(0, "the ingest can't be reached")
	publish(t, next, "w", 1)
	if paused() {
		t.Error("a pause without a number wasn't ended by a part")
	}
	p.End(2, "no")
	next.End(3, "nobody came back")
	if got := say(next.store.catalogue.snapshot()); got != "v0.0 v0.1 v0 v1.0 v1.1 v1 w1.0 w1.1 w1 v2.0 end" {
		t.Errorf("a new reader is told %s", got)
	}
}
