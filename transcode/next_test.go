package transcode

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/transcode/logread"
)

var phaseNames = map[phase]string{
	phaseWorking: "working", phaseDoubting: "doubting", phaseRelieved: "relieved", phaseStoring: "storing", phaseMade: "made",
	phaseEnding: "ending", phaseDetached: "detached", phaseFinishing: "finishing", phaseOver: "over",
}

var actionNames = map[actionKind]string{
	actStopAt: "stop", actEndAtPause: "end at pause", actDrop: "drop", actTellDetached: "tell", actAnnouncePause: "pause",
	actLook: "look", actEndBroadcast: "end broadcast",
}

// say describes a state and what to do: "phase (result): action, action".
func say(s state, do []action) string {
	text := phaseNames[s.phase]
	if s.result != nil {
		text += " (" + s.result.Error() + ")"
	}
	var all []string
	for _, a := range do {
		name := actionNames[a.kind]
		if a.until > 0 {
			name += fmt.Sprint(" ", a.until)
		}
		all = append(all, name)
	}
	if len(all) > 0 {
		text += ": " + strings.Join(all, ", ")
	}
	return text
}

var (
	errBroke  = errors.New("broke")
	errFailed = errors.New("failed")
	errWhy    = errors.New("why")
	onTime    = time.Unix(1_000_000, 0)
	ownEpoch  = jobs.Epoch{Lease: 7, Grant: 2}
)

// inPhase is a state as an assignment has it in a phase, for which something is due at onTime.
func inPhase(p phase) state {
	s := state{phase: p, reading: true, own: ownEpoch, broadcast: "b", due: onTime}
	switch p {
	case phaseDoubting:
		s.reading, s.result = false, errBroke
	case phaseEnding, phaseFinishing:
		s.result = errWhy
	case phaseDetached:
		s.since = onTime.Add(-time.Second)
	}
	return s
}

// silent is inPhase, without the log.
func silent(p phase) state {
	s := inPhase(p)
	s.reading = false
	return s
}

