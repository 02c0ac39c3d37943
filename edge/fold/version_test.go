package fold_test

import (
	"strings"
	"testing"
	"time"

	"millrace/edge/fold"
	"millrace/edge/fold/foldtest"
)

// tail returns what a rendition's playlist lists from segment 1 on.
func (s *script) tail(rendition string) string {
	s.T.Helper()
	text := string(s.render(rendition + ".m3u8"))
	foldtest.CheckPlaylist(s.T, text)
	_, text, ok := strings.Cut(text, "\n7.0.p1.m4s\n")
	if !ok {
		s.T.Fatalf("no segment 0:\n%s", text)
	}
	return text
}

// tick is how often an edge looks for what doesn't come.
const tick = 250 * time.Millisecond

// pass has the fold give up what doesn't come, each tick.
func (s *script) pass(d time.Duration) {
	for end := s.Now.Add(d); !s.Now.After(end); s.Now = s.Now.Add(tick) {
		s.GiveUp(s.Now)
	}
}

// One slot makes the rung, the other one sheds it: another rendition stands in
// there, which needs another init section. A segment is listed of one of them.
func TestStandbyThatShedsMixesNothing(t *testing.T) {
	for name, shedding := range map[string]string{"the lower grant": "1.1", "the higher grant": "1.3"} {
		t.Run(name, func(t *testing.T) {
			s := play(t, strings.ReplaceAll(`begin
				broadcast ladder
				whole 360p30 0 0 writer=1.2
				part 360p30 1 0 independent writer=1.2
				whole 360p30 1 1 LOW
				part 360p30 1 1 writer=1.2
				part 360p30 1 2 writer=1.2
				part 360p30 2 0 LOW
				part 360p30 1 3 writer=1.2
				part 360p30 1 4 writer=1.2
				part 360p30 1 5 writer=1.2 + segment 360p30 1 parts=6 writer=1.2
				`, "LOW", "profile=plow init=ilow writer="+shedding))
			got := s.tail("360p30")
			one, _, ok := strings.Cut(got, "7.1.p1.m4s\n")
			if !ok || strings.Contains(one, "plow") || strings.Contains(one, "MAP") || strings.Count(one, "EXT-X-PART:") != 6 {
				t.Errorf("segment 1 is mixed or missing:\n%s", got)
			}
			if !strings.Contains(got, "MAP:URI=\"init-ilow.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-23T12:00:04.000Z\n#EXT-X-PART:DURATION=0.33333,URI=\"7.2.0.plow.m4s\"") {
				t.Errorf("segment 2 is listed as the one that is there first:\n%s", got)
			}
		})
	}
}

// A worker dies in mid-segment, and all that can be had of the segment needs
// another init section. What is listed stays under the EXT-X-MAP that it has.
func TestPartsKeepTheirInit(t *testing.T) {
	const died = `begin
		broadcast ladder
		whole 360p30 0 0
		part 360p30 1 0 independent
		part 360p30 1 1
		part 360p30 1 2
		`
	const other = `whole 360p30 1 1 writer=1.2 profile=psrc init=isrc
		part 360p30 2 0 independent writer=1.2 profile=psrc init=isrc`
	s := play(t, died+other)
	open := s.tail("360p30")
	if strings.Contains(open, "psrc") || strings.Contains(open, "isrc") || strings.Count(open, "EXT-X-PART:") != 3 {
		t.Errorf("the open segment is mixed:\n%s", open)
	}
	s.pass(fold.LagPatience / 2)
	if got := s.tail("360p30"); got != open {
		t.Errorf("nobody was waited for:\n%s", got)
	}
	s.pass(fold.LagPatience)
	got := s.tail("360p30")
	parts, _, _ := strings.Cut(open, "#EXT-X-PRELOAD-HINT")
	rest, ok := strings.CutPrefix(got, parts)
	if !ok {
		t.Fatalf("what was listed has changed:\n%s\nto\n%s", open, got)
	}
	gap, next, ok := strings.Cut(rest, "#EXT-X-GAP\n#EXTINF:2.00000,\n7.1.p1.m4s\n")
	if !ok || strings.Count(gap, "GAP=YES") != 3 || strings.Count(gap, "\n") != 3 {
		t.Errorf("what is missing isn't listed as missing:\n%s", got)
	}
	if !strings.HasPrefix(next, "#EXT-X-MAP:URI=\"init-isrc.mp4\"\n") || !strings.Contains(next, "7.2.0.psrc.m4s") {
		t.Errorf("it doesn't go on with the next segment:\n%s", got)
	}

	// The next worker makes the rung's segment, a moment later.
	s = play(t, died+other)
	s.pass(fold.LagPatience / 2)
	s.Line("whole 360p30 1 1 writer=1.3")
	if got := s.tail("360p30"); !strings.HasPrefix(got, parts) || strings.Contains(got, "GAP") || !strings.Contains(got, "7.1.5.p1.m4s\"\n#EXTINF:2.00000,\n7.1.p1.m4s\n#EXT-X-MAP") {
		t.Errorf("the segment isn't completed:\n%s", got)
	}

	// Nothing of it was listed: it is listed as the one that there is.
	s = play(t, "begin\nbroadcast ladder\nwhole 360p30 0 0\npart 360p30 1 1\n"+other)
	if got := s.tail("360p30"); !strings.Contains(got, "7.1.psrc.m4s\n") || strings.Contains(got, ".p1.m4s") || strings.Contains(got, "GAP") {
		t.Errorf("segment 1 isn't the other version:\n%s", got)
	}
}

