package storage

import (
	"fmt"
	"strings"
	"testing"

	"millrace/internal/index"
	"millrace/internal/jobs"
)

// grantOf is the n-th grant under one lease.
func grantOf(n, live, backfill uint64) jobs.Grant {
	return jobs.Grant{Epoch: jobs.Epoch{Lease: 1, Grant: n}, Live: live, Backfill: backfill}
}

func partEntry(rendition string, sequence uint64, part int) index.Entry {
	return index.Entry{
		Type: index.TypePart, Rendition: rendition, Epoch: 7, Sequence: sequence, Part: part, Profile: "p", Init: "i",
		Duration: second, Independent: part == 0,
	}
}

func segmentEntry(rendition string, sequence uint64) index.Entry {
	return index.Entry{
		Type: index.TypeSegment, Rendition: rendition, Epoch: 7, Sequence: sequence, Profile: "p", Init: "i", Duration: 2 * second,
	}
}

// partData is what partEntry's part holds in all tests.
func partData(rendition string, sequence uint64, part int) []byte {
	return fmt.Appendf(nil, "%s/%d.%d;", rendition, sequence, part)
}

// say writes lines as text: "a0.0" a part, "a0" a segment, "a0!" a gap.
func say(lines [][]index.Entry) string {
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteString(" | ")
		}
		for j, e := range line {
			if j > 0 {
				b.WriteString(" ")
			}
			switch e.Type {
			case index.TypePart:
				fmt.Fprintf(&b, "%s%d.%d", e.Rendition, e.Sequence, e.Part)
			case index.TypeSegment:
				fmt.Fprintf(&b, "%s%d", e.Rendition, e.Sequence)
			case index.TypeGap:
				fmt.Fprintf(&b, "%s%d!", e.Rendition, e.Sequence)
			default:
				b.WriteString(string(e.Type))
			}
		}
	}
	return b.String()
}

// bench drives a catalogue and collects what follows.
type bench struct {
	t   *testing.T
	s   *catalogue
	by  jobs.Epoch // the newest grant
	out outcome
}

// call is a call of the newest grant.
func (b *bench) call() change { return change{b.s, b.by, &b.out} }

func (b *bench) reopen(g jobs.Grant) {
	b.by = g.Epoch
	b.s.reopen(g)
}

func newBench(t *testing.T, g jobs.Grant) *bench {
	b := &bench{t: t, s: newCatalogue("b", 30*second, 600*second, 1<<20)}
	b.reopen(g)
	return b
}

func (b *bench) part(rendition string, sequence uint64, part int) {
	b.t.Helper()
	if err := b.call().part(partEntry(rendition, sequence, part), partData(rendition, sequence, part)); err != nil {
		b.t.Errorf("part %s%d.%d: %v", rendition, sequence, part, err)
	}
}

// finish publishes the second of two parts, and the segment.
func (b *bench) finish(rendition string, sequence uint64) {
	b.t.Helper()
	if err := b.call().finish(partEntry(rendition, sequence, 1), partData(rendition, sequence, 1), segmentEntry(rendition, sequence)); err != nil {
		b.t.Errorf("finish %s%d: %v", rendition, sequence, err)
	}
}

func (b *bench) whole(rendition string, sequence uint64) {
	b.t.Helper()
	b.part(rendition, sequence, 0)
	b.finish(rendition, sequence)
}

func (b *bench) upload(rendition string, sequence uint64) {
	b.call().uploaded(segmentEntry(rendition, sequence))
}

// said checks and forgets the lines so far.
func (b *bench) said(want string) {
	b.t.Helper()
	if got := say(b.out.lines); got != want {
		b.t.Errorf("follow stream:\n got %s\nwant %s", got, want)
	}
	for _, err := range b.out.errs {
		b.t.Errorf("refused later: %v", err)
	}
	b.out = outcome{}
}