// TestNext has each event in each phase.
func TestNext(t *testing.T) {
	same := func(p phase) string { return say(inPhase(p), nil) }
	done := event{kind: eventWorkerDone}
	doneStored := event{kind: eventWorkerDone, stored: true}
	doneEnded := event{kind: eventWorkerDone, ended: true}
	failed := event{kind: eventWorkerDone, err: errFailed}
	early, late := event{at: onTime}, event{at: onTime.Add(time.Millisecond)}
	taken := event{kind: eventTakenOver, until: 9}
	ended := event{kind: eventClaimEnded, why: "x", at: onTime}
	broke := event{kind: eventClaimBroke, at: onTime}
	lost := event{kind: eventLogLost, err: errBroke, at: onTime}
	lostInOrder := event{kind: eventLogLost, err: fmt.Errorf("read: %w", logread.ErrEnded), at: onTime}
	moved, closed := event{kind: eventLogMoved}, event{kind: eventClosedShort}
	stored := event{at: onTime, stored: true}
	type row struct {
		what string
		in   state
		e    event
		want string
	}
	rows := []row{
		{"the worker is done, ingest isn't", inPhase(phaseWorking), done, "made"},
		{"and another worker or ingest goes on", inPhase(phaseRelieved), done, "storing"},
		{"and all is stored", inPhase(phaseRelieved), doneStored, "over"},
		{"it has what there was", inPhase(phaseDoubting), done, "made"},
		{"after the claim's end", inPhase(phaseEnding), done, "over (why)"},
		{"after the claim's end, with the end mark", inPhase(phaseEnding), doneEnded, "over"},
		{"without a claim", inPhase(phaseDetached), done, "over"},
		{"what was whole is made", inPhase(phaseFinishing), done, "over (why)"},
		{"what was whole is made, with the end mark", inPhase(phaseFinishing), doneEnded, "over"},
		{"again", inPhase(phaseStoring), done, "storing"},
		{"again", inPhase(phaseMade), done, "made"},
		{"too late", inPhase(phaseOver), failed, "over"},

		{"time passes", inPhase(phaseWorking), late, "working"},
		{"the claim may break yet", inPhase(phaseDoubting), early, "doubting (broke)"},
		{"the claim is whole", inPhase(phaseDoubting), late, "over (broke)"},
		{"marks may come", inPhase(phaseEnding), early, "ending (why)"},
		{"no marks came", inPhase(phaseEnding), late, "finishing (why): drop"},
		{"it is time to look", inPhase(phaseDetached), early, "detached: look"},
		{"it isn't", inPhase(phaseDetached), event{at: onTime.Add(-1)}, "detached"},
		{"nothing comes meanwhile", silent(phaseDetached), late, "detached: pause, look"},
		{"nobody waits for what isn't stored", inPhase(phaseStoring), early, "storing"},
		{"it is stored", inPhase(phaseStoring), stored, "over"},
		{"stored, but not at its end", inPhase(phaseRelieved), stored, "relieved"},

		{"another worker", inPhase(phaseWorking), taken, "relieved: stop 9"},
		{"another worker, in doubt", inPhase(phaseDoubting), taken, "finishing (broke): stop 9, drop"},
		{"another worker, for the second time", inPhase(phaseRelieved), taken, "relieved: stop 9"},
		{"another worker, for nothing", inPhase(phaseMade), taken, "storing"},

		{"ingest ends the claim", inPhase(phaseWorking), ended, "ending (ingest ended the claim: x)"},
		{"ingest ends the claim of who lost the log", inPhase(phaseDoubting), ended, "finishing (ingest ended the claim: x): drop"},
		{"ingest ends the claim before the mark", inPhase(phaseRelieved), ended, "ending (ingest ended the claim: x)"},
		{"ingest ends the claim, without the log", silent(phaseRelieved), ended, "finishing (ingest ended the claim: x): drop"},
		{"as it should", inPhase(phaseMade), ended, "over"},
		{"as it should", inPhase(phaseStoring), ended, "over"},

		{"ingest is gone", inPhase(phaseWorking), broke, "detached: tell"},
		{"ingest is gone, the log was first", inPhase(phaseDoubting), broke, "detached: tell"},
		{"ingest is gone, the log goes on", inPhase(phaseRelieved), broke, "finishing"},
		{"ingest is gone before the mark", silent(phaseRelieved), broke, "finishing: drop"},
		{"all is made", inPhase(phaseMade), broke, "over"},
		{"all is made", inPhase(phaseStoring), broke, "over"},

		{"the log breaks", inPhase(phaseWorking), lost, "doubting (broke)"},
		{"the log ends", inPhase(phaseWorking), lostInOrder, "doubting (read: the relay ended): end at pause"},
		{"the log breaks before the mark", inPhase(phaseRelieved), lost, "finishing (broke): drop"},
		{"the log ends before the mark", inPhase(phaseRelieved), lostInOrder, "relieved: end at pause"},
		{"the log breaks before its last marks", inPhase(phaseEnding), lost, "finishing (why): drop"},
		{"the log ends before its last marks", inPhase(phaseEnding), lostInOrder, "finishing (why): end at pause, drop"},
		{"the log breaks, too", inPhase(phaseDetached), lost, "detached"},
		{"the log ends at last", inPhase(phaseDetached), lostInOrder, "detached: end at pause"},
		{"the log breaks at last", inPhase(phaseFinishing), lost, "finishing (why): drop"},

		{"the broadcast moved", inPhase(phaseDoubting), moved, "relieved"},
		{"the broadcast moved, unheard", inPhase(phaseDetached), moved, "finishing"},
		{"another ingest asked", inPhase(phaseWorking), closed, "relieved"},
		{"another ingest asked, in doubt", inPhase(phaseDoubting), closed, "relieved"},
		{"another ingest asked the detached one", inPhase(phaseDetached), closed, "finishing"},
		{"another ingest asked for nothing", inPhase(phaseMade), closed, "storing"},
		{"another ingest asked, all is stored", inPhase(phaseMade), event{kind: eventClosedShort, stored: true}, "over"},
	}
	for p := phaseWorking; p < phaseOver; p++ {
		rows = append(rows, row{"the worker fails", inPhase(p), failed, "over (failed)"})
	}
	// What means nothing, or nothing any more.
	for _, of := range []struct {
		what   string
		events []event
		phases []phase
	}{
		{"a tick", []event{late}, []phase{phaseRelieved, phaseStoring, phaseMade, phaseFinishing, phaseOver}},
		{"another worker", []event{taken}, []phase{phaseStoring, phaseEnding, phaseDetached, phaseFinishing, phaseOver}},
		{"the claim's end", []event{ended, broke}, []phase{phaseEnding, phaseDetached, phaseFinishing, phaseOver}},
		{"the log's end", []event{lost, lostInOrder}, []phase{phaseStoring, phaseMade, phaseOver}},
		{"a move", []event{moved, closed}, []phase{phaseRelieved, phaseStoring, phaseEnding, phaseFinishing, phaseOver}},
		{"a look", []event{{kind: eventLooked, found: found{err: errFailed}, at: onTime.Add(time.Hour)}}, []phase{
			phaseWorking, phaseDoubting, phaseRelieved, phaseStoring, phaseMade, phaseEnding, phaseFinishing, phaseOver,
		}},
	} {
		for _, e := range of.events {
			for _, p := range of.phases {
				rows = append(rows, row{of.what + ", unheard", inPhase(p), e, same(p)})
			}
		}
	}
	for _, r := range rows {
		got, do := next(r.in, r.e)
		if text := say(got, do); text != r.want {
			t.Errorf("%s: %s becomes %q, want %q", r.what, phaseNames[r.in.phase], text, r.want)
		}
	}
}