// A standby of the higher grant makes another profile, and dies after its first
// part of a segment: the other one's is gone on with, at once from the next
// segment on.
func TestLowerGrantGoesOn(t *testing.T) {
	s := play(t, `begin
		broadcast
		whole source 0 0
		part source 1 0 independent
		part source 1 0 independent writer=1.2 profile=p2
		part source 1 1
		part source 1 2`)
	s.pass(fold.LagPatience + tick)
	if got := s.tail("source"); !strings.Contains(got, "7.1.2.p1.m4s") {
		t.Errorf("it waits for the higher grant:\n%s", got)
	}
	s.Line("part source 1 3")
	s.Line("part source 1 4")
	s.Line("part source 1 5 + segment source 1 parts=6")
	s.Line("part source 2 0 independent")
	if got := s.tail("source"); !strings.Contains(got, "7.1.p1.m4s\n") || !strings.Contains(got, "7.2.0.p1.m4s") || strings.Contains(got, "p2") || strings.Contains(got, "GAP") {
		t.Errorf("the lower grant's isn't gone on with:\n%s", got)
	}
}

// Of two slots that of the lower grant is left, and the publisher leaves.
func TestLowerGrantEndsTheBroadcast(t *testing.T) {
	const left = "begin\nbroadcast\nwhole source 0 1 writer=1.2\nwhole source 2 3\n"
	s := play(t, left+"pause 4")
	if !s.Fold.Paused() {
		t.Error("its pause is refused")
	}
	s.Line("end 4")
	if !s.snapshot().Find("source").Ended {
		t.Error("its end is refused")
	}

	// A worker that was replaced knows the log up to where its successor went on.
	for _, late := range []string{"pause 4", "end 4", "pause", "end 4 writer=0.9"} {
		s = play(t, left+"part source 4 0 independent writer=1.2\n"+late)
		if refused := s.Fold.TakeRefused(); s.Fold.Paused() || s.Fold.EndKnown() || refused[fold.RefusedStale] != 1 {
			t.Errorf("%s: paused %t, end known %t, refused %v", late, s.Fold.Paused(), s.Fold.EndKnown(), refused)
		}
	}
	// So it is where the successor's part isn't listed yet.
	s = play(t, "begin\nbroadcast\nwhole source 0 2\npart source 4 0 independent writer=1.2\npause 4")
	if s.Fold.Paused() {
		t.Error("it is paused by a worker that knows less")
	}
}

// A segment that is told without its parts, as Redis remembers it, takes none off
// the list that are there: they are waited for a moment.
func TestListedPartsStayUntilAllAreTold(t *testing.T) {
	const told = `begin
		broadcast ladder
		whole 360p30 0 0
		part 360p30 1 0 independent
		part 360p30 1 1
		segment 360p30 1 parts=6 writer=1.2
		`
	s := play(t, told)
	s.pass(fold.LagPatience / 2)
	if got := s.tail("360p30"); strings.Count(got, "EXT-X-PART:") != 2 || strings.Contains(got, "EXTINF") {
		t.Errorf("before its parts are told the segment is\n%s", got)
	}
	for _, part := range []string{"2", "3", "4", "5"} {
		s.Line("part 360p30 1 " + part + " writer=1.2")
	}
	if got := s.tail("360p30"); strings.Count(got, "EXT-X-PART:") != 6 || !strings.Contains(got, "#EXTINF:2.00000,\n7.1.p1.m4s\n") {
		t.Errorf("with all its parts the segment is\n%s", got)
	}

	s = play(t, told)
	s.pass(2 * fold.LagPatience)
	if got := s.tail("360p30"); strings.Contains(got, "EXT-X-PART:") || !strings.Contains(got, "7.1.p1.m4s\n") {
		t.Errorf("where they never come the segment is\n%s", got)
	}
}