// What a detached assignment finds in Redis.
func TestNextOfTheDetached(t *testing.T) {
	record := func(epoch uint64, s lease.State) lease.Record {
		return lease.Record{Broadcast: "b", Epoch: epoch, State: s, Grace: time.Minute}
	}
	old := record(7, lease.Live)
	old.Age = time.Minute + detachedGrace + time.Millisecond
	other := record(3, lease.Live)
	other.Broadcast = "c"
	long := onTime.Add(detachedLimit)
	for _, r := range []struct {
		what  string
		found found
		at    time.Time
		taken time.Time
		want  string
	}{
		{"as it was", found{record: record(7, lease.Live)}, long, time.Time{}, "detached"},
		{"reconnecting", found{record: record(7, lease.Reconnecting)}, long, time.Time{}, "detached"},
		{"ended", found{record: record(7, lease.Ended)}, onTime, time.Time{}, "finishing: end broadcast"},
		{"nobody renewed it", found{record: old}, onTime, time.Time{}, "finishing: end broadcast"},
		{"another broadcast", found{record: other}, onTime, time.Time{}, "finishing: end broadcast"},
		{"another ingest", found{record: record(8, lease.Live)}, long, time.Time{}, "detached"},
		{"another ingest that takes its time", found{record: record(8, lease.Live)}, onTime.Add(detachedPatience - 1), onTime, "detached"},
		{"another ingest that doesn't ask", found{record: record(8, lease.Live)}, onTime.Add(detachedPatience), onTime, "finishing: drop"},
		{"another ingest that ended it", found{record: record(8, lease.Ended)}, onTime, time.Time{}, "detached"},
		{"another worker", found{record: record(7, lease.Live), slot: jobs.Epoch{Lease: 7, Grant: 3}}, onTime, time.Time{}, "over (another worker has the slot)"},
		{"itself", found{record: record(7, lease.Live), slot: ownEpoch}, onTime, time.Time{}, "detached"},
		{"Redis is away", found{err: errFailed}, onTime, time.Time{}, "detached"},
		{"Redis is away for long", found{err: errFailed}, long, time.Time{}, "finishing: drop"},
		{"an earlier lease", found{record: record(6, lease.Live)}, onTime, time.Time{}, "detached"},
		{"an earlier lease for long", found{record: record(6, lease.Live)}, long, time.Time{}, "finishing: drop"},
	} {
		s := inPhase(phaseDetached)
		s.taken = r.taken
		got, do := next(s, event{kind: eventLooked, at: r.at, found: r.found})
		if text := say(got, do); text != r.want {
			t.Errorf("%s: %q, want %q", r.what, text, r.want)
		}
		if first := r.found.record.Epoch == 8 && r.taken.IsZero(); first && !got.taken.Equal(r.at) {
			t.Errorf("%s: the other ingest is noted at %s, want %s", r.what, got.taken, r.at)
		}
	}
}

// Doubt, last marks and looks have their times.
func TestNextSetsTimes(t *testing.T) {
	for _, r := range []struct {
		in   phase
		e    event
		want time.Duration
	}{
		{phaseWorking, event{kind: eventLogLost, err: errBroke}, relayDoubt},
		{phaseWorking, event{kind: eventClaimEnded}, lastMarks},
		{phaseWorking, event{kind: eventClaimBroke}, lookInterval},
		{phaseDetached, event{}, lookInterval},
	} {
		r.e.at = onTime
		if s, _ := next(inPhase(r.in), r.e); s.due.Sub(onTime) != r.want {
			t.Errorf("%s: the next thing is due after %s, want %s", phaseNames[r.in], s.due.Sub(onTime), r.want)
		}
	}
}
